//! How packets and news reach the NAT.

use std::sync::Arc;

use super::seat::Seat;
use super::{Frame, FramePool, PeerId};

/// The NAT's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the NAT has stopped")]
pub struct NatStopped;

/// Where packets from peers go in. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Inbox(pub(super) Arc<Seat>);

impl Inbox {
    /// Buffers for frames.
    pub fn frames(&self) -> &FramePool {
        self.0.queue.frames()
    }

    /// Hands over a frame: a virtio-net header, then an IP packet or super-packet that came from this
    /// peer and from an address of this peer. It waits until [`Inbox::settle`] is called.
    ///
    /// # Errors
    /// Gives the frame back when the queue is full or the NAT has stopped.
    pub fn try_push(&self, peer: PeerId, frame: Frame) -> Result<(), Frame> {
        let queue = &self.0.queue;
        queue.push(peer, frame).or_else(|frame| {
            // A batch may be larger than the queue, and nobody has been told of it yet.
            if !queue.is_asleep() {
                return Err(frame);
            }
            self.settle();
            queue.push(peer, frame)
        })
    }

    /// Sees to what was pushed, once there is no more for now. Where the NAT's thread sleeps, the caller does the
    /// work itself: that is faster than to wake the thread, most of all where one packet comes at a time.
    ///
    /// Sockets are opened in the caller's network namespace then, which must be that of the NAT's thread.
    pub fn settle(&self) {
        self.0.help();
    }

    /// Has the NAT's thread see to what was pushed, while the caller brings more.
    pub fn hand_over(&self) {
        self.0.queue.wake();
    }

    /// Hands over a frame as [`Inbox::try_push`] does, and waits for space: a stream carrier that awaits
    /// this stops reading its connection, and so pushes back.
    ///
    /// # Errors
    /// When the NAT has stopped.
    pub async fn push(&self, peer: PeerId, mut frame: Frame) -> Result<(), NatStopped> {
        loop {
            let mut space = std::pin::pin!(self.0.queue.space().notified());
            space.as_mut().enable();
            match self.try_push(peer, frame) {
                Ok(()) => return Ok(()),
                Err(_) if self.0.queue.stopped() => return Err(NatStopped),
                Err(back) => frame = back,
            }
            self.settle();
            space.await;
        }
    }

    /// Drops all flows of a peer; their connections are reset.
    pub fn peer_gone(&self, peer: PeerId) {
        self.0.queue.forget(peer);
    }
}

/// How the engine tells the NAT that a carrier can take packets again.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) Arc<Seat>);

impl Waker {
    /// A carrier of this peer that had no room ([`super::Egress::has_room`]) has some again. Cheap when no
    /// flow waits for room.
    pub fn room(&self, peer: PeerId) {
        self.0.queue.room(peer);
    }
}
