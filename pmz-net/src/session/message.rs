//! The messages of the control protocol.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::catalog::{Delta, Snapshot};

/// The version of the protocol that this build speaks. Both ends say theirs; they must be equal.
pub const PROTOCOL: u32 = 1;

/// What an end can do beyond the protocol's base. Unknown ones are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Capability {
    /// Super-packets with their virtio-net header as one message on a stream carrier.
    SuperPackets,
    /// Anything a newer end may name.
    #[serde(other)]
    Unknown,
}

/// The first frame of each connection, from the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "open", rename_all = "kebab-case")]
pub enum Open {
    /// This connection is to be the session's control connection.
    Control(Hello),
    /// This connection is to carry the session's WireGuard messages.
    Carrier {
        /// As in [`Hello::protocol`].
        protocol: u32,
        /// From [`Welcome::token`].
        token: String,
        /// Counts the session's carrier connections from 0.
        index: u16,
    },
}

/// Who the client is and what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the client.
    pub protocol: u32,
    /// Version of the program, for people.
    pub version: String,
    /// The session's WireGuard public key, base64.
    pub public_key: String,
    /// What the client can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// To take up a session whose control connection broke: its [`Welcome::token`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
    /// Addresses that the client would like to keep: those that it had from an agent that is gone. They
    /// are granted where no other peer has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Who calls, for the agent's log: never trusted.
    #[serde(default)]
    pub client: String,
}

/// The agent's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// A session stands.
    Welcome(Box<Welcome>),
    /// A carrier connection is taken; frames follow.
    Carrier {
        /// What both ends can do on it.
        #[serde(default)]
        capabilities: Vec<Capability>,
    },
    /// No; the connection is closed after this.
    Refused(Refusal),
}

/// What a client must know of its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`] of the agent.
    pub protocol: u32,
    /// Version of the agent's program.
    pub version: String,
    /// The agent's name (its pod's).
    pub agent: String,
    /// The agent's WireGuard public key for this session, base64.
    pub public_key: String,
    /// Secret of the session: opens carrier connections and resumes.
    pub token: String,
    /// The client's addresses in the tunnel, one of each family, bound to its key.
    pub addresses: Vec<IpAddr>,
    /// The agent's own addresses in the tunnel, one of each family.
    pub agent_addresses: Vec<IpAddr>,
    /// Where the agent may be reached by UDP, best first.
    pub udp_candidates: Vec<SocketAddr>,
    /// What the agent can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// What leads into the cluster.
    pub networks: Networks,
    /// The cluster's DNS domain, `cluster.local` mostly.
    pub cluster_domain: String,
    /// The largest inner packet that is safe on every carrier, in bytes.
    pub mtu: u16,
}

/// The cluster's networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks {
    /// Of ClusterIPs.
    pub services: Network,
    /// Of pods.
    pub pods: Network,
}

/// A network, and what it is known from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its prefixes, sorted, none within another.
    pub prefixes: Vec<IpNet>,
    /// How they were found.
    pub found: Found,
}

/// How a network was found, surest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// Somebody told the agent.
    Configured,
    /// ServiceCIDR objects.
    ServiceCidr,
    /// The API server named it when it refused an address outside (a dry run; nothing was made).
    Refusal,
    /// The nodes' `podCIDRs`.
    Nodes,
    /// A guess around the addresses that were seen.
    #[default]
    Seen,
    /// Some way that a newer agent has.
    #[serde(other)]
    Other,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub reason: RefusalReason,
    /// For people: one sentence with what to do next.
    pub message: String,
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// The protocol versions differ.
    Version,
    /// The frame was no `Open`.
    Malformed,
    /// Another session holds this key, or no session has this token.
    Session,
    /// No room for another peer.
    Full,
    /// The agent can't serve yet or any more.
    Unavailable,
    /// Anything a newer agent may name.
    #[serde(other)]
    Other,
}

/// From the agent, on the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToClient {
    /// The whole catalog: once at the start, and again where deltas were lost.
    Snapshot(Snapshot),
    /// A step.
    Delta(Delta),
    /// The UDP candidates have changed.
    Candidates {
        /// As in [`Welcome::udp_candidates`].
        udp_candidates: Vec<SocketAddr>,
    },
    /// The cluster's networks have changed.
    Networks(Networks),
    /// Answer to [`ToAgent::Ping`].
    Pong {
        /// As in the ping.
        nonce: u64,
    },
    /// The agent is going away in good order: connect to another one.
    Leaving {
        /// For people.
        reason: String,
    },
    /// A message of a newer agent, ignored.
    #[serde(other)]
    Unknown,
}

/// From the client, on the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToAgent {
    /// Is anybody there?
    Ping {
        /// Comes back in the pong.
        nonce: u64,
    },
    /// The session is over: forget the peer.
    Bye,
    /// A message of a newer client, ignored.
    #[serde(other)]
    Unknown,
}
