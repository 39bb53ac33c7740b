//! The agent's way out: inner packets become bytes on real sockets, and back.
//!
//! One thread of its own, and whoever brings packets while that thread sleeps, ends the peers' TCP, UDP and ICMP
//! echo and dials for them; no capability is needed. How the engine calls it:
//!
//! ```no_run
//! # use pmz_net::nat::{Egress, Nat, NatConfig, PeerId};
//! # fn wire(egress: Box<dyn Egress>, peer: PeerId, opened: &[u8]) -> std::io::Result<()> {
//! let nat = Nat::new(NatConfig::default())?;
//! let inbox = nat.inbox(); // Clone + Send: one for each thread or task that opens messages
//! let waker = nat.waker(); // for the egress: `waker.room(peer)` once a full carrier has room again
//! let running = nat.start(egress)?; // the thread ends when this is dropped
//!
//! let mut frame = inbox.frames().take(opened.len());
//! frame.extend_from_slice(opened); // virtio-net header + IP packet
//! if inbox.try_push(peer, frame).is_err() { /* full: a datagram carrier drops and counts */ }
//! inbox.settle(); // after one frame or a batch of them
//! // a stream carrier pushes back instead: inbox.push(peer, frame).await
//! inbox.peer_gone(peer);
//! # drop((waker, running)); Ok(())
//! # }
//! ```

mod alarm;
mod config;
mod counters;
mod echo;
mod flow;
mod frame;
mod inbound;
mod inbox;
mod lifecycle;
mod outlet;
mod peers;
mod ports;
mod queue;
mod seat;
mod sockets;
mod tcp;
mod thread;
mod timers;
mod udp;
mod wire;
mod worker;

use crate::packet::MAX_FRAME;
pub use crate::tunnel::PeerId;
pub use config::{NatConfig, TcpStack};
pub use counters::{NatCounters, NatSnapshot};
pub use frame::{Frame, FramePool};
pub use inbox::{Inbox, NatStopped, Waker};
pub use thread::{Nat, RunningNat};

/// The NAT's way back into the tunnel. The engine implements it. One thread at a time calls it: the NAT's, or
/// one that is in [`Inbox::settle`].
pub trait Egress: Send {
    /// Whether the peer's carrier can take packets of this flow now. When it can't, the engine wakes the
    /// NAT ([`Waker::room`]) as soon as it can again: that is how a slow carrier slows a download
    /// without a queue. Always true on UDP.
    fn has_room(&self, peer: PeerId, flow_hash: u32) -> bool;

    /// Sends one packet: a virtio-net header, then an IP packet or super-packet of at most
    /// [`MAX_FRAME`] bytes in all. The engine may change the bytes in place. Packets may be held back
    /// until [`Egress::flush`], so that one system call takes many.
    fn transmit(&mut self, peer: PeerId, flow_hash: u32, frame: &mut [u8]);

    /// As [`Egress::transmit`] for a TCP super-packet whose payload stands elsewhere, in two pieces: `head` is its
    /// virtio-net header and all other headers.
    fn transmit_gathered(
        &mut self,
        peer: PeerId,
        flow_hash: u32,
        head: &mut [u8],
        payload: [&[u8]; 2],
    );

    /// Sends what `transmit` has held back.
    fn flush(&mut self);

    /// How packets to this peer travel now.
    fn way(&self, peer: PeerId) -> Way;
}

/// How packets to a peer travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The largest inner packet, in bytes.
    pub mtu: u16,
    /// The carrier loses no packet that [`Egress::has_room`] let in. TCP towards the peer then needs no
    /// congestion control: the carrier has one.
    pub lossless: bool,
    /// Bytes that one flow of smoltcp's may have in flight: its sender does not survive losses that it causes
    /// itself.
    pub in_flight_limit: usize,
}

const _: () = assert!(MAX_FRAME > u16::MAX as usize);
