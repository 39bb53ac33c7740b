//! Finding lost segments by the time at which they were sent (RACK, RFC 8985).

use std::time::{Duration, Instant};

use super::scoreboard::{Scoreboard, Sent, State};

/// Segments that arrived out of order until one before them counts as lost at once, as long as no
/// reordering was seen (RFC 8985, 6.2 step 4).
const DUPLICATE_THRESHOLD: usize = 3;
/// Recoveries until a reordering window that grew shrinks again (RFC 8985, 6.2 step 4).
const PERSISTENCE: u32 = 16;

#[derive(Debug)]
pub(super) struct Rack {
    /// Of all segments that arrived, the one that was sent last: when, its end, and its round trip.
    sent_at: Option<Instant>,
    end: u64,
    rtt: Duration,
    /// The highest end of any that arrived.
    highest: u64,
    reordering: bool,
    /// The reordering window in quarters of the shortest round trip.
    quarters: u32,
    /// Recoveries for which that stays.
    persist: u32,
    /// A duplicate widened the window in the round trip that ends at this number.
    widened_until: Option<u64>,
}

impl Rack {
    pub(super) fn new() -> Self {
        Self {
            sent_at: None,
            end: 0,
            rtt: Duration::ZERO,
            highest: 0,
            reordering: false,
            quarters: 1,
            persist: 0,
            widened_until: None,
        }
    }

    /// A segment has arrived. `ambiguous`: the acknowledgement may be that of an earlier sending.
    pub(super) fn arrived(&mut self, now: Instant, record: &Sent, ambiguous: bool) {
        if !record.again && record.end < self.highest {
            self.reordering = true;
        }
        self.highest = self.highest.max(record.end);
        if ambiguous {
            return;
        }
        let later = self
            .sent_at
            .is_none_or(|at| record.sent_after(at, self.end));
        if later {
            self.sent_at = Some(record.at);
            self.end = record.end;
            self.rtt = now.saturating_duration_since(record.at);
        }
    }

    /// A duplicate arrived at the other end: something was sent again for nothing. At most once a round
    /// trip, which `next` tells apart, the window grows.
    pub(super) fn duplicate(&mut self, acknowledged: u64, next: u64) {
        if self.widened_until.is_some_and(|until| acknowledged < until) {
            return;
        }
        self.widened_until = Some(next);
        self.quarters = (self.quarters + 1).min(64);
        self.persist = PERSISTENCE;
    }

    /// What was sent again had arrived the first time: when it was sent last says nothing.
    pub(super) fn undo(&mut self) {
        self.sent_at = None;
    }

    /// A recovery is over.
    pub(super) fn recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.quarters = 1;
        }
    }

    fn window(
        &self,
        board: &Scoreboard,
        recovering: bool,
        shortest: Duration,
        smoothed: Duration,
    ) -> Duration {
        if !self.reordering && (recovering || board.arrived_segments() >= DUPLICATE_THRESHOLD) {
            return Duration::ZERO;
        }
        (shortest / 4 * self.quarters).min(smoothed)
    }

    /// Marks as lost what was sent long enough before something that arrived: bytes, and when to look again.
    pub(super) fn detect(
        &self,
        now: Instant,
        board: &mut Scoreboard,
        recovering: bool,
        shortest: Duration,
        smoothed: Duration,
    ) -> (u64, Option<Instant>) {
        let Some(sent_at) = self.sent_at else {
            return (0, None);
        };
        let patience = self.rtt + self.window(board, recovering, shortest, smoothed);
        let mut again = None;
        let bytes = board.lose_oldest(|record| {
            if record.sent_after(sent_at, self.end) {
                return false;
            }
            let due = record.at + patience;
            if due > now {
                // Those behind it were sent later.
                again = Some(due);
            }
            due <= now
        });
        (bytes, again)
    }

    /// As [`Rack::detect`], of the first segment alone.
    pub(super) fn detect_first(
        &self,
        now: Instant,
        board: &mut Scoreboard,
        recovering: bool,
        shortest: Duration,
        smoothed: Duration,
    ) -> (u64, Option<Instant>) {
        let (Some(sent_at), Some(first)) = (self.sent_at, board.first()) else {
            return (0, None);
        };
        if first.state != State::InFlight || first.sent_after(sent_at, self.end) {
            return (0, None);
        }
        let due = first.at + self.rtt + self.window(board, recovering, shortest, smoothed);
        if due > now {
            return (0, Some(due));
        }
        (board.lose_first(), None)
    }

    /// Whether a segment counts as lost when the retransmission timer expires: all that were sent longer ago
    /// than a round trip and the window (RFC 8985, 6.3).
    pub(super) fn is_overdue(&self, now: Instant, record: &Sent, shortest: Duration) -> bool {
        record.at + self.rtt + shortest / 4 * self.quarters <= now
    }
}
