//! Why there is no guard.

use crate::steer::SteerError;

/// Why there is no guard, or why it could not be told something.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// eBPF as such: missing, not permitted, a program refused, a map full.
    #[error(transparent)]
    Ebpf(#[from] SteerError),
    /// An interface has room for one XDP program.
    #[error("{device} has an XDP program already, and only one fits")]
    Occupied {
        /// The interface.
        device: String,
    },
    /// Frames of a kind that the program in a driver can't read.
    #[error("the guard reads frames of Ethernet, and {device} has others (ARP type {kind})")]
    Link {
        /// The interface.
        device: String,
        /// As linux/if_arp.h numbers them.
        kind: u16,
    },
    /// The socket took no filter.
    #[error("guard the tunnel's socket: {0}")]
    Socket(#[source] std::io::Error),
    /// The kernel would leave the program at the interface when the process ends.
    #[error("this kernel has no XDP links, which are what lets the guard go with its process")]
    NoLinks,
}
