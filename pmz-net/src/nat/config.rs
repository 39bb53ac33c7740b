//! What a NAT may do and how much of it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::tcp::Congestion;

/// What ends a client's TCP connection at the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpStack {
    /// pmz's own, which sends as well as Linux' own does over paths that lose and queue.
    #[default]
    Own,
    /// smoltcp's socket, to compare with. Its sender has no selective acknowledgements.
    Smoltcp,
}

/// A name that no implementation has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no TCP is called {0:?}: choose \"own\" or \"smoltcp\"")]
pub struct UnknownTcpStack(String);

impl FromStr for TcpStack {
    type Err = UnknownTcpStack;

    fn from_str(name: &str) -> Result<Self, UnknownTcpStack> {
        match name {
            "own" => Ok(Self::Own),
            "smoltcp" => Ok(Self::Smoltcp),
            _ => Err(UnknownTcpStack(name.to_owned())),
        }
    }
}

impl fmt::Display for TcpStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Smoltcp => "smoltcp",
        })
    }
}

/// Limits and policy. The defaults suit an agent pod with some hundred MiB of memory.
#[derive(Clone, Debug)]
pub struct NatConfig {
    /// The agent's own addresses in the tunnel: echo is answered, everything else refused.
    pub own_addresses: Vec<IpAddr>,
    /// Destinations that are refused (ICMP 'administratively prohibited'). The default holds the pod's
    /// loopback, link-local addresses (a cloud's metadata service among them), multicast, broadcast and the
    /// unspecified address.
    pub deny: Vec<IpNet>,
    /// Flows of all peers together.
    pub max_flows: usize,
    /// Flows of one peer.
    pub max_flows_per_peer: usize,
    /// TCP connections of one peer whose dial has not ended.
    pub max_dials_per_peer: usize,
    /// What ends the clients' TCP connections.
    pub tcp: TcpStack,
    /// How much of a download is on its way to a client over a carrier that may lose packets.
    pub congestion: Congestion,
    /// Bytes of TCP payload that all flows together may hold, those that smoltcp holds not counted.
    pub buffer_bytes: usize,
    /// Bytes of TCP payload that one peer's flows may hold, both directions together. Beyond it a flow keeps
    /// 4 KiB of a download, and what is uploaded is dropped until a service takes what is there.
    /// With smoltcp: of rings; the first flows get rings of [`NatConfig::max_ring_bytes`], later ones
    /// smaller ones, so that the last still gets one.
    pub peer_buffer_bytes: usize,
    /// Bytes of TCP payload that one flow may hold, each direction: what a path needs whose rate times round
    /// trip is half of it.
    pub max_flow_bytes: usize,
    /// smoltcp's largest ring of one flow and direction, in bytes; a power of two.
    pub max_ring_bytes: usize,
    /// Bytes of frames waiting in the inbox.
    pub inbox_bytes: usize,
    /// Frames waiting in the inbox.
    pub inbox_frames: usize,
    /// How long a TCP dial may take before the destination counts as unreachable.
    pub dial_timeout: Duration,
    /// A TCP connection without a sign of life from the client is given up after this; the client is
    /// probed at half of it.
    pub tcp_idle: Duration,
    /// A TCP connection that one side has closed is given up after this much silence.
    pub tcp_half_closed_idle: Duration,
    /// A TCP connection whose client acknowledges nothing of what is on its way is given up after this.
    pub tcp_unacked: Duration,
    /// How long a connection that this end closed first is remembered.
    pub time_wait: Duration,
    /// Connections remembered in that way, all peers together; the oldest goes first.
    pub max_time_wait: usize,
    /// A UDP flow without an answer yet is forgotten after this.
    pub udp_idle: Duration,
    /// A UDP flow that has seen datagrams both ways is forgotten after this.
    pub udp_stream_idle: Duration,
    /// An ICMP echo flow is forgotten after this.
    pub icmp_idle: Duration,
}

/// What no client has a reason to reach through an agent.
fn default_deny() -> Vec<IpNet> {
    [
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/127",
        "fe80::/10",
        "ff00::/8",
        "::ffff:0:0/96",
    ]
    .iter()
    .filter_map(|net| net.parse().ok())
    .collect()
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            own_addresses: Vec::new(),
            deny: default_deny(),
            max_flows: 16 << 10,
            max_flows_per_peer: 4096,
            max_dials_per_peer: 1024,
            tcp: TcpStack::Own,
            congestion: Congestion::default(),
            buffer_bytes: 384 << 20,
            peer_buffer_bytes: 128 << 20,
            max_flow_bytes: 8 << 20,
            max_ring_bytes: 1 << 20,
            inbox_bytes: 8 << 20,
            inbox_frames: 4096,
            dial_timeout: Duration::from_secs(60),
            tcp_idle: Duration::from_secs(2 * 3600),
            tcp_half_closed_idle: Duration::from_secs(120),
            tcp_unacked: Duration::from_secs(300),
            time_wait: Duration::from_secs(30),
            max_time_wait: 16 << 10,
            udp_idle: Duration::from_secs(60),
            udp_stream_idle: Duration::from_secs(180),
            icmp_idle: Duration::from_secs(30),
        }
    }
}

impl NatConfig {
    /// Whether policy refuses this destination.
    pub fn denies(&self, destination: IpAddr) -> bool {
        self.deny.iter().any(|net| net.contains(&destination))
    }

    /// Whether this is one of the agent's own tunnel addresses.
    pub fn is_own(&self, destination: IpAddr) -> bool {
        self.own_addresses.contains(&destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_refuses_what_is_local_to_the_agent() {
        let config = NatConfig::default();
        for refused in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.251",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(config.denies(refused.parse().unwrap()), "{refused}");
        }
        for allowed in [
            "10.96.0.1",
            "192.168.0.1",
            "8.8.8.8",
            "fd00::1",
            "2001:db8::1",
        ] {
            assert!(!config.denies(allowed.parse().unwrap()), "{allowed}");
        }
        assert_eq!(config.deny.len(), 9, "each default prefix parses");
    }
}
