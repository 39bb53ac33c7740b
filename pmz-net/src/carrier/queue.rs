//! The short fair queue that stands before a stream: FQ-CoDel (RFC 8290), with items of up to a whole super-packet.
//!
//! A stream never drops what it has taken, so what must be dropped or marked is before it, where flows can still be
//! told apart.

use std::collections::VecDeque;
use std::time::Instant;

use super::codel::Codel;
use crate::packet::{MAX_FRAME, PooledFrame, VNET_HDR_LEN, mark_congestion};

/// Flows are told apart by this many of their hash's values.
const BUCKETS: usize = 1024;

/// Bytes that a flow may send before another one's turn. A super-packet takes the credit of many rounds, a flow of small
/// packets is served in each.
const QUANTUM: i64 = 1514;

/// With no more than this queued there is no standing queue, only one super-packet on its way: nothing is dropped
/// for having stood too long.
const SHORT: usize = 64 * 1024;

/// Items that a flow keeps room for when it has none, so that what 1024 flows once needed is not held for ever.
const IDLE_CAPACITY: usize = 32;

/// What can stand in the queue.
// An item without bytes has no place in a queue, so `is_empty` would say nothing.
#[allow(clippy::len_without_is_empty)]
pub trait Queued {
    /// Its length in bytes.
    fn len(&self) -> usize;
    /// Marks it as having met congestion (ECN CE, RFC 3168); false where its sender does not understand that.
    fn mark_ce(&mut self) -> bool;
}

/// A frame: a virtio-net header and a packet.
impl Queued for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }

    fn mark_ce(&mut self) -> bool {
        self.get_mut(VNET_HDR_LEN..).is_some_and(mark_congestion)
    }
}

impl Queued for PooledFrame {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn mark_ce(&mut self) -> bool {
        self.get_mut(VNET_HDR_LEN..).is_some_and(mark_congestion)
    }
}

/// What an item counts, in bytes: also one without bytes takes room.
fn charge(item: &impl Queued) -> usize {
    item.len().max(1)
}

/// What the queue did to items since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Dropped because they stood too long.
    pub dropped_sojourn: u64,
    /// Dropped because the queue was full.
    pub dropped_full: u64,
    /// Marked instead of dropped.
    pub marked: u64,
}

/// A queue of flows, each with its own CoDel, served in turns by bytes; flows that have just begun are
/// served first.
pub struct FairQueue<T: Queued> {
    flows: Vec<Flow<T>>,
    /// Buckets of flows that have not yet had their first quantum.
    new: VecDeque<u16>,
    /// Buckets of the other flows that have something queued, or had it a round ago.
    old: VecDeque<u16>,
    bytes: usize,
    max_bytes: usize,
    counters: QueueCounters,
}

struct Flow<T> {
    items: VecDeque<(Instant, T)>,
    bytes: usize,
    /// Bytes it may still send in this round.
    credit: i64,
    /// Whether it is in one of the lists.
    listed: bool,
    codel: Codel,
}

impl<T: Queued> FairQueue<T> {
    /// `max_bytes` bounds what is queued in all; at least one longest frame fits in any case.
    pub fn new(max_bytes: usize) -> Self {
        let flow = || Flow {
            items: VecDeque::new(),
            bytes: 0,
            credit: 0,
            listed: false,
            codel: Codel::default(),
        };
        Self {
            flows: (0..BUCKETS).map(|_| flow()).collect(),
            new: VecDeque::with_capacity(BUCKETS),
            old: VecDeque::with_capacity(BUCKETS),
            bytes: 0,
            max_bytes: max_bytes.max(MAX_FRAME),
            counters: QueueCounters::default(),
        }
    }

    /// Queues an item. Where that is more than fits, the flow that has most bytes queued loses its oldest items.
    pub fn push(&mut self, now: Instant, flow_hash: u32, item: T) {
        let bucket = (flow_hash % BUCKETS as u32) as u16;
        let len = charge(&item);
        let flow = &mut self.flows[usize::from(bucket)];
        flow.items.push_back((now, item));
        flow.bytes += len;
        self.bytes += len;
        if !flow.listed {
            flow.listed = true;
            flow.credit = QUANTUM;
            self.new.push_back(bucket);
        }
        while self.bytes > self.max_bytes {
            if !self.drop_from_fattest() {
                break;
            }
        }
    }

    /// The next item to send, or `None` if nothing is queued.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        loop {
            let (bucket, is_new) = match (self.new.front(), self.old.front()) {
                (Some(bucket), _) => (*bucket, true),
                (None, Some(bucket)) => (*bucket, false),
                (None, None) => return None,
            };
            let flow = &mut self.flows[usize::from(bucket)];
            if flow.credit <= 0 {
                flow.credit += QUANTUM;
                self.unlist_front(is_new);
                self.old.push_back(bucket);
                continue;
            }
            if let Some(item) = self.pop_from(bucket, now) {
                return Some(item);
            }
            self.unlist_front(is_new);
            // A new flow stays for a round among the old ones, or by sending one packet at a time it would always be
            // served first (RFC 8290 4.2).
            if is_new && !self.old.is_empty() {
                self.old.push_back(bucket);
            } else {
                self.flows[usize::from(bucket)].listed = false;
            }
        }
    }

    /// Bytes queued.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What happened to items so far.
    pub fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn unlist_front(&mut self, is_new: bool) {
        if is_new {
            self.new.pop_front();
        } else {
            self.old.pop_front();
        }
    }

    /// The flow's next item that CoDel lets through.
    fn pop_from(&mut self, bucket: u16, now: Instant) -> Option<T> {
        let flow = &mut self.flows[usize::from(bucket)];
        loop {
            let Some((enqueued, mut item)) = flow.items.pop_front() else {
                flow.codel.emptied();
                flow.items.shrink_to(IDLE_CAPACITY);
                return None;
            };
            let short = self.bytes <= SHORT;
            let len = charge(&item);
            flow.bytes -= len;
            self.bytes -= len;
            if flow.codel.should_drop(now, enqueued, short) {
                if item.mark_ce() {
                    self.counters.marked += 1;
                } else if !flow.items.is_empty() {
                    self.counters.dropped_sojourn += 1;
                    continue;
                }
                // What is left is the flow's only item. Dropped, nothing would follow by which its sender could
                // tell: it would wait for a timeout.
            }
            flow.credit -= len as i64;
            return Some(item);
        }
    }

    fn drop_from_fattest(&mut self) -> bool {
        let listed = self.new.iter().chain(&self.old);
        let Some(bucket) = listed.max_by_key(|b| self.flows[usize::from(**b)].bytes) else {
            return false;
        };
        let flow = &mut self.flows[usize::from(*bucket)];
        let Some((_, item)) = flow.items.pop_front() else {
            return false;
        };
        let len = charge(&item);
        flow.bytes -= len;
        self.bytes -= len;
        self.counters.dropped_full += 1;
        true
    }
}

#[cfg(test)]
mod tests;
