//! What stands before one byte stream: a short fair queue of packets, and a few messages that are
//! sealed already and go first. Packets are sealed only when the stream takes them, so that a message's
//! counter is never old when it leaves.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::queue::{FairQueue, QueueCounters, Queued};
use crate::packet::{BufferPool, PooledFrame, VNET_HDR_LEN, mark_congestion};

/// Messages that wait beside the packets: handshakes and answers to probes.
const MAX_URGENT: usize = 32;
/// Below this many queued bytes a stream takes more from a sender that can wait: two super-packets keep
/// it busy, more would only stand in the way.
const ROOM: usize = 128 << 10;

/// Up to this many bytes a frame has a buffer of its own size: a queue of acknowledgements must not hold
/// 64 KiB for each.
const SMALL: usize = 2048;

/// A frame that waits: a virtio-net header and an IP packet or super-packet.
pub enum QueuedFrame {
    /// An ordinary packet.
    Small(Vec<u8>),
    /// A super-packet.
    Large(PooledFrame),
}

impl QueuedFrame {
    /// A copy of `frame`; `None` where it is large and the pool has nothing left.
    pub fn copy_of(frame: &[u8], pool: &BufferPool) -> Option<Self> {
        Self::small(frame).or_else(|| pool.copy_of(frame).map(Self::Large))
    }

    /// The frame itself, where it stands in a buffer of a pool; a small one is copied, and leaves the buffer.
    pub fn taken(frame: &mut Option<PooledFrame>) -> Option<Self> {
        let small = Self::small(frame.as_ref()?);
        small.or_else(|| frame.take().map(Self::Large))
    }

    fn small(frame: &[u8]) -> Option<Self> {
        if frame.len() > SMALL {
            return None;
        }
        let mut own = Vec::with_capacity(frame.len() + VNET_HDR_LEN);
        own.extend_from_slice(frame);
        Some(Self::Small(own))
    }

    /// The packet, and behind it its virtio-net header. The frame is of no use after that.
    pub fn header_behind(&mut self) -> &[u8] {
        match self {
            Self::Small(frame) => {
                frame.extend_from_within(..VNET_HDR_LEN.min(frame.len()));
                frame.get(VNET_HDR_LEN..).unwrap_or_default()
            }
            Self::Large(frame) => frame.header_behind(),
        }
    }

    /// As [`QueuedFrame::copy_of`], of a frame in pieces.
    pub fn gather(head: &[u8], payload: [&[u8]; 2], pool: &BufferPool) -> Option<Self> {
        let mut frame = pool.take()?;
        let mut len = 0;
        for piece in [head, payload[0], payload[1]] {
            let room = frame.space().get_mut(len..len + piece.len())?;
            room.copy_from_slice(piece);
            len += piece.len();
        }
        frame.set_len(len);
        Some(Self::Large(frame))
    }
}

impl Deref for QueuedFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Small(frame) => frame,
            Self::Large(frame) => frame,
        }
    }
}

impl DerefMut for QueuedFrame {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Small(frame) => frame,
            Self::Large(frame) => frame,
        }
    }
}

impl Queued for QueuedFrame {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn mark_ce(&mut self) -> bool {
        self.get_mut(VNET_HDR_LEN..).is_some_and(mark_congestion)
    }
}

/// What the writer of a stream is to send next.
pub enum Next {
    /// A WireGuard message as it is.
    Message(Vec<u8>),
    /// A frame (virtio-net header and packet) to be sealed.
    Frame(QueuedFrame),
}

/// One stream's queue, shared by those who send and the one task that writes.
pub struct StreamQueue {
    index: u16,
    frames: Mutex<FairQueue<QueuedFrame>>,
    urgent: Mutex<VecDeque<Vec<u8>>>,
    ready: Notify,
    /// Somebody found no room and wants to hear when there is some.
    room_wanted: AtomicBool,
    closed: CancellationToken,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl StreamQueue {
    /// A queue for the session's stream number `index`, holding at most `limit` bytes.
    pub fn new(index: u16, limit: usize) -> Self {
        Self {
            index,
            frames: Mutex::new(FairQueue::new(limit)),
            urgent: Mutex::new(VecDeque::new()),
            ready: Notify::new(),
            room_wanted: AtomicBool::new(false),
            closed: CancellationToken::new(),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// The stream's number in its session.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Queues a frame; the queue may drop one, and counts it.
    pub fn push(&self, now: Instant, flow_hash: u32, frame: QueuedFrame) {
        self.frames.lock().push(now, flow_hash, frame);
        self.ready.notify_one();
    }

    /// Queues a sealed message before all frames; false where too many wait.
    pub fn push_message(&self, message: &[u8]) -> bool {
        let mut urgent = self.urgent.lock();
        if urgent.len() >= MAX_URGENT {
            return false;
        }
        urgent.push_back(message.to_vec());
        drop(urgent);
        self.ready.notify_one();
        true
    }

    /// Whether a sender that can wait should send now.
    pub fn has_room(&self) -> bool {
        if self.frames.lock().bytes() < ROOM {
            return true;
        }
        self.room_wanted.store(true, Ordering::SeqCst);
        // The writer may have emptied the queue before it could see the wish.
        self.frames.lock().bytes() < ROOM
    }

    /// What to send next, if anything.
    pub fn pop(&self, now: Instant) -> Option<Next> {
        if let Some(message) = self.urgent.lock().pop_front() {
            return Some(Next::Message(message));
        }
        self.frames.lock().pop(now).map(Next::Frame)
    }

    /// Whether somebody waits for room and there is some now; asked by the writer after each pop.
    pub fn takes_room_wish(&self) -> bool {
        self.room_wanted.load(Ordering::SeqCst)
            && self.frames.lock().bytes() < ROOM
            && self.room_wanted.swap(false, Ordering::SeqCst)
    }

    /// Waits until something was pushed.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Ends the stream, even one that is stuck in a read or a write.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Ends when [`Self::close`] was called.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Counts bytes written to and read from the stream.
    pub fn count(&self, sent: usize, received: usize) {
        self.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
        self.received_bytes
            .fetch_add(received as u64, Ordering::Relaxed);
    }

    /// Bytes written and read so far.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.sent_bytes.load(Ordering::Relaxed),
            self.received_bytes.load(Ordering::Relaxed),
        )
    }

    /// What the queue has dropped and marked.
    pub fn counters(&self) -> QueueCounters {
        self.frames.lock().counters()
    }
}

impl std::fmt::Debug for StreamQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamQueue")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
