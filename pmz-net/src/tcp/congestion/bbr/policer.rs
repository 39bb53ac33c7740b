//! Token-bucket policers: they let a burst through faster than the rate that they allow, and then drop what
//! exceeds that. The largest rate seen is then the wrong one; the rate between losses, if two intervals agree
//! on it, is the right one, and sending at it loses nothing.

use std::time::{Duration, Instant};

use super::scale;

/// Rounds of an interval, at least and at most.
const MIN_ROUNDS: u32 = 4;
const MAX_ROUNDS: u32 = 4 * MIN_ROUNDS;
/// Losses per delivered bytes from which an interval is that of a policer: about a fifth.
const LOSS: (u64, u64) = (50, 256);
/// Two intervals agree if their rates differ by an eighth at most, or by half a kilobyte per second.
const AGREEMENT: (u64, u64) = (1, 8);
const AGREEMENT_RATE: u64 = 500;
/// So many rounds later the path is looked at anew.
const USE_ROUNDS: u32 = 48;

/// What an acknowledgement, or a timeout, says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) now: Instant,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    /// Something was lost since the sample before.
    pub(super) newly_lost: bool,
    pub(super) app_limited: bool,
    pub(super) round_began: bool,
    pub(super) in_probe_bw: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PolicerDetector {
    sampling: bool,
    /// Where the running interval began.
    since: Option<Instant>,
    delivered: u64,
    lost: u64,
    rounds: u32,
    /// Of the interval before; the policer's, if it is in use.
    rate: u64,
    in_use: bool,
}

impl PolicerDetector {
    /// Bytes per second that the policer lets through, if there is one.
    pub(super) fn rate(&self) -> Option<u64> {
        self.in_use.then_some(self.rate)
    }

    /// True if a rate has been in use for so long that it is time to probe again.
    pub(super) fn on_sample(&mut self, sample: &Sample) -> bool {
        if self.in_use {
            if sample.in_probe_bw && sample.round_began {
                self.rounds += 1;
                if self.rounds >= USE_ROUNDS {
                    self.reset(sample.now, sample.delivered, sample.lost);
                    return true;
                }
            }
            return false;
        }
        if !self.sampling {
            // An interval begins and ends with a loss: in between the bucket ran empty once.
            if !sample.newly_lost {
                return false;
            }
            self.begin_interval(sample.now, sample.delivered, sample.lost);
            self.sampling = true;
        }
        if sample.app_limited {
            self.reset(sample.now, sample.delivered, sample.lost);
            return false;
        }
        if sample.round_began {
            self.rounds += 1;
        }
        if self.rounds > MAX_ROUNDS {
            self.reset(sample.now, sample.delivered, sample.lost);
        } else if self.rounds >= MIN_ROUNDS && sample.newly_lost {
            self.end_interval(sample);
        }
        false
    }

    fn end_interval(&mut self, sample: &Sample) {
        let delivered = sample.delivered.saturating_sub(self.delivered);
        let lost = sample.lost.saturating_sub(self.lost);
        if delivered == 0 || lost < scale(delivered, LOSS.0, LOSS.1) {
            return;
        }
        let time = self
            .since
            .map(|since| sample.now.saturating_duration_since(since))
            .unwrap_or_default();
        if time < Duration::from_millis(1) {
            return;
        }
        let rate = super::rate(delivered, time);
        let difference = rate.abs_diff(self.rate);
        let agree = difference <= scale(self.rate, AGREEMENT.0, AGREEMENT.1)
            || difference <= AGREEMENT_RATE;
        if self.rate > 0 && agree {
            self.rate = self.rate.midpoint(rate);
            self.in_use = true;
            self.rounds = 0;
        } else {
            self.rate = rate;
            self.begin_interval(sample.now, sample.delivered, sample.lost);
        }
    }

    fn begin_interval(&mut self, now: Instant, delivered: u64, lost: u64) {
        self.since = Some(now);
        self.delivered = delivered;
        self.lost = lost;
        self.rounds = 0;
    }

    /// Nothing is known of a policer.
    pub(super) fn reset(&mut self, now: Instant, delivered: u64, lost: u64) {
        self.sampling = false;
        self.in_use = false;
        self.rate = 0;
        self.begin_interval(now, delivered, lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Driver {
        detector: PolicerDetector,
        now: Instant,
        delivered: u64,
        lost: u64,
    }

    impl Driver {
        fn new() -> Self {
            Self {
                detector: PolicerDetector::default(),
                now: Instant::now(),
                delivered: 0,
                lost: 0,
            }
        }

        /// Rounds of 10 ms with so much delivered and lost; whether it is time to probe again.
        fn rounds(&mut self, count: u32, delivered: u64, lost: u64) -> bool {
            let mut expired = false;
            for _ in 0..count {
                self.now += Duration::from_millis(10);
                self.delivered += delivered;
                self.lost += lost;
                expired |= self.detector.on_sample(&Sample {
                    now: self.now,
                    delivered: self.delivered,
                    lost: self.lost,
                    newly_lost: lost > 0,
                    app_limited: false,
                    round_began: true,
                    in_probe_bw: true,
                });
            }
            expired
        }
    }

    #[test]
    fn two_intervals_with_the_same_rate_and_heavy_loss_are_a_policer_for_48_rounds() {
        let mut driver = Driver::new();
        driver.rounds(4, 10_000, 3_000);
        assert_eq!(driver.detector.rate(), None, "one interval is not enough");
        driver.rounds(4, 10_000, 3_000);
        assert_eq!(driver.detector.rate(), Some(1_000_000));
        assert!(!driver.rounds(47, 10_000, 0));
        assert_eq!(driver.detector.rate(), Some(1_000_000));
        assert!(driver.rounds(1, 10_000, 0));
        assert_eq!(driver.detector.rate(), None);
    }

    #[test]
    fn rates_that_differ_are_no_policer() {
        let mut driver = Driver::new();
        for interval in 0..20 {
            driver.rounds(4, 10_000 + interval % 2 * 5_000, 4_000);
        }
        assert_eq!(driver.detector.rate(), None);
    }

    #[test]
    fn losses_of_less_than_a_fifth_are_no_policer() {
        let mut driver = Driver::new();
        driver.rounds(100, 10_000, 1_900);
        assert_eq!(driver.detector.rate(), None);
    }
}
