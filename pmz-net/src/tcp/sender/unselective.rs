//! A receiver without selective acknowledgements (RFC 5681, 3.2; RFC 6582): each acknowledgement that says
//! nothing new says that one more segment has arrived behind a gap, and not which one.
//!
//! The next one in order counts as that. So RACK and all else find losses as ever, until an acknowledgement
//! shows that there was another gap.

use super::super::congestion::Phase;
use super::super::scoreboard::State;
use super::Sender;
use super::acknowledged::Acknowledgement;

impl Sender {
    /// The receiver acknowledges selectively.
    pub(in super::super) fn use_sack(&mut self) {
        self.sack = true;
    }

    /// Whether this says that something arrived behind a gap. What comes of segments that were sent again for
    /// nothing looks the same: not before all of them is acknowledged (RFC 6582, 3.2, step 2).
    pub(super) fn tells_of_a_gap(&self, ack: &Acknowledgement<'_>) -> bool {
        !self.sack
            && ack.repeated
            && match self.phase {
                Phase::Open => self.una > self.recover,
                Phase::Recovery => true,
                Phase::Loss => false,
            }
    }

    /// After an acknowledgement that advanced: the segment behind it can't have arrived, and while losses are
    /// repaired that means that it is lost as well (RFC 6582, 3.2, step 3). If it counted as one that arrived,
    /// then another one did in its place.
    pub(super) fn find_another_gap(&mut self) {
        let Some(first) = self.board.first().filter(|_| !self.sack) else {
            return;
        };
        let point = self.episode.map_or(0, |episode| episode.point);
        let lost = match first.state {
            State::Arrived => {
                let lost = self.board.lose_arrived_first();
                self.board.arrive_any(|_| ());
                lost
            }
            State::InFlight if self.una < point && !first.again => self.board.lose_first(),
            State::InFlight | State::Lost => 0,
        };
        self.delivery.lost(lost);
        self.newly_lost += lost;
    }
}
