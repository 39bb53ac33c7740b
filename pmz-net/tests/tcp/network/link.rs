//! One direction of a path: it loses, delays, reorders, repeats, marks, and holds only so much.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::wire::{ACK, CE, ECT0, Segment};

/// A row of losses ends after this: one that outlasts every timeout would say nothing of an endpoint.
const LONGEST_BURST: Duration = Duration::from_millis(200);
/// Bytes of headers, about.
const HEADERS: usize = 60;

#[derive(Clone, Debug, Default)]
pub(crate) struct LinkSetup {
    /// Of a thousand packets, so many are lost, repeated, and damaged (which the checksum shows).
    pub(crate) loss: u32,
    pub(crate) duplicates: u32,
    pub(crate) corrupted: u32,
    /// Of a thousand packets, so many begin a row of losses of this length.
    pub(crate) bursts: u32,
    pub(crate) burst_len: u32,
    pub(crate) delay_us: u64,
    /// Each packet takes up to so much longer: they overtake each other.
    pub(crate) jitter_us: u64,
    /// Bytes a second; 0: no limit.
    pub(crate) rate: u64,
    /// Packets that wait for their turn.
    pub(crate) queue: usize,
    /// Packets that find so many waiting are marked, if they allow it.
    pub(crate) mark_at: Option<usize>,
    /// Nothing gets through from the one time to the other, in milliseconds.
    pub(crate) outages: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Flying {
    at: Duration,
    order: u64,
    segment: Segment,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Flying {}

impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(super) struct Link {
    setup: LinkSetup,
    rng: StdRng,
    flying: BinaryHeap<Reverse<Flying>>,
    order: u64,
    /// When each packet that waits has left.
    leaving: VecDeque<Duration>,
    /// Packets that are still to be lost in a row.
    burst: u32,
    burst_ends: Duration,
    lossless: bool,
}

impl Link {
    pub(super) fn new(setup: LinkSetup, lossless: bool, seeds: &mut StdRng) -> Self {
        Self {
            setup,
            rng: StdRng::seed_from_u64(seeds.random()),
            flying: BinaryHeap::new(),
            order: 0,
            leaving: VecDeque::new(),
            burst: 0,
            burst_ends: Duration::ZERO,
            lossless,
        }
    }

    fn happens(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.rng.random_range(0..1000) < of_a_thousand
    }

    fn settle(&mut self, now: Duration) {
        while self.leaving.front().is_some_and(|at| *at <= now) {
            self.leaving.pop_front();
        }
    }

    pub(super) fn is_full(&mut self, now: Duration) -> bool {
        self.settle(now);
        self.leaving.len() >= self.setup.queue
    }

    /// When the first packet that waits will have left.
    pub(super) fn room_at(&self) -> Duration {
        self.leaving.front().copied().unwrap_or_default()
    }

    pub(super) fn send(&mut self, now: Duration, mut segment: Segment) {
        self.settle(now);
        let waiting = self.leaving.len();
        if waiting >= self.setup.queue && !self.lossless {
            return;
        }
        if self.setup.mark_at.is_some_and(|at| waiting >= at) && segment.ecn == ECT0 {
            segment.ecn = CE;
        }
        let mut left = self.leaving.back().copied().unwrap_or(now).max(now);
        let bytes = (segment.payload.len() + HEADERS) as u64;
        let nanos = (bytes * 1_000_000_000).checked_div(self.setup.rate);
        left += Duration::from_nanos(nanos.unwrap_or(0));
        if left > now {
            self.leaving.push_back(left);
        }
        let bursts = self.setup.bursts;
        if now > self.burst_ends {
            self.burst = 0;
        }
        if self.burst == 0 && self.happens(bursts) {
            self.burst = self.setup.burst_len;
            self.burst_ends = now + LONGEST_BURST;
        }
        let (loss, corrupted) = (self.setup.loss, self.setup.corrupted);
        let millis = left.as_millis() as u64;
        let out = &self.setup.outages;
        let is_out = out.iter().any(|(from, to)| (*from..*to).contains(&millis));
        if self.burst > 0 || is_out || self.happens(loss) || self.happens(corrupted) {
            self.burst = self.burst.saturating_sub(1);
            return;
        }
        let duplicates = self.setup.duplicates;
        let copies = if self.happens(duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            let jitter = match self.setup.jitter_us {
                0 => 0,
                jitter => self.rng.random_range(0..jitter),
            };
            let at = left + Duration::from_micros(self.setup.delay_us + jitter);
            self.order += 1;
            self.flying.push(Reverse(Flying {
                at,
                order: self.order,
                segment: segment.clone(),
            }));
        }
    }

    pub(super) fn next_arrival(&self) -> Option<Duration> {
        self.flying.peek().map(|Reverse(flying)| flying.at)
    }

    pub(super) fn arrivals(&mut self, now: Duration) -> Vec<Segment> {
        let mut arrivals = Vec::new();
        while self.next_arrival().is_some_and(|at| at <= now) {
            arrivals.extend(self.flying.pop().map(|Reverse(flying)| flying.segment));
        }
        arrivals
    }
}

/// Joins segments that follow each other and differ in nothing else.
pub(super) fn coalesce(segments: Vec<Segment>) -> Vec<Segment> {
    let mut joined: Vec<Segment> = Vec::new();
    for segment in segments {
        if let Some(last) = joined.last_mut() {
            let follows = last.seq.wrapping_add(last.payload.len() as u32) == segment.seq;
            let plain = last.flags == ACK && segment.flags & !crate::wire::PSH == ACK;
            let alike = last.ack == segment.ack
                && last.window == segment.window
                && last.stamps == segment.stamps
                && last.ecn == segment.ecn
                && last.sack.is_empty()
                && segment.sack.is_empty();
            let fits = last.payload.len() + segment.payload.len() < 65_000;
            if follows
                && plain
                && alike
                && fits
                && !segment.payload.is_empty()
                && !last.payload.is_empty()
            {
                last.payload.extend(segment.payload);
                last.flags |= segment.flags;
                continue;
            }
        }
        joined.push(segment);
    }
    joined
}
