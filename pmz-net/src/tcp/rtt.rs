//! Round trips: their smoothed time, the timeout that follows from it (RFC 6298), and the shortest of late.

use std::time::{Duration, Instant};

/// Before any round trip was measured (RFC 6298, 2.1).
const INITIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// As Linux has it; the RFC's second would make each loss of a last segment expensive.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// RFC 6298, 2.5.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The shortest round trip is that of one of the last two spans of this length.
const MIN_SPAN: Duration = Duration::from_secs(150);

#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    smoothed: Option<Duration>,
    variation: Duration,
    shortest: Shortest,
    /// Doublings of the timeout since the last acknowledgement of something new.
    backoff: u32,
}

#[derive(Debug, Default)]
struct Shortest {
    now: Option<Duration>,
    before: Option<Duration>,
    since: Option<Instant>,
}

impl RoundTrips {
    /// A round trip was measured of a segment that was sent once.
    pub(super) fn sample(&mut self, now: Instant, rtt: Duration) {
        self.backoff = 0;
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                let deviation = smoothed.abs_diff(rtt);
                self.variation = (3 * self.variation + deviation) / 4;
                self.smoothed = Some((7 * smoothed + rtt) / 8);
            }
        }
        let shortest = &mut self.shortest;
        if shortest.since.is_none_or(|since| now >= since + MIN_SPAN) {
            shortest.before = shortest.now.take();
            shortest.since = Some(now);
        }
        shortest.now = Some(shortest.now.map_or(rtt, |least| least.min(rtt)));
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The shortest round trip of the last minutes.
    pub(super) fn shortest(&self) -> Option<Duration> {
        let Shortest { now, before, .. } = self.shortest;
        now.into_iter().chain(before).min()
    }

    /// How long to wait for an acknowledgement, with the doublings of [`RoundTrips::back_off`].
    pub(super) fn timeout(&self) -> Duration {
        let timeout = match self.smoothed {
            // The floor is for the variation: a long path that never varies still needs room for it.
            Some(smoothed) => smoothed + (4 * self.variation).max(MIN_TIMEOUT),
            None => INITIAL_TIMEOUT,
        };
        timeout
            .saturating_mul(1 << self.backoff.min(16))
            .min(MAX_TIMEOUT)
    }

    /// The timeout passed in vain (RFC 6298, 5.5).
    pub(super) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(16);
    }

    /// The path delivers again.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rfc_6298_2_the_first_sample_and_the_next() {
        let now = Instant::now();
        let mut trips = RoundTrips::default();
        assert_eq!(trips.timeout(), INITIAL_TIMEOUT);
        trips.sample(now, 800 * MS);
        assert_eq!(
            (trips.smoothed(), trips.timeout()),
            (Some(800 * MS), 2400 * MS)
        );
        trips.sample(now, 1600 * MS);
        // The variation is (3 * 400 + 800) / 4 = 500.
        assert_eq!(
            (trips.smoothed(), trips.timeout()),
            (Some(900 * MS), 2900 * MS)
        );
    }

    #[test]
    fn rfc_6298_5_5_the_timeout_doubles_to_a_bound_and_a_sample_ends_that() {
        let mut trips = RoundTrips::default();
        let now = Instant::now();
        trips.sample(now, Duration::from_micros(100));
        let plain = trips.timeout();
        assert!(plain > MIN_TIMEOUT && plain < MIN_TIMEOUT + MS);
        trips.back_off();
        assert_eq!(trips.timeout(), 2 * plain);
        for _ in 0..100 {
            trips.back_off();
        }
        assert_eq!(trips.timeout(), MAX_TIMEOUT);
        trips.sample(now, Duration::from_micros(100));
        assert_eq!(trips.timeout(), plain);
    }

    #[test]
    fn the_shortest_round_trip_is_forgotten_after_minutes() {
        let mut trips = RoundTrips::default();
        let start = Instant::now();
        trips.sample(start, 10 * MS);
        trips.sample(start + MIN_SPAN, 30 * MS);
        assert_eq!(trips.shortest(), Some(10 * MS));
        trips.sample(start + 2 * MIN_SPAN, 30 * MS);
        assert_eq!(trips.shortest(), Some(30 * MS));
    }
}
