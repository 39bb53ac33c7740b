//! What limits a link's rate: a policer, and a line that packets queue for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::spec::{LinkSpec, Policer, QueueLimit};

/// Both, in this order.
#[derive(Debug, Default)]
pub(super) struct Bottleneck {
    /// When the policer's bucket is full again.
    full_at: Option<Instant>,
    /// When the last packet that was let in has been sent at the link's rate.
    busy_until: Option<Instant>,
    /// When those that wait get their turn.
    turns: VecDeque<Instant>,
}

/// A packet's way through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passage {
    /// How long it waits for its turn.
    pub(super) wait: Duration,
    /// When its last bit has been sent.
    pub(super) sent: Instant,
}

impl Bottleneck {
    /// Lets a packet in; none: it is dropped.
    pub(super) fn pass(&mut self, spec: &LinkSpec, now: Instant, len: usize) -> Option<Passage> {
        if let Some(policer) = spec.police
            && !self.conforms(policer, now, len)
        {
            return None;
        }
        let Some(rate) = spec.rate else {
            return Some(Passage {
                wait: Duration::ZERO,
                sent: now,
            });
        };
        while self.turns.front().is_some_and(|turn| *turn <= now) {
            self.turns.pop_front();
        }
        let turn = self.busy_until.map_or(now, |busy| busy.max(now));
        let wait = turn - now;
        let full = match spec.queue {
            QueueLimit::Time(longest) => wait > longest,
            QueueLimit::Packets(most) => !wait.is_zero() && self.turns.len() >= most as usize,
        };
        if full {
            return None;
        }
        if !wait.is_zero() {
            self.turns.push_back(turn);
        }
        let sent = turn + time_for(len, rate);
        self.busy_until = Some(sent);
        Some(Passage { wait, sent })
    }

    /// The token bucket, as the time at which it is full again (the virtual scheduling algorithm of ITU-T
    /// I.371).
    fn conforms(&mut self, policer: Policer, now: Instant, len: usize) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + time_for(len, policer.rate);
        let burst = usize::try_from(policer.burst).unwrap_or(usize::MAX);
        let conforms = full_at - now <= time_for(burst, policer.rate);
        if conforms {
            self.full_at = Some(full_at);
        }
        conforms
    }
}

/// How long so many bytes take at that many bits per second.
fn time_for(bytes: usize, rate: u64) -> Duration {
    let nanoseconds = (bytes as u64).saturating_mul(8_000_000_000) / rate.max(1);
    Duration::from_nanos(nanoseconds)
}
