//! The window's growth in congestion avoidance (RFC 9438, sections 4.2 to 4.5).

use std::time::{Duration, Instant};

/// What congestion leaves of the window, as a fraction (RFC 9438, section 4.6).
pub(super) const BETA: (u64, u64) = (7, 10);
/// How steep the curve is, in segments per second cubed (RFC 9438, section 5).
const C: f64 = 0.4;

/// One congestion avoidance: from the end of a recovery or of slow start to the next congestion.
///
/// The curve counts in segments, windows outside of it in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch {
    /// W_max, segments.
    plateau: f64,
    /// K, seconds: when the curve reaches the plateau.
    reaches: f64,
    /// W_est, segments: what Reno's window would be.
    reno: f64,
    /// The window at the congestion before, segments; none if there was none, or a timeout.
    prior: Option<f64>,
    /// Time spent at the window.
    elapsed: Duration,
    /// Until when that has been counted.
    counted: Instant,
    /// Growth that did not make up a byte yet.
    fraction: f64,
}

impl Epoch {
    /// Begins at `now` with `window` bytes. `plateau` holds where there was a congestion, whose window was
    /// `prior`: without one, the curve begins at its plateau.
    pub(super) fn begin(
        now: Instant,
        window: u64,
        plateau: u64,
        prior: Option<u64>,
        segment: u64,
    ) -> Self {
        let segments = |bytes: u64| bytes as f64 / segment as f64;
        let (window, plateau) = (segments(window), prior.map_or(0.0, |_| segments(plateau)));
        Self {
            plateau: plateau.max(window),
            reaches: ((plateau - window).max(0.0) / C).cbrt(),
            reno: window,
            prior: prior.map(segments),
            elapsed: Duration::ZERO,
            counted: now,
            fraction: 0.0,
        }
    }

    /// Time goes on; it counts if the window was what limited the flow (RFC 9438, section 5.8).
    pub(super) fn pass(&mut self, now: Instant, limited: bool) {
        if limited {
            self.elapsed += now.saturating_duration_since(self.counted);
        }
        self.counted = self.counted.max(now);
    }

    /// W_cubic, segments.
    fn at(&self, time: Duration) -> f64 {
        C * (time.as_secs_f64() - self.reaches).powi(3) + self.plateau
    }

    /// Bytes by which `acked` bytes let the window grow.
    pub(super) fn growth(&mut self, window: u64, acked: u64, segment: u64, rtt: Duration) -> u64 {
        let current = window as f64 / segment as f64;
        let acked = acked as f64 / segment as f64;
        // Equation 4, with Reno's own increase once the window is back where the congestion was.
        let beta = BETA.0 as f64 / BETA.1 as f64;
        let alpha = match self.prior {
            Some(prior) if self.reno < prior => 3.0 * (1.0 - beta) / (1.0 + beta),
            _ => 1.0,
        };
        self.reno += alpha * acked / current;
        let growth = if self.at(self.elapsed) < self.reno {
            self.reno - current
        } else {
            let target = self
                .at(self.elapsed.saturating_add(rtt))
                .clamp(current, 1.5 * current);
            (target - current) / current * acked
        };
        // Nothing is known of the path's limit yet: by a twentieth in a round trip, as Linux does, because from
        // its plateau the curve takes seconds to leave.
        let least = if self.prior.is_none() {
            acked / 20.0
        } else {
            0.0
        };
        // Half a window in a round trip is the most (RFC 9438, section 4.4, bounds the target so).
        let bytes = growth.max(least).min(acked / 2.0) * segment as f64 + self.fraction;
        let whole = bytes.max(0.0).floor();
        self.fraction = bytes.max(0.0) - whole;
        whole as u64
    }
}
