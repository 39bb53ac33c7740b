//! CoDel (RFC 8289): when the head of a queue has stood too long for too long.

use std::time::{Duration, Instant};

/// How long an item may stand in a queue that is only there to smooth bursts.
pub(super) const TARGET: Duration = Duration::from_millis(5);
/// How long the sojourn must have been above the target: about a long round trip, so that a sender has had the time
/// to react.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);

/// The control law's state for one flow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codel {
    /// When the sojourn will have been above the target for an interval.
    first_above: Option<Instant>,
    dropping: bool,
    /// When to drop next, while dropping.
    drop_next: Option<Instant>,
    /// Drops since the dropping began: they come the faster the more there are.
    count: u32,
    /// `count` when the dropping last began.
    last_count: u32,
}

impl Codel {
    /// Whether the item at the head, which came in at `enqueued`, is to be dropped or marked. `short` says that there is
    /// so little queued that it is no standing queue.
    ///
    /// After true the caller may ask for the next item at once: the law can want several in one go.
    pub(super) fn should_drop(&mut self, now: Instant, enqueued: Instant, short: bool) -> bool {
        let above = self.above_for_an_interval(now, enqueued, short);
        if self.dropping {
            if !above {
                self.dropping = false;
                return false;
            }
            let Some(due) = self.drop_next.filter(|due| now >= *due) else {
                return false;
            };
            self.count = self.count.saturating_add(1);
            self.drop_next = Some(due + self.spacing());
            return true;
        }
        if !above {
            return false;
        }
        self.dropping = true;
        // The rate that was right shortly ago is a better start than from the beginning.
        let recently = self
            .drop_next
            .is_some_and(|last| now.saturating_duration_since(last) < INTERVAL * 16);
        let delta = self.count.saturating_sub(self.last_count);
        self.count = if recently && delta > 1 { delta } else { 1 };
        self.last_count = self.count;
        self.drop_next = Some(now + self.spacing());
        true
    }

    fn above_for_an_interval(&mut self, now: Instant, enqueued: Instant, short: bool) -> bool {
        if short || now.saturating_duration_since(enqueued) < TARGET {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            None => {
                self.first_above = Some(now + INTERVAL);
                false
            }
            Some(due) => now >= due,
        }
    }

    /// The flow has nothing queued any more.
    pub(super) fn emptied(&mut self) {
        self.first_above = None;
        self.dropping = false;
    }

    fn spacing(&self) -> Duration {
        INTERVAL.div_f64(f64::from(self.count).sqrt())
    }
}
