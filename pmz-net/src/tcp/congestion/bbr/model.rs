//! What an acknowledgement says of the path, and what is to be done about it.

use std::time::{Duration, Instant};

use super::super::units::{rate, scale};
use super::super::{Ack, RateSample};
use super::policer::Sample;
use super::{Bbr, DRAIN_GAIN, Mode, PACING_MARGIN_PERCENT, STARTUP_GAIN, UNIT, WINDOW_GAIN};

impl Bbr {
    pub(super) fn update_model(&mut self, ack: &Ack) {
        self.rounds.began = false;
        if let Some(sample) = ack.rate.filter(|sample| !sample.interval.is_zero()) {
            self.update_bandwidth(ack, &sample);
        }
        self.update_cycle(ack);
        self.update_full_pipe(ack);
        self.leave_drain(ack);
        self.update_rtt(ack);
        self.update_gains();
    }

    fn update_bandwidth(&mut self, ack: &Ack, sample: &RateSample) {
        if sample.prior_delivered >= self.rounds.end {
            self.rounds.end = ack.delivered;
            self.rounds.count += 1;
            self.rounds.began = true;
            self.conserving = false;
        }
        let app_limited = sample.app_limited || self.probe_rtt.limited(sample.prior_delivered);
        let expired = self.policer.on_sample(&Sample {
            now: ack.now,
            delivered: ack.delivered,
            lost: ack.lost,
            newly_lost: ack.newly_lost > 0,
            app_limited,
            round_began: self.rounds.began,
            in_probe_bw: self.mode == Mode::ProbeBw,
        });
        if expired {
            self.enter_probe_bw(ack.now);
        }
        let bandwidth = rate(sample.delivered, sample.interval);
        // What the application limited says nothing about the path, unless it was more than ever.
        if !app_limited || bandwidth >= self.bandwidth.max() {
            self.bandwidth.update(self.rounds.count, bandwidth);
        }
        if ack.newly_delivered > 0 {
            let estimate = self.estimate();
            self.aggregation.on_ack(
                ack.now,
                ack.newly_delivered,
                estimate,
                self.window,
                self.rounds.began,
            );
        }
        self.marks.on_ack(ack.congestion_marked, self.rounds.began);
    }

    fn update_cycle(&mut self, ack: &Ack) {
        if self.mode != Mode::ProbeBw {
            return;
        }
        let bandwidth = self.bandwidth.max();
        let (reached, drained) = if self.pacing_gain > UNIT {
            // What is about to leave counts: pacing lets it go in one burst.
            let in_flight = ack.prior_in_flight.saturating_add(self.burst());
            let full = in_flight >= self.in_flight_target(bandwidth, self.pacing_gain);
            (ack.newly_lost > 0 || full, false)
        } else {
            (
                true,
                ack.prior_in_flight <= self.in_flight_target(bandwidth, UNIT),
            )
        };
        let rtt = self.shortest_rtt.get().unwrap_or_default();
        self.cycle
            .on_ack(ack.now, rtt, self.pacing_gain, reached, drained);
    }

    fn update_full_pipe(&mut self, ack: &Ack) {
        let app_limited = ack.rate.is_some_and(|sample| {
            sample.app_limited || self.probe_rtt.limited(sample.prior_delivered)
        });
        if self.rounds.began && !app_limited {
            self.full_pipe
                .on_round(self.bandwidth.max(), self.marks.marked_round());
        }
    }

    fn leave_drain(&mut self, ack: &Ack) {
        if self.mode == Mode::Startup && self.full_pipe.is_full() {
            self.mode = Mode::Drain;
            self.threshold = self.in_flight_target(self.bandwidth.max(), UNIT);
        }
        if self.mode == Mode::Drain
            && ack.in_flight <= self.in_flight_target(self.bandwidth.max(), UNIT)
        {
            self.enter_probe_bw(ack.now);
        }
    }

    fn enter_probe_bw(&mut self, now: Instant) {
        self.mode = Mode::ProbeBw;
        self.cycle.begin(now);
    }

    fn update_rtt(&mut self, ack: &Ack) {
        // The only segment in flight may have been acknowledged late, for want of a second one.
        let maybe_delayed = ack.prior_in_flight <= self.segment;
        let expired = self.shortest_rtt.on_ack(ack.now, ack.rtt, maybe_delayed);
        if expired && !self.restarting && self.mode != Mode::ProbeRtt {
            self.mode = Mode::ProbeRtt;
            self.save_window();
            self.probe_rtt.begin(ack.delivered);
        }
        if self.mode == Mode::ProbeRtt {
            if self
                .probe_rtt
                .on_ack(ack, self.minimum_window(), self.rounds.began)
            {
                self.rounds.end = ack.delivered;
            }
            self.leave_probe_rtt(ack.now);
        }
        if ack.newly_delivered > 0 {
            self.restarting = false;
        }
    }

    pub(super) fn leave_probe_rtt(&mut self, now: Instant) {
        if !self.probe_rtt.is_done(now) {
            return;
        }
        self.shortest_rtt.confirm(now);
        self.window = self.window.max(self.prior_window);
        if self.full_pipe.is_full() {
            self.enter_probe_bw(now);
        } else {
            self.mode = Mode::Startup;
        }
    }

    fn update_gains(&mut self) {
        (self.pacing_gain, self.window_gain) = match self.mode {
            Mode::Startup => (STARTUP_GAIN, STARTUP_GAIN),
            Mode::Drain => (DRAIN_GAIN, STARTUP_GAIN),
            // A policer has no queue to probe: what exceeds its rate is lost.
            Mode::ProbeBw if self.policer.rate().is_some() => (UNIT, WINDOW_GAIN),
            Mode::ProbeBw => (self.cycle.gain(), WINDOW_GAIN),
            Mode::ProbeRtt => (UNIT, UNIT),
        };
    }

    pub(super) fn update_pacing(&mut self, smoothed_rtt: Option<Duration>) {
        if !self.has_seen_rtt
            && let Some(rtt) = smoothed_rtt
        {
            self.has_seen_rtt = true;
            self.pacing_rate = scale(rate(self.window, rtt), STARTUP_GAIN, UNIT);
        }
        let paced = self.paced(self.pacing_gain);
        // In Startup early rates are low for want of data in flight: they don't slow down what is sent.
        if self.full_pipe.is_full() || paced > self.pacing_rate {
            self.pacing_rate = paced;
        }
    }

    pub(super) fn paced(&self, gain: u64) -> u64 {
        scale(
            self.estimate(),
            gain * (100 - PACING_MARGIN_PERCENT),
            UNIT * 100,
        )
    }
}
