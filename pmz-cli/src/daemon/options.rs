//! What `pmz up` wants of the daemon.

use ipnet::IpNet;
use pmz_net::route::{OverlapPolicy, PoolWish, SteerPolicy};
use serde::{Deserialize, Serialize};

use super::choices::{CarrierChoice, EbpfChoice};
use super::names::{DnsChoice, SearchWish};
use crate::cluster::Target;

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
