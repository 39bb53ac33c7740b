//! Bytes, times and rates, with results that stop at the ends of their range instead of wrapping: what comes
//! in was measured on a network, and some of it was written by the peer.

use std::time::Duration;

/// No window is larger: the largest that a TCP header can announce (RFC 7323, section 2.3).
pub(super) const MAX_WINDOW: u64 = 65_535 << 14;

/// `value * numerator / denominator`; a denominator of 0 counts as 1.
pub(super) fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Nanoseconds, of which 64 bits hold 584 years.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Bytes per second; no time at all counts as a nanosecond.
pub(super) fn rate(bytes: u64, interval: Duration) -> u64 {
    scale(bytes, 1_000_000_000, nanoseconds(interval))
}

/// Bytes that `rate` bytes per second bring in `time`.
pub(super) fn bytes_in(rate: u64, time: Duration) -> u64 {
    scale(rate, nanoseconds(time), 1_000_000_000)
}

/// What is sent in one go lasts so long at the pacing rate. Linux takes a millisecond; half of it costs little
/// more and overflows short queues far less: before one of 10 packets at 200 Mbit/s, BBR has 0.59 of the link
/// with a millisecond and 0.95 with half of it (simulated).
pub(crate) const BURST_TIME: Duration = Duration::from_micros(500);

/// Payload that is sent in one go: what [`BURST_TIME`] brings at `pacing_rate` bytes per second, in whole
/// segments.
pub(crate) fn burst(pacing_rate: u64, segment_size: u64) -> u64 {
    segments_in(BURST_TIME, pacing_rate, segment_size)
}

/// Payload that Linux sends in one go: what a millisecond brings. BBR's window has room for some of it.
pub(super) fn quantum(pacing_rate: u64, segment_size: u64) -> u64 {
    segments_in(Duration::from_millis(1), pacing_rate, segment_size)
}

/// What this time brings, in whole segments, and never more than fits a super-packet.
///
/// Two segments at least, so that a receiver which acknowledges every second one does so at once; one where
/// two would hold up a slow link (below 1.2 Mbit/s).
fn segments_in(time: Duration, pacing_rate: u64, segment_size: u64) -> u64 {
    const LARGEST: u64 = 64_000;
    let segment = segment_size.max(1);
    let least = if pacing_rate < 150_000 { 1 } else { 2 };
    let segments = bytes_in(pacing_rate, time).min(LARGEST) / segment;
    segments.max(least).saturating_mul(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stop_at_the_ends_of_their_range() {
        assert_eq!(scale(u64::MAX, u64::MAX, 1), u64::MAX);
        assert_eq!(scale(7, 3, 0), 21);
        assert_eq!(rate(1, Duration::ZERO), 1_000_000_000);
        assert_eq!(rate(u64::MAX, Duration::ZERO), u64::MAX);
        assert_eq!(bytes_in(u64::MAX, Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_burst_is_its_time_in_whole_segments() {
        // 400 Mbit/s: 25,000 bytes in half a millisecond.
        assert_eq!(burst(50_000_000, 1_448), 17 * 1_448);
        assert_eq!(burst(1_000_000, 1_448), 2 * 1_448);
        assert_eq!(burst(100_000, 1_448), 1_448);
        assert!(burst(u64::MAX, 1_448) <= 65_535);
        assert_eq!(burst(u64::MAX, 65_536), 2 * 65_536);
    }
}
