//! When the next data may leave.

use std::time::{Duration, Instant};

use super::congestion::BURST_TIME;

/// Time that passed in vain because the thread was late is made up for, by sending at double the rate.
const CREDIT: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// When what was sent so far has been paid for.
    paid: Option<Instant>,
    /// Not before this time, even if there is time to make up for.
    earliest: Option<Instant>,
    /// A burst has gone out: until it is paid for, nothing goes. Else a fast flow would wake up for each of
    /// its super-packets.
    resting: bool,
}

impl Pacer {
    /// When data may go out, if not now.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        self.paid
            .max(self.earliest)
            .filter(|next| self.resting && *next > now)
    }

    /// Bytes went out, at this rate (bytes per second).
    pub(super) fn sent(&mut self, now: Instant, bytes: u64, rate: Option<u64>) {
        let Some(rate) = rate else {
            *self = Self::default();
            return;
        };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
        // No wait is longer than a second, however low the rate.
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let cost = cost.min(Duration::from_secs(1));
        let credited = now.checked_sub(CREDIT).unwrap_or(now);
        let paid = self.paid.map_or(now, |paid| paid.max(credited)) + cost;
        let earliest = self.earliest.map_or(now, |earliest| earliest.max(now)) + cost / 2;
        self.paid = Some(paid);
        self.earliest = Some(earliest);
        self.resting = paid.max(earliest) >= now + BURST_TIME / 2;
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
        assert_eq!(sent, 10, "a quarter of a millisecond of 2.5 GB/s");
    }

    #[test]
    fn lateness_is_made_up_for_at_double_the_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.sent(start, 1000, Some(1_000_000));
        // Due after 1 ms, looked at after 4.
        let (mut now, mut times) = (start + 4 * MS, Vec::new());
        for _ in 0..8 {
            pacer.sent(now, 1000, Some(1_000_000));
            times.push((now - start).as_micros());
            now = pacer.blocked_until(now).unwrap();
        }
        assert_eq!(times, [4000, 4500, 5000, 5500, 6000, 6500, 7000, 8000]);
    }

    #[test]
    fn idleness_saves_up_no_more_than_that() {
        let start = Instant::now();
        let mut pacer = Pacer::default();
        pacer.sent(start, 1000, Some(1_000_000));
        let (mut now, mut sent) = (start + 1000 * MS, 0);
        while now < start + 1100 * MS {
            pacer.sent(now, 1000, Some(1_000_000));
            sent += 1;
            now = pacer.blocked_until(now).unwrap();
        }
        assert_eq!(sent, 110);
    }
}
