//! BBR (draft-cardwell-iccrg-bbr-congestion-control): the path is taken for what it delivered at most lately,
//! and for the shortest round trip seen lately; what is sent follows from these two and not from losses.
//!
//! It behaves as the first version does, which is what Linux runs: flows of both kinds that meet at a
//! bottleneck must end with equal shares, and the later versions' bounds on loss yield to the first
//! version: [`startup`] says what they would cost. Of what they add, congestion marks count ([`marks`]), where
//! nothing is lost by it.

mod aggregation;
mod cycle;
mod filter;
mod marks;
mod model;
mod policer;
mod round_trip;
mod startup;
#[cfg(test)]
mod tests;
mod window;

use std::time::{Duration, Instant};

use self::aggregation::Aggregation;
use self::cycle::Cycle;
use self::filter::MaxFilter;
use self::marks::Marks;
use self::policer::PolicerDetector;
use self::round_trip::{ProbeRtt, ShortestRtt};
use self::startup::FullPipe;
use super::units::{MAX_WINDOW, bytes_in, quantum, rate, scale};
use super::{Ack, Controller, Phase, initial_window};

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
    /// [`super::RateSample::prior_delivered`] of the first packet of the next round.
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
        quantum(self.pacing_rate, self.segment)
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
        // flow grow. So what counts is the phase that the acknowledgement ends with.
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
