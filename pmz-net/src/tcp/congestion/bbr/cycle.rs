//! ProbeBW: a round trip above the path's rate, one below it to take back what that queued, six at the rate.

use std::time::{Duration, Instant};

use super::UNIT;

const GAINS: [u64; 8] = [1_250, 750, UNIT, UNIT, UNIT, UNIT, UNIT, UNIT];
const UP: usize = 0;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cycle {
    phase: usize,
    began: Option<Instant>,
    chance: u64,
}

impl Cycle {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            phase: UP,
            began: None,
            chance: seed,
        }
    }

    /// ProbeBW begins, in a phase that chance picks, so that flows do not probe in step; not in the one that
    /// takes back what was not queued.
    pub(super) fn begin(&mut self, now: Instant) {
        // splitmix64: a step and a mix, for seeds that differ in one bit.
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.chance;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let others = GAINS.len() - 1;
        self.phase = (2 + (bits % others as u64) as usize) % GAINS.len();
        self.began = Some(now);
    }

    pub(super) fn gain(&self) -> u64 {
        GAINS[self.phase]
    }

    pub(super) fn is_probing_up(&self) -> bool {
        self.phase == UP
    }

    /// `gain` is the one in use. Probing up goes on until its effect is `reached`: what it adds is in flight, or
    /// lost. Draining ends early once it has `drained`.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        rtt: Duration,
        gain: u64,
        reached: bool,
        drained: bool,
    ) {
        let Some(began) = self.began else {
            return;
        };
        let full_length = now.saturating_duration_since(began) > rtt;
        let next = if gain < UNIT {
            full_length || drained
        } else {
            full_length && reached
        };
        if next {
            self.phase = (self.phase + 1) % GAINS.len();
            self.began = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    #[test]
    fn every_phase_but_the_draining_one_may_come_first() {
        let mut seen = [0; GAINS.len()];
        for seed in 0..700 {
            let mut cycle = Cycle::new(seed);
            cycle.begin(Instant::now());
            seen[cycle.phase] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!(
            seen.iter()
                .enumerate()
                .all(|(phase, &count)| phase == 1 || count > 60),
            "{seen:?}"
        );
    }

    #[test]
    fn probing_up_lasts_until_it_has_an_effect_and_draining_until_it_has_drained() {
        let mut cycle = Cycle::new(1);
        let mut now = Instant::now();
        cycle.began = Some(now);
        now += RTT * 3;
        cycle.on_ack(now, RTT, cycle.gain(), false, false);
        assert_eq!(cycle.gain(), 1_250);
        cycle.on_ack(now, RTT, cycle.gain(), true, false);
        assert_eq!(cycle.gain(), 750);
        cycle.on_ack(now, RTT, cycle.gain(), true, false);
        assert_eq!(cycle.gain(), 750);
        cycle.on_ack(now, RTT, cycle.gain(), true, true);
        for _ in 0..6 {
            assert_eq!(cycle.gain(), UNIT);
            now += RTT * 2;
            cycle.on_ack(now, RTT, cycle.gain(), true, false);
        }
        assert_eq!(cycle.gain(), 1_250);
    }
}
