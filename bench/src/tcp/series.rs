//! How many bytes each flow had read at which time, and what follows from it.

use std::time::Duration;

/// The time over which a rate counts as one.
pub(crate) const WINDOW: Duration = Duration::from_millis(200);
/// A rate is back at this share of what it was before.
const BACK_AT: f64 = 0.9;

/// Counts of bytes, taken again and again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    points: Vec<Point>,
}

#[derive(Clone, Debug)]
struct Point {
    /// Since the start.
    at: Duration,
    /// Each flow's, from its start on.
    bytes: Vec<u64>,
}

impl Series {
    /// Adds what was read by now. Times don't decrease.
    pub(crate) fn add(&mut self, at: Duration, bytes: Vec<u64>) {
        self.points.push(Point { at, bytes });
    }

    /// Bits per second of each flow between two times.
    pub(crate) fn rates(&self, from: Duration, to: Duration) -> Vec<f64> {
        let (Some(first), Some(last)) = (self.point(from), self.point(to)) else {
            return Vec::new();
        };
        let seconds = (last.at - first.at).as_secs_f64();
        let pairs = first.bytes.iter().zip(&last.bytes);
        pairs
            .map(|(first, last)| (last - first) as f64 * 8.0 / seconds)
            .collect()
    }

    /// The same of all flows together.
    pub(crate) fn rate(&self, from: Duration, to: Duration) -> f64 {
        self.rates(from, to).iter().sum()
    }

    /// The time from `since` until the rate over 200 ms is back at nine tenths of `before`.
    pub(crate) fn recovery(&self, since: Duration, before: f64) -> Option<Duration> {
        let later = self.points.iter().filter(|point| point.at >= since);
        let mut ends = later.map(|point| point.at).filter(|at| *at >= WINDOW);
        let back = ends.find(|end| self.rate(*end - WINDOW, *end) >= before * BACK_AT);
        back.map(|end| end - since)
    }

    /// The last point that is not after this time; else the first one.
    fn point(&self, at: Duration) -> Option<&Point> {
        let after = self.points.partition_point(|point| point.at <= at);
        self.points.get(after.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// One point each 10 ms, up to `ms`, of two flows of which one reads twice as much; `rate` in bytes
    /// per millisecond.
    fn series(ms: u64, rate: impl Fn(u64) -> u64) -> Series {
        let mut series = Series::default();
        let mut bytes = 0;
        for at in (0..=ms).step_by(10) {
            series.add(Duration::from_millis(at), vec![bytes, 2 * bytes]);
            bytes += 10 * rate(at);
        }
        series
    }

    #[test]
    fn rates_are_those_between_the_two_times() {
        let series = series(1000, |at| if at < 500 { 1 } else { 3 });
        assert_eq!(series.rates(Duration::ZERO, 500 * MS), [8_000.0, 16_000.0]);
        assert_eq!(series.rate(500 * MS, 1000 * MS), 72_000.0);
        assert_eq!(series.rate(500 * MS, 5000 * MS), 72_000.0);
        assert!(Series::default().rates(Duration::ZERO, MS).is_empty());
    }

    #[test]
    fn a_rate_is_back_when_a_whole_window_has_it() {
        // Away from 1000 to 1500 ms, though the outage ended at 1200.
        let series = series(3000, |at| if (1000..1500).contains(&at) { 0 } else { 10 });
        let before = series.rate(Duration::ZERO, 1000 * MS);
        // 180 ms of the window have the rate at 1680.
        assert_eq!(series.recovery(1200 * MS, before), Some(480 * MS));
        assert_eq!(series.recovery(1200 * MS, before * 2.0), None);
    }
}
