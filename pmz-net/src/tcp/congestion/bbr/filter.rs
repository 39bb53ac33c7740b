//! The largest value over the last round trips.

/// The running round and ten before it.
const ROUNDS: usize = 11;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MaxFilter {
    /// The largest value of each round, at the round's number modulo their count.
    rounds: [u64; ROUNDS],
    newest: u64,
    max: u64,
}

impl MaxFilter {
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// A value seen in `round`, which never goes back. Rounds without a value leave what was known in place
    /// until the next value comes: nothing new is no reason to forget.
    pub(super) fn update(&mut self, round: u64, value: u64) {
        let passed = round.saturating_sub(self.newest).min(ROUNDS as u64);
        for skipped in 0..passed {
            self.rounds[((round - skipped) % ROUNDS as u64) as usize] = 0;
        }
        self.newest = self.newest.max(round);
        let slot = &mut self.rounds[(self.newest % ROUNDS as u64) as usize];
        *slot = value.max(*slot);
        if passed > 0 {
            self.max = self.rounds.iter().copied().max().unwrap_or(0);
        } else {
            self.max = self.max.max(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_is_kept_for_ten_rounds_after_its_own() {
        let mut filter = MaxFilter::default();
        filter.update(3, 100);
        for round in 4..14 {
            filter.update(round, round);
            assert_eq!(filter.max(), 100, "round {round}");
        }
        filter.update(14, 5);
        assert_eq!(filter.max(), 13);
    }

    #[test]
    fn it_is_the_exact_maximum_whatever_the_order() {
        let mut state = 1_u64;
        let (mut filter, mut seen, mut round) = (MaxFilter::default(), Vec::new(), 0);
        for _ in 0..10_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            round += (state >> 33) % 4;
            let value = (state >> 40) % 1_000;
            filter.update(round, value);
            seen.push((round, value));
            let expected = seen.iter().rev().take_while(|(then, _)| then + 10 >= round);
            assert_eq!(
                filter.max(),
                expected.map(|(_, value)| *value).max().unwrap()
            );
        }
    }

    #[test]
    fn silence_for_many_rounds_forgets_with_the_next_value() {
        let mut filter = MaxFilter::default();
        filter.update(1, 100);
        filter.update(u64::MAX, 7);
        assert_eq!(filter.max(), 7);
    }
}
