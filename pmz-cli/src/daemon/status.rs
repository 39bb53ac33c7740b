//! What `pmz status` tells. The JSON of `-o json` is this; fields are added, never renamed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use pmz_net::guard::GuardReport;
use pmz_net::session::Networks;
use pmz_net::steer::DivertedDevice;
use serde::{Deserialize, Serialize};

/// Where the daemon stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The first connection is being made.
    #[default]
    Connecting,
    /// Names and packets work.
    Connected,
    /// The connection was lost and is being made again.
    Reconnecting,
    /// On its way out.
    Stopping,
}

/// How the tunnel's messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CarrierKind {
    /// UDP, straight to the agent.
    Udp,
    /// Streams through the API server.
    Stream,
}

/// The agent of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its version.
    pub version: String,
}

/// The carrier in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierStatus {
    /// Which.
    pub kind: CarrierKind,
    /// Where it leads.
    pub endpoint: String,
    /// Why this one.
    pub why: String,
}

/// Something counted each way, seen from this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Into the tunnel.
    pub sent: u64,
    /// Out of it.
    pub received: u64,
}

/// How names of the cluster are answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// How queries reach pmz: `systemd-resolved`, `ebpf`, `resolv.conf`, or `off`.
    pub how: String,
    /// Why they don't in a better way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Where pmz answers.
    pub server: IpAddr,
    /// The cluster's domain.
    pub domain: String,
    /// Namespaces whose services are found by their bare names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
}

impl DnsStatus {
    /// How queries reach pmz, for people.
    pub fn way(&self) -> String {
        let how = match self.how.as_str() {
            "ebpf" => "by eBPF programs that catch queries".to_owned(),
            "off" => format!("for whoever asks {}", self.server),
            how => format!("by {how}"),
        };
        match &self.missing {
            Some(why) => format!("{how} ({why})"),
            None => how,
        }
    }
}

/// What decides which packets enter the tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteeringStatus {
    /// `tcx` or `clsact`: how the eBPF programs hang on the TUN; `routes` without them.
    pub how: String,
    /// Why there are no programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Prefixes of the cluster that collide with this machine's, and have virtual addresses here.
    #[serde(default)]
    pub remapped: Vec<IpNet>,
    /// Where virtual addresses come from.
    #[serde(default)]
    pub pool: Vec<IpNet>,
    /// Interfaces at which packets to the cluster are taken over, since something leads them there; and those where
    /// that can't be, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diverted: Vec<DivertedDevice>,
}

/// What drops junk before the tunnel's UDP socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStatus {
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// What it has counted.
    #[serde(default)]
    pub counts: GuardReport,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    pub what: String,
    /// Seconds since.
    pub ago_s: u64,
}

/// The whole status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Where the daemon stands.
    pub state: State,
    /// While connecting: what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// While reconnecting: why the connection was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Seconds since the state was entered.
    pub since_s: u64,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process.
    pub pid: u32,
    /// The kubeconfig's context.
    pub context: String,
    /// The API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
    /// The carrier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carrier: Option<CarrierStatus>,
    /// Round trip through the tunnel, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// What new TCP connections into the tunnel use, where pmz has chosen it: `bbr` while UDP takes a long way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub congestion: Option<String>,
    /// The TUN's MTU, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Seconds since the last WireGuard handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<f64>,
    /// Inner bytes.
    #[serde(default)]
    pub bytes: Traffic,
    /// Inner packets; a super-packet counts as one.
    #[serde(default)]
    pub packets: Traffic,
    /// Packets that were dropped, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// The TUN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// This machine's addresses in the tunnel.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What leads into the tunnel.
    #[serde(default)]
    pub routes: Vec<IpNet>,
    /// What decides which packets enter the tunnel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steering: Option<SteeringStatus>,
    /// What drops junk before the tunnel's UDP socket, once there is UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<GuardStatus>,
    /// The cluster's networks, and how the agent knows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Networks>,
    /// Names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsStatus>,
    /// Services of the cluster that have names here.
    #[serde(default)]
    pub services: u64,
    /// Domains that the user has led to services of the cluster.
    #[serde(default)]
    pub domains: u64,
    /// How often the connection was lost and made again.
    #[serde(default)]
    pub reconnects: u64,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<Fault>,
}
