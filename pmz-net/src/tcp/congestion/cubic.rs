//! Cubic (RFC 9438): the window is a cubic function of the time since the last congestion, so that it is soon
//! back near where that happened, stays there for a while, and then looks for more.

mod curve;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::curve::{BETA, Epoch};
use super::hystart::{Growth, HyStart};
use super::units::{MAX_WINDOW, rate, scale};
use super::{Ack, Controller, Phase, initial_window};

/// The smallest window, in segments, that congestion leads to (RFC 5681, equation 4).
const MIN_SEGMENTS: u64 = 2;

/// What a congestion changes, kept to take it back.
#[derive(Clone, Copy, Debug)]
struct State {
    window: u64,
    threshold: u64,
    /// The window at the last congestion; none before the first one and after a timeout.
    prior: Option<u64>,
    /// Where the curve has its plateau: `prior`, or less if the flow gives way to others.
    plateau: u64,
    /// The congestion avoidance that is going on.
    epoch: Option<Epoch>,
    hystart: HyStart,
}

#[derive(Debug)]
pub(super) struct Cubic {
    segment: u64,
    state: State,
    /// Before the last congestion.
    before: Option<State>,
    smoothed_rtt: Option<Duration>,
    /// A timeout was reported, and no acknowledgement since has shown its phase to be over.
    timed_out: bool,
}

impl Cubic {
    pub(super) fn new(segment_size: u64) -> Self {
        let segment = segment_size.clamp(1, MAX_WINDOW / 16);
        Self {
            segment,
            state: State {
                window: initial_window(segment),
                threshold: u64::MAX,
                prior: None,
                plateau: 0,
                epoch: None,
                hystart: HyStart::new(),
            },
            before: None,
            smoothed_rtt: None,
            timed_out: false,
        }
    }

    fn in_slow_start(&self) -> bool {
        self.state.window < self.state.threshold
    }

    /// What congestion leaves of the window.
    fn reduced(&self) -> u64 {
        scale(self.state.window, BETA.0, BETA.1).max(MIN_SEGMENTS * self.segment)
    }

    /// Growth in slow start; the acknowledged bytes that are left for congestion avoidance.
    fn slow_start(&mut self, ack: &Ack, limited: bool) -> u64 {
        let growth = self
            .state
            .hystart
            .on_ack(ack.now, ack.delivered, ack.in_flight, ack.rtt);
        if growth == Growth::Over {
            self.state.threshold = self.state.window;
            return ack.newly_delivered;
        }
        if !limited {
            return 0;
        }
        let bytes = match growth {
            Growth::Quarter => ack.newly_delivered / 4,
            Growth::Full | Growth::Over => ack.newly_delivered,
        };
        let room = self.state.threshold - self.state.window;
        self.state.window = (self.state.window + bytes.min(room)).min(MAX_WINDOW);
        bytes.saturating_sub(room)
    }

    fn avoid_congestion(&mut self, now: Instant, acked: u64, limited: bool) {
        let state = &mut self.state;
        let epoch = state.epoch.get_or_insert_with(|| {
            Epoch::begin(now, state.window, state.plateau, state.prior, self.segment)
        });
        epoch.pass(now, limited);
        if limited {
            // One acknowledgement cannot say more than that all of a window has arrived.
            let acked = acked.min(state.window);
            let growth = epoch.growth(
                state.window,
                acked,
                self.segment,
                self.smoothed_rtt.unwrap_or_default(),
            );
            state.window = (state.window + growth).min(MAX_WINDOW);
        }
    }
}

impl Controller for Cubic {
    fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64, _app_limited: bool) {
        if in_flight <= bytes
            && let Some(epoch) = &mut self.state.epoch
        {
            // Nothing was on its way: this time was not spent at the window.
            epoch.pass(now, false);
        }
    }

    fn on_ack(&mut self, ack: &Ack) {
        self.smoothed_rtt = ack.smoothed_rtt.or(self.smoothed_rtt);
        self.timed_out &= ack.phase == Phase::Loss;
        if ack.phase == Phase::Recovery || ack.newly_delivered == 0 {
            return;
        }
        let slow_start = self.in_slow_start();
        // While the window doubles in a round trip, pacing spreads it over more than half of that: a window
        // that was used by half may be in use as fast as pacing lets.
        let limited = ack.window_limited
            || (slow_start && ack.prior_in_flight.saturating_mul(2) > self.state.window);
        let acked = if slow_start {
            self.slow_start(ack, limited)
        } else {
            ack.newly_delivered
        };
        if !self.in_slow_start() && (acked > 0 || !limited) {
            self.avoid_congestion(ack.now, acked, limited);
        }
    }

    fn on_congestion(&mut self, _now: Instant, _in_flight: u64) {
        self.before = Some(self.state);
        let window = self.state.window;
        // Fast convergence (RFC 9438, section 4.7): a window that has not come back to where it was makes room
        // for whoever took that place.
        let gives_way = self.state.prior.is_some() && window < self.state.plateau;
        self.state.plateau = if gives_way {
            scale(window, BETA.1 + BETA.0, 2 * BETA.1)
        } else {
            window
        };
        self.state.prior = Some(window);
        // Of the window, not of what is in flight: it grows only when it is in use, so RFC 9438, section 4.6,
        // allows it, and a flow that has nothing to send for a moment is not punished for it.
        self.state.threshold = self.reduced();
        self.state.window = self.state.threshold;
        self.state.epoch = None;
        self.state.hystart.finish();
    }

    fn on_recovered(&mut self, _now: Instant) {}

    fn on_timeout(&mut self, _now: Instant, _in_flight: u64) {
        // The same data has timed out again: the threshold was set for it already (RFC 5681, section 3.1).
        if !self.timed_out {
            self.before = Some(self.state);
            self.state.threshold = self.reduced();
        }
        self.timed_out = true;
        self.state.window = self.segment;
        self.state.prior = None;
        self.state.epoch = None;
        self.state.hystart.finish();
    }

    fn on_spurious(&mut self, _now: Instant) {
        if let Some(before) = self.before.take() {
            let window = before.window.max(self.state.window);
            self.state = State { window, ..before };
        }
        self.timed_out = false;
    }

    fn on_idle_restart(&mut self, _now: Instant, idle: Duration) {
        // RFC 5681, section 4.1, goes down to the restart window at once; like Linux (after RFC 2861), half of
        // the window for every timeout that passed, and back by slow start to three quarters of what it was.
        let timeout = self
            .smoothed_rtt
            .unwrap_or_default()
            .saturating_mul(2)
            .max(Duration::from_millis(200));
        let halvings = (idle.as_nanos() / timeout.as_nanos()).clamp(1, 63) as u32;
        let state = &mut self.state;
        let floor = initial_window(self.segment).min(state.window);
        state.threshold = state
            .threshold
            .max(scale(state.window, 3, 4))
            .max(MIN_SEGMENTS * self.segment);
        state.window = (state.window >> halvings).max(floor);
        state.epoch = None;
    }

    fn set_segment_size(&mut self, bytes: u64) {
        self.segment = bytes.clamp(1, MAX_WINDOW / 16);
        // The curve is one of segments.
        self.state.epoch = None;
        let least = if self.timed_out {
            self.segment
        } else {
            MIN_SEGMENTS * self.segment
        };
        self.state.window = self.state.window.max(least);
        self.state.threshold = self.state.threshold.max(MIN_SEGMENTS * self.segment);
    }

    fn window(&self) -> u64 {
        self.state.window
    }

    fn threshold(&self) -> u64 {
        self.state.threshold
    }

    fn pacing_rate(&self) -> Option<u64> {
        // As Linux paces what has no rate of its own: twice the window per round trip while it doubles, and in
        // congestion avoidance enough above it that pacing is never what limits.
        let rtt = self.smoothed_rtt?;
        let gain = if self.state.window < self.state.threshold / 2 {
            200
        } else {
            120
        };
        Some(rate(scale(self.state.window, gain, 100), rtt).max(1))
    }

    fn uses_proportional_reduction(&self) -> bool {
        true
    }
}
