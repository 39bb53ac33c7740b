//! What `pmz up` wants of the daemon.

use ipnet::IpNet;
use pmz_net::route::{OverlapPolicy, PoolWish, SteerPolicy};
use serde::{Deserialize, Serialize};

use super::names::{DnsChoice, SearchWish};
use crate::cluster::Target;

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

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

/// The daemon's options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpOptions {
    /// Which cluster.
    pub target: Target,
    /// Which carriers.
    #[serde(default)]
    pub carrier: CarrierChoice,
    /// Whether pods' prefixes are led into the tunnel beside the services'.
    pub pods: bool,
    /// What to do where prefixes overlap with what the machine has.
    #[serde(default)]
    pub overlap: OverlapPolicy,
    /// Where virtual addresses come from.
    #[serde(default)]
    pub pool: PoolWish,
    /// Whether packets that go elsewhere are taken over there.
    #[serde(default)]
    pub steer: SteerPolicy,
    /// Prefixes that lead into the tunnel beside the cluster's own.
    #[serde(default)]
    pub include: Vec<IpNet>,
    /// Prefixes that don't, whosever they are.
    #[serde(default)]
    pub exclude: Vec<IpNet>,
    /// Whether eBPF programs steer.
    #[serde(default)]
    pub ebpf: EbpfChoice,
    /// How DNS queries reach pmz; where it is not said, the environment and the config file say it.
    #[serde(default)]
    pub dns: Option<DnsChoice>,
    /// Namespaces whose services are found by their bare names.
    #[serde(default)]
    pub search: SearchWish,
    /// Whether an agent is deployed where the cluster has none.
    #[serde(default)]
    pub deploy: bool,
    /// How much to log: 0 info, 1 debug, 2 and more trace.
    #[serde(default)]
    pub verbose: u8,
    /// The daemon talks on stderr, and ends with the connection that it was started with.
    #[serde(default)]
    pub foreground: bool,
    /// Whom a daemon that was started by root becomes.
    #[serde(default)]
    pub run_as: Option<RunAs>,
}
