//! What `pmz up` wants of the daemon.

use serde::{Deserialize, Serialize};

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
    /// Whether prefixes may overlap with the machine's other routes.
    #[serde(default)]
    pub overlap: bool,
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
