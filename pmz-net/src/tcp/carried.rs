//! What may be in flight on a carrier that loses nothing.
//!
//! Such a carrier, a stream through the API server, has congestion control of its own, and holds its sender up where it
//! is full. But the buffers of its sockets grow to tens of megabytes: whatever we send lies there, and all that comes
//! after it waits, other flows' acknowledgements first of all. So a flow has in flight what is delivered in the shortest round
//! trip and a little more, and leaves the buffers behind that empty.

use std::time::Duration;

use super::congestion::Ack;

/// The queue that a flow may keep before the slowest part of its way: long enough for processes that are woken late.
/// On two busy cores a download lost 14 % with 25 ms, and 5 % with 50, of what it had without a bound.
const QUEUE: Duration = Duration::from_millis(50);
/// In flight in any case, in bytes: delay that others make must not starve us.
const FLOOR: u64 = 256 << 10;
/// The rate is the highest of so many rounds.
const ROUNDS: usize = 4;

/// The window of a flow on such a carrier.
#[derive(Debug)]
pub(super) struct CarriedWindow {
    /// The highest rate of each of the last rounds, in bytes a second; the first is of the one that runs.
    rates: [u64; ROUNDS],
    /// The round that runs ends when so much is delivered.
    round_ends: u64,
    window: u64,
}

impl CarriedWindow {
    pub(super) fn new() -> Self {
        Self {
            rates: [0; ROUNDS],
            round_ends: 0,
            window: FLOOR,
        }
    }

    /// What may be in flight, in bytes.
    pub(super) fn window(&self) -> u64 {
        self.window
    }

    /// An acknowledgement; `shortest` is the shortest round trip of late.
    pub(super) fn on_ack(&mut self, ack: &Ack, shortest: Option<Duration>) {
        let (Some(sample), Some(shortest)) = (ack.rate, shortest) else {
            return;
        };
        if sample.prior_delivered >= self.round_ends {
            self.round_ends = ack.delivered;
            // What the application held back tells nothing of the way: the rounds before still do.
            if !sample.app_limited {
                self.rates.rotate_right(1);
                self.rates[0] = 0;
            }
        }
        let micros = sample.interval.as_micros().max(1) as u64;
        let rate = sample.delivered.saturating_mul(1_000_000) / micros;
        self.rates[0] = self.rates[0].max(rate);
        let highest = self.rates.iter().copied().max().unwrap_or(0);
        let span = (shortest + QUEUE).as_micros() as u64;
        self.window = (highest.saturating_mul(span) / 1_000_000).max(FLOOR);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::congestion::{Phase, RateSample};
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    /// A round in which a window is delivered at no more than `capacity` bytes a second; the round trip that it took.
    fn round(
        window: &mut CarriedWindow,
        delivered: &mut u64,
        capacity: u64,
        limited: bool,
    ) -> Duration {
        let size = window.window();
        let took = RTT.max(Duration::from_micros(size * 1_000_000 / capacity));
        let prior = *delivered;
        *delivered += size;
        let ack = Ack {
            now: Instant::now(),
            phase: Phase::Open,
            newly_delivered: size,
            newly_lost: 0,
            delivered: *delivered,
            lost: 0,
            prior_in_flight: size,
            in_flight: 0,
            rtt: Some(took),
            smoothed_rtt: Some(took),
            rate: Some(RateSample {
                delivered: size,
                interval: took,
                prior_delivered: prior,
                lost: 0,
                sent_in_flight: size,
                app_limited: limited,
            }),
            congestion_marked: false,
            window_limited: true,
        };
        window.on_ack(&ack, Some(RTT));
        took
    }

    #[test]
    fn a_flow_takes_the_carrier_s_rate_and_keeps_a_short_queue() {
        for capacity in [25_000_000, 125_000_000, 2_000_000_000] {
            let (mut window, mut delivered) = (CarriedWindow::new(), 0);
            let took = (0..20)
                .map(|_| round(&mut window, &mut delivered, capacity, false))
                .last()
                .unwrap();
            assert!(took <= RTT + QUEUE, "{capacity}: {took:?}");
            assert!(took >= RTT + QUEUE / 2, "{capacity}: {took:?}");
        }
    }

    #[test]
    fn a_slow_carrier_leaves_a_flow_its_floor() {
        let (mut window, mut delivered) = (CarriedWindow::new(), 0);
        for _ in 0..20 {
            round(&mut window, &mut delivered, 100_000, false);
        }
        assert_eq!(window.window(), FLOOR);
    }

    #[test]
    fn a_carrier_that_gets_slower_is_followed_within_a_few_rounds() {
        let (mut window, mut delivered) = (CarriedWindow::new(), 0);
        for _ in 0..20 {
            round(&mut window, &mut delivered, 1_000_000_000, false);
        }
        for _ in 0..2 * ROUNDS {
            round(&mut window, &mut delivered, 50_000_000, false);
        }
        assert!(window.window() <= 50_000_000 * 60 / 1000, "{window:?}");
    }

    #[test]
    fn rounds_that_the_application_held_back_take_nothing_away() {
        let (mut window, mut delivered) = (CarriedWindow::new(), 0);
        for _ in 0..20 {
            round(&mut window, &mut delivered, 1_000_000_000, false);
        }
        let before = window.window();
        for _ in 0..20 {
            round(&mut window, &mut delivered, 1_000_000, true);
        }
        assert_eq!(window.window(), before);
    }
}
