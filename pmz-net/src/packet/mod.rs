//! Views over the bytes of IP, TCP, UDP and ICMP; checksums; cutting super-packets into segments and
//! joining segments into super-packets; putting fragments together. Nothing here knows a peer or a flow's state.

pub mod checksum;
pub mod coalesce;
pub mod ecn;
pub mod fragment;
pub mod icmp;
pub mod ip;
pub mod pool;
pub mod segment;
mod tcp;
#[cfg(test)]
pub(crate) mod testing;
mod vnet;

pub use coalesce::Coalescer;
pub use ecn::mark_congestion;
pub use fragment::Reassembler;
pub use ip::{IpView, flow_hash};
pub use pool::{BufferPool, PooledFrame};
pub use segment::Segmenter;
pub use vnet::{GsoKind, VNET_HDR_LEN, VnetHdr};

/// The largest IP packet: the 16-bit total length of IPv4 (RFC 791).
pub const MAX_PACKET: usize = 65_535;

/// Room for a virtio-net header and the largest IP packet behind it.
pub const MAX_FRAME: usize = VNET_HDR_LEN + MAX_PACKET;
