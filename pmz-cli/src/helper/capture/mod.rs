//! DNS queries caught at sockets by eBPF programs on the root cgroup: the helper loads them and knows which server an
//! address stands for, the daemon answers.

mod client;
mod server;

use std::net::IpAddr;

use pmz_net::capture::{Knock, Slot, Slots};
use serde::{Deserialize, Serialize};

pub use client::Caught;
pub(super) use server::Catcher;

/// What the daemon may ask of the programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CaptureRequest {
    /// Catches the queries of all programs in the helper's network namespace, once in a helper's life or until
    /// `Release`. Needs a TUN, on which the addresses hang that stand for IPv6 servers.
    Attach,
    /// Who was asked.
    Server {
        /// What the address is that a query came to.
        slot: Slot,
    },
    /// Leaves queries alone again.
    Release,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum CaptureReply {
    /// Queries are caught. With two or four descriptors, as
    /// [`pmz_net::capture::CaptureSockets::from_descriptors`] takes them.
    Attached {
        /// Which addresses stand for servers.
        slots: Slots,
        /// How the daemon tells the programs that it is not to be caught itself.
        knock: Knock,
    },
    /// Who was asked.
    Server {
        /// `None` where the slot stands for nobody.
        address: Option<IpAddr>,
    },
}
