//! Whether a path is that of a local network, by its round trips. A network adds to them and never takes away: one
//! quick answer proves that a path is short, and only many slow ones that it is long, since whatever is busy on the way
//! makes answers late. So the shortest of the last minute counts.

use std::collections::VecDeque;
use std::time::Duration;

/// From this round trip on a path is far.
const FAR_FROM: Duration = Duration::from_millis(5);
/// One that is far stays so down to this.
const NEAR_BELOW: Duration = Duration::from_millis(3);
/// Answers that are looked at. At one every five seconds, a minute of load in which not one probe gets by.
const WINDOW: usize = 12;
/// A path is not far by its first answer: the first packet of anything is late.
const ENOUGH: usize = 2;

/// How far away the other end of a path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distance {
    /// A local network, or not known to be anything else.
    #[default]
    Near,
    /// A network on which losses are waited for: the internet, a VPN.
    Far,
}

/// Round trips of a path, and what they come to.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    recent: VecDeque<Duration>,
    distance: Distance,
}

impl RoundTrips {
    /// A probe was answered after this time.
    pub(super) fn add(&mut self, round_trip: Duration) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(round_trip);
        let shortest = self.recent.iter().min().copied().unwrap_or_default();
        if shortest < NEAR_BELOW {
            self.distance = Distance::Near;
        } else if shortest >= FAR_FROM && self.recent.len() >= ENOUGH {
            self.distance = Distance::Far;
        }
    }

    /// The path may be another one from now on.
    pub(super) fn forget(&mut self) {
        self.recent.clear();
    }

    /// The latest.
    pub(super) fn last(&self) -> Option<Duration> {
        self.recent.back().copied()
    }

    pub(super) fn distance(&self) -> Distance {
        self.distance
    }

    /// Whether there were enough of them to tell.
    pub(super) fn is_known(&self) -> bool {
        self.recent.len() >= ENOUGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the path is after each of these, in milliseconds.
    fn after(trips: &mut RoundTrips, milliseconds: impl IntoIterator<Item = f64>) -> Vec<Distance> {
        let mut distances = Vec::new();
        for ms in milliseconds {
            trips.add(Duration::from_secs_f64(ms / 1000.0));
            distances.push(trips.distance());
        }
        distances
    }

    #[test]
    fn a_path_is_far_by_its_second_slow_answer() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.distance(), Distance::Near);
        let distances = after(&mut trips, [40.0, 40.0, 41.0]);
        assert_eq!(distances, [Distance::Near, Distance::Far, Distance::Far]);
        assert_eq!(trips.last(), Some(Duration::from_millis(41)));
    }

    #[test]
    fn load_does_not_make_a_local_network_far() {
        let mut trips = RoundTrips::default();
        let busy = (0..1000).map(|n| if n % WINDOW == 0 { 0.4 } else { 60.0 });
        assert!(!after(&mut trips, busy).contains(&Distance::Far));
        // Nor does a first answer that was late.
        let mut trips = RoundTrips::default();
        assert!(!after(&mut trips, [80.0, 0.5, 80.0, 80.0]).contains(&Distance::Far));
    }

    #[test]
    fn one_quick_answer_ends_what_a_minute_of_nothing_but_load_began() {
        let mut trips = RoundTrips::default();
        after(&mut trips, [0.4]);
        let distances = after(&mut trips, [60.0; WINDOW]);
        assert_eq!(distances[WINDOW - 2], Distance::Near);
        assert_eq!(distances[WINDOW - 1], Distance::Far);
        assert_eq!(after(&mut trips, [0.4]), [Distance::Near]);
        let then = after(&mut trips, [60.0; WINDOW - 1]);
        assert!(!then.contains(&Distance::Far), "{then:?}");
    }

    #[test]
    fn between_the_bounds_a_path_stays_what_it_was() {
        let mut trips = RoundTrips::default();
        let between = [4.9, 3.0, 4.0, 3.1, 4.9];
        assert!(!after(&mut trips, between).contains(&Distance::Far));
        let mut trips = RoundTrips::default();
        after(&mut trips, [5.0, 5.0]);
        assert!(!after(&mut trips, between).contains(&Distance::Near));
        assert_eq!(after(&mut trips, [2.9]), [Distance::Near]);
    }

    #[test]
    fn after_a_change_of_network_two_answers_are_enough_again() {
        let mut trips = RoundTrips::default();
        after(&mut trips, [0.4; 3]);
        trips.forget();
        assert_eq!(trips.distance(), Distance::Near);
        let distances = after(&mut trips, [30.0, 30.0]);
        assert_eq!(distances, [Distance::Near, Distance::Far]);
    }
}
