//! BBR (draft-cardwell-iccrg-bbr-congestion-control): the path is taken for what it delivered at most lately,
//! and for the shortest round trip seen lately; what is sent follows from these two and not from losses.
//!
//! It behaves as the first version does, which is what Linux runs: flows of both kinds that meet at a
//! bottleneck must end with equal shares, and the later versions' bounds on loss yield to the first
//! version. What they add beyond that is in [`startup`] and [`marks`], where it costs no share.

mod aggregation;
mod cycle;
mod filter;
mod marks;
mod policer;
mod round_trip;
mod startup;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use self::aggregation::Aggregation;
use self::cycle::Cycle;
use self::filter::MaxFilter;
use self::marks::Marks;
use self::policer::PolicerDetector;
use self::round_trip::{ProbeRtt, ShortestRtt};
use self::startup::FullPipe;
use super::units::{MAX_WINDOW, burst, bytes_in, rate, scale};
use super::{Ack, Controller, Phase, RateSample, initial_window};

/// Gains are thousandths.
const UNIT: u64 = 1_000;
/// Doubles the rate each round trip: 2 / ln 2.
const STARTUP_GAIN: u64 = 2_885;
/// Takes out of the queue in one round trip what Startup put there.
const DRAIN_GAIN: u64 = 347;
/// Of the window in ProbeBW: room for acknowledgements that are delayed and come together.
const WINDOW_GAIN: u64 = 2_000;
/// Sent is a hundredth less than was delivered, so that a queue that has built up goes away.
const PACING_MARGIN_PERCENT: u64 = 1;
/// For round trips before one is known.
const ASSUMED_RTT: Duration = Duration::from_millis(1);
/// Enough to keep acknowledgements coming where the receiver answers every second segment.
const MIN_SEGMENTS: u64 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The rate doubles until the path delivers no more.
    Startup,
    /// What Startup queued goes away.
    Drain,
    /// At the path's rate, with short probes for more.
    ProbeBw,
    /// Almost nothing in flight, to see the path without its queue.
    ProbeRtt,
}

/// Round trips, counted in what is delivered: one is over when something arrives that was sent after it began.
#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    count: u64,
    /// [`RateSample::prior_delivered`] of the first packet of the next round.
    end: u64,
    /// The acknowledgement being looked at began a round.
    began: bool,
}

#[derive(Debug)]
pub(super) struct Bbr {
    segment: u64,
    mode: Mode,
    rounds: Rounds,
    bandwidth: MaxFilter,
    shortest_rtt: ShortestRtt,
    probe_rtt: ProbeRtt,
    full_pipe: FullPipe,
    cycle: Cycle,
    policer: PolicerDetector,
    aggregation: Aggregation,
    marks: Marks,
    pacing_gain: u64,
    window_gain: u64,
    pacing_rate: u64,
    /// The pacing rate follows from a measured round trip.
    has_seen_rtt: bool,
    window: u64,
    /// The window before a recovery or ProbeRTT.
    prior_window: u64,
    threshold: u64,
    /// What the last acknowledgement said.
    phase: Phase,
    delivered: u64,
    lost: u64,
    /// First round of a recovery: no more leaves than arrives.
    conserving: bool,
    /// Something is sent after there was nothing to send.
    restarting: bool,
}

impl Bbr {
    pub(super) fn new(segment_size: u64, seed: u64) -> Self {
        let segment = segment_size.clamp(1, MAX_WINDOW / 16);
        let window = initial_window(segment).max(MIN_SEGMENTS * segment);
        Self {
            segment,
            mode: Mode::Startup,
            rounds: Rounds::default(),
            bandwidth: MaxFilter::default(),
            shortest_rtt: ShortestRtt::default(),
            probe_rtt: ProbeRtt::default(),
            full_pipe: FullPipe::default(),
            cycle: Cycle::new(seed),
            policer: PolicerDetector::default(),
            aggregation: Aggregation::default(),
            marks: Marks::default(),
            pacing_gain: STARTUP_GAIN,
            window_gain: STARTUP_GAIN,
            pacing_rate: scale(rate(window, ASSUMED_RTT), STARTUP_GAIN, UNIT),
            has_seen_rtt: false,
            window,
            prior_window: 0,
            threshold: u64::MAX,
            phase: Phase::Open,
            delivered: 0,
            lost: 0,
            conserving: false,
            restarting: false,
        }
    }

    /// Bytes per second that the path is taken to have.
    fn estimate(&self) -> u64 {
        self.policer.rate().unwrap_or(self.bandwidth.max())
    }

    fn minimum_window(&self) -> u64 {
        MIN_SEGMENTS * self.segment
    }

    fn burst(&self) -> u64 {
        burst(self.pacing_rate, self.segment)
    }

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

    fn in_flight_target(&self, bandwidth: u64, gain: u64) -> u64 {
        self.with_room_for_bursts(self.product(bandwidth, gain))
    }

    fn update_model(&mut self, ack: &Ack) {
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
        let expired = self.policer.on_sample(&policer::Sample {
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

    fn leave_probe_rtt(&mut self, now: Instant) {
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

    fn update_pacing(&mut self, smoothed_rtt: Option<Duration>) {
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

    fn paced(&self, gain: u64) -> u64 {
        scale(
            self.estimate(),
            gain * (100 - PACING_MARGIN_PERCENT),
            UNIT * 100,
        )
    }

    fn save_window(&mut self) {
        self.prior_window = if self.phase == Phase::Open && self.mode != Mode::ProbeRtt {
            self.window
        } else {
            self.prior_window.max(self.window)
        };
    }

    fn update_window(&mut self, ack: &Ack) {
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

    fn restore_window(&mut self) {
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

impl Controller for Bbr {
    fn on_sent(&mut self, now: Instant, bytes: u64, in_flight: u64, app_limited: bool) {
        if in_flight > bytes || !app_limited {
            return;
        }
        // Nothing was in flight: there is no queue of ours, so no need to probe or to drain.
        self.restarting = true;
        self.aggregation.restart(now);
        match self.mode {
            Mode::ProbeBw => self.pacing_rate = self.paced(UNIT),
            Mode::ProbeRtt => self.leave_probe_rtt(now),
            Mode::Startup | Mode::Drain => {}
        }
    }

    fn on_ack(&mut self, ack: &Ack) {
        self.delivered = ack.delivered;
        self.lost = ack.lost;
        self.update_model(ack);
        self.update_pacing(ack.smoothed_rtt);
        self.update_window(ack);
    }

    fn on_congestion(&mut self, _now: Instant, _in_flight: u64) {
        self.save_window();
    }

    fn on_recovered(&mut self, _now: Instant) {
        // The acknowledgement that ends a recovery may begin the next one. Where losses are many, that is the
        // rule, and all of it is one recovery here: conserving packets in every round would never let the
        // flow grow. So [`Self::recovers`] looks at the phase that the acknowledgement ends with.
    }

    fn on_timeout(&mut self, now: Instant, in_flight: u64) {
        self.save_window();
        self.phase = Phase::Loss;
        // What was delivered before an outage is no measure for growth after it.
        self.full_pipe.forget();
        self.policer.on_sample(&policer::Sample {
            now,
            delivered: self.delivered,
            lost: self.lost.saturating_add(in_flight),
            newly_lost: true,
            app_limited: false,
            round_began: true,
            in_probe_bw: self.mode == Mode::ProbeBw,
        });
        self.conserving = false;
        self.window = self.segment;
    }

    fn on_spurious(&mut self, now: Instant) {
        self.full_pipe.forget();
        self.policer.reset(now, self.delivered, self.lost);
        self.restore_window();
        self.phase = Phase::Open;
    }

    fn on_idle_restart(&mut self, _now: Instant, _idle: Duration) {
        // What is known of the path is forgotten by its age; [`Self::on_sent`] sees to the pace.
    }

    fn set_segment_size(&mut self, bytes: u64) {
        self.segment = bytes.clamp(1, MAX_WINDOW / 16);
        self.window = self.window.max(self.segment);
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn threshold(&self) -> u64 {
        self.threshold
    }

    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_rate.max(1))
    }

    fn uses_proportional_reduction(&self) -> bool {
        false
    }
}
