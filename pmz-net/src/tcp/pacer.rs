//! When the next data may leave.

use std::time::{Duration, Instant};

use super::congestion::BURST_TIME;

/// Time that passed in vain because the thread was late may be made up for.
const CREDIT: Duration = Duration::from_millis(1);
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// When what was sent so far has been paid for.
    next: Option<Instant>,
    /// A burst has gone out: until it is paid for, nothing goes. Else a fast flow would wake up for each of
    /// its super-packets.
    resting: bool,
}

impl Pacer {
    /// When data may go out, if not now.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| self.resting && *next > now)
    }

    /// Bytes went out.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64, rate: Option<u64>) {
        let Some(rate) = rate else {
            *self = Self::default();
            return;
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        // No wait is longer than a second, however low the rate.
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            .min(Duration::from_secs(1));
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let from = self.next.map_or(now, |next| next.max(earliest));
        let next = from + cost;
        self.next = Some(next);
        self.resting = next >= now + BURST_TIME;
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
    fn a_fast_flow_sends_several_super_packets_at_once_and_then_rests() {
        let now = Instant::now();
        let mut pacer = Pacer::default();
        let mut sent = 0;
        while pacer.blocked_until(now).is_none() {
            pacer.sent(now, 64_000, Some(2_500_000_000));
            sent += 1;
        }
        assert_eq!(sent, 20, "half a millisecond of 2.5 GB/s");
    }

    #[test]
    fn lateness_is_made_up_for_and_idleness_is_not() {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.sent(start, 1000, Some(1_000_000));
        // Due after 1 ms, looked at after 1.5.
        pacer.sent(start + MS * 3 / 2, 1000, Some(1_000_000));
        assert_eq!(pacer.blocked_until(start), Some(start + 2 * MS));
        // A millisecond's worth at once, and no more.
        let mut sent = 0;
        while pacer.blocked_until(start + 100 * MS).is_none() {
            pacer.sent(start + 100 * MS, 250, Some(1_000_000));
            sent += 250;
        }
        assert_eq!(sent, 1500, "credit and a burst");
    }
}
