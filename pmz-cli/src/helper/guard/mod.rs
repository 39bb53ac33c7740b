//! The guard before the tunnel's UDP socket: the helper puts it where the way to the agent leads, the daemon says
//! where the agent is and which peers there are.

mod client;
mod server;

use std::net::IpAddr;

use pmz_net::guard::GuardReport;
use serde::{Deserialize, Serialize};

pub(super) use server::Guarder;

/// Peers that are known ahead: the daemon's tunnel numbers one after another, and answers to the first message of
/// the next one must get through before the helper could be told.
pub const AHEAD: u32 = 16;

/// Guards the port of the UDP socket that the helper opened last, at the interface by which the route to the agent
/// leads, from now on and instead of any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardRequest {
    /// The agent's address by UDP.
    pub toward: IpAddr,
    /// The agent's number as a peer: this one, and [`AHEAD`] behind it, are let through.
    pub peer: u32,
}

/// Where the guard is, and what it has counted since the helper began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// The interface, while there is one.
    #[serde(default)]
    pub device: Option<String>,
    /// By reason.
    pub report: GuardReport,
}
