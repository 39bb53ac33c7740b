//! How packets and news reach the NAT: bounded, and with at most one wake-up for many frames.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::worker::Worker;
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

/// What its own thread and those who bring packets share of a NAT.
pub(super) struct Shared {
    /// There while the thread runs. Whoever holds it does the work.
    pub(super) worker: Mutex<Option<Box<Worker>>>,
    waiting: Mutex<Batch>,
    max_frames: usize,
    max_bytes: usize,
    space: Notify,
    frames: FramePool,
    /// Nobody works, nor is about to look whether there is something to do: whoever adds something must see to
    /// it.
    asleep: AtomicBool,
    stop: AtomicBool,
    /// Peers that have flows waiting for room on their carrier.
    pub(super) blocked_peers: AtomicUsize,
    waker: mio::Waker,
}

impl Shared {
    pub(super) fn new(max_frames: usize, max_bytes: usize, waker: mio::Waker) -> Self {
        Self {
            worker: Mutex::new(None),
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

    /// Says that whoever works stops. False when something waits already: then it must not.
    pub(super) fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let idle = self.waiting.lock().is_empty() && !self.stopped();
        if !idle {
            self.asleep.store(false, Ordering::SeqCst);
        }
        idle
    }

    /// Says that somebody works.
    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::SeqCst)
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Asks the thread to end, and lets everybody know who waits for space.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake_thread();
        self.space.notify_waiters();
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake_thread();
        }
    }

    pub(super) fn wake_thread(&self) {
        // An eventfd's write fails only when its counter is full, and then the thread is awake.
        let _ = self.waker.wake();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting.lock();
        f.debug_struct("Shared")
            .field("frames", &waiting.frames.len())
            .field("bytes", &waiting.bytes)
            .field("asleep", &self.is_asleep())
            .field("stopped", &self.stopped())
            .finish_non_exhaustive()
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
    /// peer and from an address of this peer. It waits until [`Inbox::settle`] is called.
    ///
    /// # Errors
    /// Gives the frame back when the queue is full or the NAT has stopped.
    pub fn try_push(&self, peer: PeerId, frame: Frame) -> Result<(), Frame> {
        self.queue(peer, frame).or_else(|frame| {
            // A batch may be larger than the queue, and nobody has been told of it yet.
            if !self.0.is_asleep() {
                return Err(frame);
            }
            self.settle();
            self.queue(peer, frame)
        })
    }

    fn queue(&self, peer: PeerId, frame: Frame) -> Result<(), Frame> {
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
        Ok(())
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
        self.0.wake();
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
            self.settle();
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
