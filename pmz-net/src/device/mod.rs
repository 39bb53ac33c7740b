//! The TUN: opening it, and reading and writing frames, each a virtio-net header and an IP packet. And what the kernel
//! tells of interfaces.

pub(crate) mod interface;
mod open;
mod tun;

pub use interface::lost_on_the_way_out;
pub use open::{Offloads, OpenError, OpenTun, open_tun, tun_name};
pub use tun::Tun;
