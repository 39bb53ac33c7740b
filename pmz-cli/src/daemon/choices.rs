//! What the command line lets the user choose among.

use pmz_net::route::{OverlapPolicy, SteerPolicy};
use serde::{Deserialize, Serialize};

/// Which carriers may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum CarrierChoice {
    /// UDP where it gets through, the stream where it does not.
    #[default]
    Auto,
    /// UDP only.
    Udp,
    /// The stream through the API server only.
    Stream,
}

/// Whether eBPF programs steer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EbpfChoice {
    /// Where the kernel and our rights allow it; plain routes elsewhere.
    #[default]
    Auto,
    /// They must.
    Require,
    /// Plain routes only.
    Off,
}

/// What to do where the cluster's addresses are in use on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OverlapChoice {
    /// Those in use get virtual addresses, the others stay as they are
    #[default]
    Auto,
    /// All services and pods get virtual addresses
    Remap,
    /// The cluster's addresses are used all the same: the narrower prefix wins
    PreferCluster,
    /// Do not connect
    Refuse,
}

impl From<OverlapChoice> for OverlapPolicy {
    fn from(choice: OverlapChoice) -> Self {
        match choice {
            OverlapChoice::Auto => Self::Auto,
            OverlapChoice::Remap => Self::Remap,
            OverlapChoice::PreferCluster => Self::PreferCluster,
            OverlapChoice::Refuse => Self::Refuse,
        }
    }
}

/// How packets get into the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SteerChoice {
    /// By routes; where a rule would take virtual addresses elsewhere, too, as by `tc`
    #[default]
    Auto,
    /// By routes only
    Route,
    /// Where a rule or another route leads the cluster's addresses to another interface, they are taken over there
    Tc,
}

impl From<SteerChoice> for SteerPolicy {
    fn from(choice: SteerChoice) -> Self {
        match choice {
            SteerChoice::Auto => Self::Auto,
            SteerChoice::Route => Self::Route,
            SteerChoice::Tc => Self::Tc,
        }
    }
}
