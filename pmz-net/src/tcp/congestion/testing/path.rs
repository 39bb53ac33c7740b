//! The bottleneck that all flows of a simulation share.

use std::time::Duration;

/// Random numbers that are the same in every run (splitmix64).
#[derive(Clone, Debug)]
pub(in crate::tcp::congestion) struct Chance(pub(in crate::tcp::congestion) u64);

impl Chance {
    pub(in crate::tcp::congestion) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(in crate::tcp::congestion) fn happens(&mut self, probability: f64) -> bool {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64 <= probability && probability > 0.0
    }
}

/// A token bucket that drops what exceeds it, and delays nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::tcp::congestion) struct Policer {
    /// Bytes per second.
    pub(in crate::tcp::congestion) rate: u64,
    pub(in crate::tcp::congestion) bucket: u64,
}

/// What the path is like; may be changed while a simulation runs.
#[derive(Clone, Debug)]
pub(in crate::tcp::congestion) struct Path {
    /// Bytes per second.
    pub(in crate::tcp::congestion) rate: u64,
    /// Round trip without a queue.
    pub(in crate::tcp::congestion) round_trip: Duration,
    /// Bytes that the queue holds.
    pub(in crate::tcp::congestion) queue: u64,
    /// Probability that a packet is lost.
    pub(in crate::tcp::congestion) loss: f64,
    pub(in crate::tcp::congestion) policer: Option<Policer>,
    /// Packets that find more bytes than this in the queue are marked instead of dropped.
    pub(in crate::tcp::congestion) mark_above: Option<u64>,
    /// The receiver's acknowledgements come in batches this far apart.
    pub(in crate::tcp::congestion) batch: Option<Duration>,
}

impl Path {
    /// `megabits` per second, with a queue that takes `queue` to drain.
    pub(in crate::tcp::congestion) fn new(
        megabits: u64,
        round_trip: Duration,
        queue: Duration,
    ) -> Self {
        let rate = megabits * 125_000;
        Self {
            rate,
            round_trip,
            queue: (rate as f64 * queue.as_secs_f64()) as u64,
            loss: 0.0,
            policer: None,
            mark_above: None,
            batch: None,
        }
    }

    /// Bytes in flight that fill the path and no queue.
    pub(in crate::tcp::congestion) fn product(&self) -> u64 {
        (self.rate as f64 * self.round_trip.as_secs_f64()) as u64
    }
}

#[derive(Debug)]
pub(super) struct Bottleneck {
    pub(super) path: Path,
    chance: Chance,
    /// When the last packet in the queue will have left, nanoseconds.
    free_at: u64,
    tokens: f64,
    tokens_at: u64,
    pub(super) overflows: u64,
    /// Of the queue as packets find it.
    pub(super) largest_queue: u64,
    queue_sum: u128,
    queue_samples: u64,
}

impl Bottleneck {
    pub(super) fn new(path: Path, seed: u64) -> Self {
        let tokens = path.policer.map_or(0.0, |policer| policer.bucket as f64);
        Self {
            path,
            chance: Chance(seed),
            free_at: 0,
            tokens,
            tokens_at: 0,
            overflows: 0,
            largest_queue: 0,
            queue_sum: 0,
            queue_samples: 0,
        }
    }

    /// When the acknowledgement of a packet sent now comes back, and whether it is marked; none if it is lost.
    pub(super) fn pass(&mut self, now: u64, bytes: u64) -> Option<(u64, bool)> {
        if self.chance.happens(self.path.loss) {
            return None;
        }
        if let Some(policer) = self.path.policer {
            let gained = (now - self.tokens_at) as f64 * policer.rate as f64 / 1e9;
            self.tokens = (self.tokens + gained).min(policer.bucket as f64);
            self.tokens_at = now;
            if self.tokens < bytes as f64 {
                return None;
            }
            self.tokens -= bytes as f64;
        }
        let backlog =
            (self.free_at.saturating_sub(now) as f64 * self.path.rate as f64 / 1e9) as u64;
        self.largest_queue = self.largest_queue.max(backlog);
        self.queue_sum += u128::from(backlog);
        self.queue_samples += 1;
        if backlog + bytes > self.path.queue.max(bytes) {
            self.overflows += 1;
            return None;
        }
        let marked = self.path.mark_above.is_some_and(|limit| backlog > limit);
        self.free_at = self.free_at.max(now) + (bytes as f64 * 1e9 / self.path.rate as f64) as u64;
        let mut back = self.free_at + self.path.round_trip.as_nanos() as u64;
        if let Some(batch) = self.path.batch {
            back = back.next_multiple_of(batch.as_nanos() as u64);
        }
        Some((back, marked))
    }

    pub(super) fn average_queue(&self) -> u64 {
        (self.queue_sum / u128::from(self.queue_samples.max(1))) as u64
    }

    pub(super) fn forget(&mut self) {
        self.overflows = 0;
        self.largest_queue = 0;
        self.queue_sum = 0;
        self.queue_samples = 0;
    }
}
