//! How packets and news reach the NAT's thread: bounded, and with one wake-up for many frames.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Frame, FramePool, PeerId};

/// The NAT's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the NAT has stopped")]
pub struct NatStopped;

/// What waits for the thread. Swapped out as a whole.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) frames: VecDeque<(PeerId, Frame)>,
    bytes: usize,
    pub(super) gone: Vec<PeerId>,
    pub(super) room: HashSet<PeerId>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.gone.is_empty() && self.room.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    waiting: Mutex<Batch>,
    max_frames: usize,
    max_bytes: usize,
    space: Notify,
    frames: FramePool,
    /// The thread is in, or on its way into, its wait: whoever adds something must wake it.
    asleep: AtomicBool,
    stop: AtomicBool,
    /// Peers that have flows waiting for room on their carrier.
    pub(super) blocked_peers: AtomicUsize,
    waker: mio::Waker,
}

impl Shared {
    pub(super) fn new(max_frames: usize, max_bytes: usize, waker: mio::Waker) -> Self {
        Self {
            waiting: Mutex::default(),
            max_frames,
            max_bytes,
            space: Notify::new(),
            frames: FramePool::new(),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            blocked_peers: AtomicUsize::new(0),
            waker,
        }
    }

    /// Exchanges what waits for the (emptied) batch of the caller.
    pub(super) fn swap(&self, batch: &mut Batch) {
        batch.bytes = 0;
        std::mem::swap(&mut *self.waiting.lock(), batch);
        if !batch.frames.is_empty() {
            self.space.notify_waiters();
        }
    }

    /// Says that the thread goes to sleep. False when something waits already: then it must not.
    pub(super) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let idle = self.waiting.lock().is_empty() && !self.stopped();
        if !idle {
            self.asleep.store(false, Ordering::SeqCst);
        }
        idle
    }

    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks the thread to end, and lets everybody know who waits for space.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
        self.space.notify_waiters();
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // An eventfd's write fails only when its counter is full, and then the thread is awake.
            let _ = self.waker.wake();
        }
    }
}

/// Where packets from peers go in. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Inbox(pub(super) Arc<Shared>);

impl Inbox {
    /// Buffers for frames.
    pub fn frames(&self) -> &FramePool {
        &self.0.frames
    }

    /// Hands over a frame: a virtio-net header, then an IP packet or super-packet that came from this
    /// peer and from an address of this peer.
    ///
    /// # Errors
    /// Gives the frame back when the queue is full or the NAT has stopped.
    pub fn try_push(&self, peer: PeerId, frame: Frame) -> Result<(), Frame> {
        if self.0.stopped() {
            return Err(frame);
        }
        let mut waiting = self.0.waiting.lock();
        let full = waiting.frames.len() >= self.0.max_frames
            || waiting.bytes + frame.len() > self.0.max_bytes;
        if full && !waiting.frames.is_empty() {
            return Err(frame);
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back((peer, frame));
        drop(waiting);
        self.0.wake();
        Ok(())
    }

    /// Hands over a frame as [`Inbox::try_push`] does, and waits for space: a stream carrier that awaits
    /// this stops reading its connection, and so pushes back.
    ///
    /// # Errors
    /// When the NAT has stopped.
    pub async fn push(&self, peer: PeerId, mut frame: Frame) -> Result<(), NatStopped> {
        loop {
            let mut space = std::pin::pin!(self.0.space.notified());
            space.as_mut().enable();
            match self.try_push(peer, frame) {
                Ok(()) => return Ok(()),
                Err(_) if self.0.stopped() => return Err(NatStopped),
                Err(back) => frame = back,
            }
            space.await;
        }
    }

    /// Drops all flows of a peer; their connections are reset.
    pub fn peer_gone(&self, peer: PeerId) {
        let mut waiting = self.0.waiting.lock();
        // What it sent before is of no use, and must not make flows after it is gone.
        let mut dropped = 0;
        waiting.frames.retain(|(from, frame)| {
            let keep = *from != peer;
            dropped += if keep { 0 } else { frame.len() };
            keep
        });
        waiting.bytes = waiting.bytes.saturating_sub(dropped);
        if !waiting.gone.contains(&peer) {
            waiting.gone.push(peer);
        }
        drop(waiting);
        self.0.wake();
    }
}

/// How the engine tells the NAT that a carrier can take packets again.
#[derive(Clone, Debug)]
pub struct Waker(pub(super) Arc<Shared>);

impl Waker {
    /// A carrier of this peer that had no room ([`super::Egress::has_room`]) has some again. Cheap when no
    /// flow waits for room.
    pub fn room(&self, peer: PeerId) {
        if self.0.blocked_peers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let new = self.0.waiting.lock().room.insert(peer);
        if new {
            self.0.wake();
        }
    }
}
