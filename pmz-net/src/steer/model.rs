//! What goes into the maps and what comes out of them, in the words of those who use it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How the programs hang on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attachment {
    /// By links on descriptors of the process (Linux 6.6).
    Tcx,
    /// By filters of the device's clsact qdisc.
    Clsact,
}

/// What is done with the addresses of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrefixKind {
    /// Into the tunnel: ClusterIPs, or their stand-ins. Addresses without a target are refused, once
    /// [`super::Steering::set_complete`] says that all services have one.
    Services,
    /// Into the tunnel: pods, and what the user added.
    Other,
    /// Not into the tunnel.
    Excluded,
}

/// A prefix, and what is done with its addresses. The longest one that holds an address decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteeredPrefix {
    /// Bits beyond its length don't matter. No IPv4-mapped one, and none within ::ffff:0:0/96.
    pub prefix: IpNet,
    /// What is done.
    pub kind: PrefixKind,
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// As this machine uses it.
    pub address: IpAddr,
    /// As the cluster does, where that is another one; of the same family.
    pub real: Option<IpAddr>,
    /// Refused at once: a service without endpoints.
    pub reject: bool,
    /// A service's address, not a pod's.
    pub service: bool,
}

/// A change of what is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetChange {
    /// New, or in the place of what was known before.
    Put(Target),
    /// Nothing is known any more. The address's counters go, too.
    Remove(IpAddr),
}

/// Packets and bytes one way. A super-packet counts as the packets that it stands for; its bytes (of whole IP
/// packets) as they are, so with one IP and one transport header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The traffic of an address since it was first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTraffic {
    /// As this machine uses it.
    pub address: IpAddr,
    /// From the machine to the tunnel.
    pub sent: Volume,
    /// From the tunnel to the machine.
    pub received: Volume,
    /// TCP connections, UDP 5-tuples and runs of pings that the machine began.
    pub flows: u64,
    /// How long ago the last packet passed, in nanoseconds.
    pub idle_ns: u64,
}

/// The traffic of a prefix since it was first steered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixTraffic {
    /// The prefix.
    pub prefix: SteeredPrefix,
    /// From the machine to the tunnel.
    pub sent: Volume,
    /// From the tunnel to the machine.
    pub received: Volume,
}

/// Packets that did not pass and got no answer, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Neither IPv4 nor IPv6.
    pub not_ip: u64,
    /// Too short for its headers, IPv6 with an IPv4-mapped address, or source-routed.
    pub malformed: u64,
    /// No steered prefix holds the destination.
    pub no_prefix: u64,
    /// The destination is excluded.
    pub excluded: u64,
    /// To be refused, but of the kind that is never answered: a RST, an ICMP error, a later fragment, multicast.
    pub unanswerable: u64,
    /// The kernel had no memory, or the packet can't be changed.
    pub failed: u64,
}

/// Packets that were answered in the cluster's place, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// No service has this address.
    pub unknown: u64,
    /// The service has no endpoints.
    pub no_endpoints: u64,
    /// Diverted, and told from another flow by its source address only; or routed, and then dropped.
    #[serde(default)]
    pub collided: u64,
    /// Diverted, and larger than the tunnel takes: answered so that it comes again in smaller pieces.
    #[serde(default)]
    pub too_big: u64,
}

/// What the programs have counted since they were attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteerReport {
    /// Each prefix, as it was set.
    pub prefixes: Vec<PrefixTraffic>,
    /// What did not pass.
    pub drops: Drops,
    /// What was answered at once.
    pub refusals: Refusals,
    /// Packets that passed, but whose address could not be counted any more: too many addresses.
    pub untracked: u64,
}
