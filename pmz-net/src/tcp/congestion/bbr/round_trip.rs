//! The shortest round trip, and the look at the path without its queue that keeps it true.

use std::time::{Duration, Instant};

use super::Ack;

/// How long the shortest round trip holds.
const WINDOW: Duration = Duration::from_secs(10);
/// How long so little stays in flight that a queue would drain, at least.
const PROBE: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShortestRtt {
    rtt: Option<Duration>,
    seen: Option<Instant>,
}

impl ShortestRtt {
    pub(super) fn get(&self) -> Option<Duration> {
        self.rtt
    }

    /// True if what was known has expired: the path has to be looked at. A sample that may have been
    /// acknowledged late does not replace what expired.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        rtt: Option<Duration>,
        maybe_delayed: bool,
    ) -> bool {
        let seen = *self.seen.get_or_insert(now);
        let expired = now.saturating_duration_since(seen) > WINDOW;
        if let Some(rtt) = rtt {
            let shorter = self.rtt.is_none_or(|shortest| rtt < shortest);
            if shorter || (expired && !maybe_delayed) {
                self.rtt = Some(rtt);
                self.seen = Some(now);
            }
        }
        expired
    }

    /// What is known is so still.
    pub(super) fn confirm(&mut self, now: Instant) {
        self.seen = Some(now);
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProbeRtt {
    /// When it may end, once so little is in flight.
    until: Option<Instant>,
    /// A whole round trip has passed since then.
    round_over: bool,
    /// Bytes delivered when it began, and at the end of what was sent in it.
    limited: Option<(u64, u64)>,
}

impl ProbeRtt {
    pub(super) fn begin(&mut self, delivered: u64) {
        *self = Self {
            until: None,
            round_over: false,
            limited: Some((delivered, delivered)),
        };
    }

    /// True if a round begins with this acknowledgement: the one that has to pass.
    pub(super) fn on_ack(&mut self, ack: &Ack, window: u64, round_began: bool) -> bool {
        if let Some((_, end)) = &mut self.limited {
            *end = ack.delivered.saturating_add(ack.in_flight);
        }
        match self.until {
            None if ack.in_flight <= window => {
                self.until = ack.now.checked_add(PROBE);
                true
            }
            None => false,
            Some(_) => {
                self.round_over |= round_began;
                false
            }
        }
    }

    pub(super) fn is_done(&self, now: Instant) -> bool {
        self.round_over && self.until.is_some_and(|until| now > until)
    }

    /// Whether a packet was sent while so little was allowed: at [`super::RateSample::prior_delivered`]. Its rate
    /// says nothing of the path.
    pub(super) fn limited(&self, prior_delivered: u64) -> bool {
        self.limited
            .is_some_and(|(begin, end)| (begin..=end).contains(&prior_delivered))
    }
}
