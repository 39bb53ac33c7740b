//! When the next data may leave.

use std::time::{Duration, Instant};

/// A burst lasts so long at the pacing rate: what the kernel does, too. It makes super-packets of fast flows
/// and stays under what the queues of routers take.
const BURST: Duration = Duration::from_millis(1);
/// A burst is at least so many segments.
const MIN_BURST_SEGMENTS: u64 = 2;
/// Time that passed in vain because the thread was late may be made up for.
const CREDIT: Duration = Duration::from_millis(1);
/// The largest burst: more has no use, the cost of a burst does not grow with its size.
const MAX_BURST: u64 = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// When what was sent so far has been paid for.
    next: Option<Instant>,
}

impl Pacer {
    /// When data may go out, if not now.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| *next > now)
    }

    /// How many bytes may go out at once, at this rate (bytes per second).
    pub(super) fn burst(rate: Option<u64>, segment: u64) -> u64 {
        let Some(rate) = rate else { return MAX_BURST };
        let bytes = u128::from(rate) * BURST.as_nanos() / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(MAX_BURST).clamp(
            MIN_BURST_SEGMENTS * segment,
            MAX_BURST.max(MIN_BURST_SEGMENTS * segment),
        )
    }

    /// Bytes went out.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64, rate: Option<u64>) {
        let Some(rate) = rate else {
            self.next = None;
            return;
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        // No wait is longer than a second, however low the rate.
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            .min(Duration::from_secs(1));
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let from = self.next.map_or(now, |next| next.max(earliest));
        self.next = Some(from + cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn data_leaves_at_the_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        let (mut now, mut bytes) = (start, 0);
        while now < start + 1000 * MS {
            pacer.sent(now, 1000, Some(1_000_000));
            bytes += 1000;
            now = pacer.blocked_until(now).unwrap();
        }
        assert_eq!(bytes, 1_000_000);
    }

    #[test]
    fn lateness_is_made_up_for_and_idleness_is_not() {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.sent(start, 1000, Some(1_000_000));
        // Due after 1 ms, looked at after 1.5.
        pacer.sent(start + MS * 3 / 2, 1000, Some(1_000_000));
        assert_eq!(pacer.blocked_until(start), Some(start + 2 * MS));
        pacer.sent(start + 100 * MS, 1000, Some(1_000_000));
        assert_eq!(
            pacer.blocked_until(start),
            Some(start + 100 * MS),
            "one millisecond of credit"
        );
        assert_eq!(pacer.blocked_until(start + 100 * MS), None);
    }

    #[test]
    fn a_burst_is_a_millisecond_and_at_least_two_segments() {
        assert_eq!(Pacer::burst(Some(25_000_000), 1400), 25_000);
        assert_eq!(Pacer::burst(Some(1000), 1400), 2800);
        assert_eq!(Pacer::burst(Some(u64::MAX), 1400), MAX_BURST);
        assert_eq!(Pacer::burst(None, 1400), MAX_BURST);
    }
}
