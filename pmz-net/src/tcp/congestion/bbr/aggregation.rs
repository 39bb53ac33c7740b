//! Acknowledgements that come in batches: how much more than the path's rate arrives at once, for which the
//! window needs room, or the sender would stand still between batches.

use std::time::{Duration, Instant};

use super::bytes_in;

/// The largest excess is kept for at least so many rounds, and at most twice as many.
const WINDOW_ROUNDS: u32 = 5;
/// No more than the path brings in so long.
const MAX_WINDOW: Duration = Duration::from_millis(100);
/// Sampling starts anew after so many bytes, as an old excess says little of what is going on.
const MAX_EPOCH: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Aggregation {
    /// Since when arrivals are counted against the path's rate.
    since: Option<Instant>,
    acked: u64,
    /// The largest excess of this window of rounds, and of the one before.
    largest: [u64; 2],
    rounds: u32,
}

impl Aggregation {
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        newly_delivered: u64,
        bandwidth: u64,
        window: u64,
        round_began: bool,
    ) {
        if round_began {
            self.rounds += 1;
            if self.rounds >= WINDOW_ROUNDS {
                self.rounds = 0;
                self.largest = [0, self.largest[0]];
            }
        }
        let since = *self.since.get_or_insert(now);
        let mut expected = bytes_in(bandwidth, now.saturating_duration_since(since));
        if self.acked <= expected || self.acked.saturating_add(newly_delivered) >= MAX_EPOCH {
            self.restart(now);
            expected = 0;
        }
        self.acked = self.acked.saturating_add(newly_delivered);
        let excess = self.acked.saturating_sub(expected).min(window);
        self.largest[0] = self.largest[0].max(excess);
    }

    pub(super) fn restart(&mut self, now: Instant) {
        self.since = Some(now);
        self.acked = 0;
    }

    /// The room that this needs in the window.
    pub(super) fn window(&self, bandwidth: u64) -> u64 {
        self.largest[0]
            .max(self.largest[1])
            .min(bytes_in(bandwidth, MAX_WINDOW))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000_000;

    #[test]
    fn a_batch_makes_room_for_itself_and_is_forgotten_after_ten_rounds() {
        let mut aggregation = Aggregation::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            now += Duration::from_millis(20);
            aggregation.on_ack(now, 20_000, RATE, 1_000_000, false);
        }
        assert_eq!(aggregation.window(RATE), 20_000);
        for round in 1..=10 {
            assert_eq!(aggregation.window(RATE), 20_000, "round {round}");
            for ack in 0..20 {
                now += Duration::from_millis(1);
                aggregation.on_ack(now, 500, RATE, 1_000_000, ack == 0);
            }
        }
        assert!(
            aggregation.window(RATE) <= 2_000,
            "{}",
            aggregation.window(RATE)
        );
    }

    #[test]
    fn the_room_is_bounded_by_the_window_and_by_a_tenth_of_a_second() {
        let mut aggregation = Aggregation::default();
        aggregation.on_ack(Instant::now(), u64::MAX, RATE, 50_000, false);
        assert_eq!(aggregation.window(RATE), 50_000);
        aggregation.on_ack(Instant::now(), u64::MAX, RATE, u64::MAX, false);
        assert_eq!(aggregation.window(RATE), RATE / 10);
    }
}
