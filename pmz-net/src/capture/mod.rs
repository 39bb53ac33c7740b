//! DNS queries of this machine's programs, caught at their sockets by eBPF programs on the root cgroup.
//!
//! The programs (`xdp/programs/src/capture`) lead what a program of one network namespace sends to port 53 of whatever
//! server to an address of this machine instead, which stands for that server: its last sixteen bits are the server's
//! slot. Whoever serves there ([`CaptureSockets`], [`crate::dns::DnsHandle::serve_captured`]) learns from the address at
//! which it was asked which server was meant ([`Capture::server`]), with nothing remembered for a socket. The program
//! sees the server that it has asked, as the source of answers and as its peer.
//!
//! All of it hangs on descriptors of the process: when it ends, however it ends, programs ask their own servers again.
//!
//! Not caught: what our own server asks ([`Knock::announce`]), what other name servers of this machine ask, sockets bound
//! to a device, link-local IPv6 servers (of which only the kernel knows the interface meant), and DNS over TLS or HTTPS.

mod attach;
mod cgroup;
pub(crate) mod datagram;
mod error;
mod servers;
mod slot;
mod sockets;

pub use attach::{Capture, Knock};
pub use cgroup::root_cgroup;
pub use datagram::{Datagram, receive, send};
pub use error::CaptureError;
pub use slot::{Slot, Slots};
pub use sockets::CaptureSockets;

/// The names under which `bpftool prog` shows the programs.
pub const CAPTURE_PROGRAMS: [&str; 8] = pmz_xdp_types::capture::PROGRAMS;
