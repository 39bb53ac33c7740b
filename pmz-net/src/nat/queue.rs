//! What waits for the NAT's work: bounded, and with at most one wake-up for many frames.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Frame, FramePool, PeerId};

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

/// What waits, and who is awake to see to it.
pub(super) struct Queue {
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

impl Queue {
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

    /// Buffers for frames.
    pub(super) fn frames(&self) -> &FramePool {
        &self.frames
    }

    /// Where those wait for whom it was full.
    pub(super) fn space(&self) -> &Notify {
        &self.space
    }

    /// Takes a frame, and wakes nobody. Gives it back where it is full, or the NAT has stopped.
    pub(super) fn push(&self, peer: PeerId, frame: Frame) -> Result<(), Frame> {
        if self.stopped() {
            return Err(frame);
        }
        let mut waiting = self.waiting.lock();
        let full =
            waiting.frames.len() >= self.max_frames || waiting.bytes + frame.len() > self.max_bytes;
        if full && !waiting.frames.is_empty() {
            return Err(frame);
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back((peer, frame));
        Ok(())
    }

    /// A peer is gone.
    pub(super) fn forget(&self, peer: PeerId) {
        let mut waiting = self.waiting.lock();
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
        self.wake();
    }

    /// A peer's carrier has room again.
    pub(super) fn room(&self, peer: PeerId) {
        if self.blocked_peers.load(Ordering::SeqCst) == 0 {
            return;
        }
        let new = self.waiting.lock().room.insert(peer);
        if new {
            self.wake();
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

    /// Has the thread work, where nobody does.
    pub(super) fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake_thread();
        }
    }

    pub(super) fn wake_thread(&self) {
        // An eventfd's write fails only when its counter is full, and then the thread is awake.
        let _ = self.waker.wake();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting.lock();
        f.debug_struct("Queue")
            .field("frames", &waiting.frames.len())
            .field("bytes", &waiting.bytes)
            .field("asleep", &self.is_asleep())
            .field("stopped", &self.stopped())
            .finish_non_exhaustive()
    }
}
