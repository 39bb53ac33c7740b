//! Which bytes have come behind a gap.

use std::iter;

/// Ranges that are kept apart; a sender that makes more holes sends something again.
const MAX_RANGES: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Range {
    start: u64,
    end: u64,
    /// When it was changed last, in changes.
    change: u64,
}

/// Ranges in order, none touching another.
#[derive(Debug, Default)]
pub(super) struct Ranges {
    ranges: Vec<Range>,
    changes: u64,
}

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Behind all of them.
    pub(super) fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.end)
    }

    pub(super) fn contains(&self, start: u64, end: u64) -> bool {
        let index = self.ranges.partition_point(|range| range.end < end);
        self.ranges
            .get(index)
            .is_some_and(|range| range.start <= start && start < end)
    }

    /// Whether [`Ranges::insert`] keeps their number within its bound.
    pub(super) fn has_room_for(&self, start: u64, end: u64) -> bool {
        let touches = |range: &Range| range.start <= end && start <= range.end;
        self.ranges.len() < MAX_RANGES || self.ranges.iter().any(touches)
    }

    pub(super) fn insert(&mut self, mut start: u64, mut end: u64) {
        self.changes += 1;
        let from = self.ranges.partition_point(|range| range.end < start);
        let to = self.ranges.partition_point(|range| range.start <= end);
        if let Some(first) = self.ranges.get(from).filter(|_| from < to) {
            start = start.min(first.start);
            end = end.max(self.ranges[to - 1].end);
        }
        let merged = Range {
            start,
            end,
            change: self.changes,
        };
        self.ranges.splice(from..to, iter::once(merged));
    }

    /// All before `next` have come: takes out what is no longer behind a gap, and says up to where all have.
    pub(super) fn take_up_to(&mut self, next: u64) -> u64 {
        let mut next = next;
        let mut taken = 0;
        while let Some(range) = self.ranges.get(taken).filter(|range| range.start <= next) {
            next = next.max(range.end);
            taken += 1;
        }
        self.ranges.drain(..taken);
        next
    }

    /// The ranges, what was changed last at first; at most three.
    pub(super) fn latest(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut before = u64::MAX;
        iter::from_fn(move || {
            let earlier = self.ranges.iter().filter(|range| range.change < before);
            let latest = earlier.max_by_key(|range| range.change)?;
            before = latest.change;
            Some((latest.start, latest.end))
        })
        .take(3)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn rfc_2018_4_what_came_last_is_told_first() {
        let mut ranges = Ranges::default();
        for start in [10, 30, 50, 70] {
            ranges.insert(start, start + 5);
        }
        ranges.insert(35, 40);
        let latest: Vec<_> = ranges.latest().collect();
        assert_eq!(latest, [(30, 40), (70, 75), (50, 55)]);
    }

    #[test]
    fn their_number_is_bounded_and_those_that_touch_still_fit() {
        let mut ranges = Ranges::default();
        for i in 0..MAX_RANGES as u64 {
            assert!(ranges.has_room_for(10 * i, 10 * i + 5));
            ranges.insert(10 * i, 10 * i + 5);
        }
        assert!(!ranges.has_room_for(99_999, 100_000));
        assert!(ranges.has_room_for(5, 8));
    }

    #[test]
    fn they_are_the_set_of_all_that_came() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut ranges = Ranges::default();
            let mut set = [false; 300];
            for _ in 0..60 {
                let start = rng.random_range(0..280);
                let end = rng.random_range(start + 1..start + 20);
                let (first, last) = (start as u64, end as u64);
                assert_eq!(
                    ranges.contains(first, last),
                    set[start..end].iter().all(|b| *b)
                );
                ranges.insert(first, last);
                set[start..end].fill(true);
                let members = |i: usize| {
                    ranges
                        .ranges
                        .iter()
                        .any(|r| (r.start..r.end).contains(&(i as u64)))
                };
                assert!((0..300).all(|i| members(i) == set[i]), "seed {seed}");
                assert!(ranges.ranges.windows(2).all(|w| w[0].end < w[1].start));
            }
            let next = rng.random_range(0..300_usize);
            let all = (next..300).find(|i| !set[*i]).unwrap_or(300);
            assert_eq!(ranges.take_up_to(next as u64), all as u64);
        }
    }
}
