//! How much may be in flight.

use super::super::units::{MAX_WINDOW, bytes_in, scale};
use super::super::{Ack, Phase, initial_window};
use super::{Bbr, Mode, UNIT};

impl Bbr {
    /// What is in flight at `bandwidth` in a round trip without a queue, times `gain`.
    fn product(&self, bandwidth: u64, gain: u64) -> u64 {
        match self.shortest_rtt.get() {
            Some(rtt) => scale(bytes_in(bandwidth, rtt), gain, UNIT),
            None => initial_window(self.segment),
        }
    }

    /// Room for data that is in flight in pieces larger than segments: one super-packet being sent, one on its
    /// way through a queue of the sender's machine, one whose acknowledgement the receiver's machine merged.
    fn with_room_for_bursts(&self, window: u64) -> u64 {
        let window = window.saturating_add(self.burst().saturating_mul(3));
        // An even number of segments: every second one is acknowledged.
        let pair = 2 * self.segment;
        let window = window.div_ceil(pair).saturating_mul(pair);
        if self.mode == Mode::ProbeBw && self.cycle.is_probing_up() {
            window.saturating_add(pair)
        } else {
            window
        }
    }

    pub(super) fn in_flight_target(&self, bandwidth: u64, gain: u64) -> u64 {
        self.with_room_for_bursts(self.product(bandwidth, gain))
    }

    pub(super) fn save_window(&mut self) {
        self.prior_window = if self.phase == Phase::Open && self.mode != Mode::ProbeRtt {
            self.window
        } else {
            self.prior_window.max(self.window)
        };
    }

    pub(super) fn update_window(&mut self, ack: &Ack) {
        if ack.newly_delivered > 0 && !self.recovers(ack) {
            self.follow_target(ack);
        }
        if self.mode == Mode::ProbeRtt {
            self.window = self.window.min(self.minimum_window());
        }
        self.window = self.window.clamp(self.segment, MAX_WINDOW);
    }

    /// Whether the window is that of a recovery's first round.
    fn recovers(&mut self, ack: &Ack) -> bool {
        let arrived = ack.in_flight.saturating_add(ack.newly_delivered);
        // A loss is paid for with as much of the window, until the next target allows for it again.
        if ack.newly_lost > 0 {
            self.window = self.window.saturating_sub(ack.newly_lost).max(self.segment);
        }
        match (self.phase, ack.phase) {
            (Phase::Open | Phase::Loss, Phase::Recovery) => {
                self.conserving = true;
                self.rounds.end = ack.delivered;
                self.window = arrived;
            }
            (Phase::Recovery | Phase::Loss, Phase::Open) => self.restore_window(),
            (Phase::Open, Phase::Open | Phase::Loss)
            | (Phase::Recovery, Phase::Recovery | Phase::Loss)
            | (Phase::Loss, Phase::Loss) => {}
        }
        self.phase = ack.phase;
        if self.conserving {
            self.window = self.window.max(arrived);
        }
        self.conserving
    }

    pub(super) fn restore_window(&mut self) {
        self.window = self.window.max(self.prior_window);
        self.conserving = false;
    }

    fn follow_target(&mut self, ack: &Ack) {
        let estimate = self.estimate();
        let mut target = self.product(estimate, self.window_gain);
        if self.full_pipe.is_full() {
            target = target.saturating_add(self.aggregation.window(estimate));
        }
        let target = self.with_room_for_bursts(target);
        let grown = self.window.saturating_add(ack.newly_delivered);
        if self.full_pipe.is_full() {
            self.window = grown.min(target);
        } else if self.window < target || ack.delivered < initial_window(self.segment) {
            self.window = grown;
        }
        if let Some(bound) = self.marks.bound() {
            let least = self.in_flight_target(estimate, UNIT);
            self.window = self.window.min(scale(target, bound, UNIT).max(least));
        }
        self.window = self.window.max(self.minimum_window());
    }
}
