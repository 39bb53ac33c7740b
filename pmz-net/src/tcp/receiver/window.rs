//! How wide the window is: as wide as the rate at which the application takes bytes asks for.

use std::time::{Duration, Instant};

use super::super::memory::Account;

/// The first window: more than any initial congestion window (RFC 6928), and doubled twice within the first
/// round trip that fills it.
const INITIAL: u64 = 128 << 10;
/// No window is smaller, whatever memory is left.
const MIN: u64 = 16 << 10;
/// A connection's window is at most this share of the memory that its peer has left.
const SHARE: usize = 16;
/// Before a round trip was measured.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
const MIN_RTT: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct Window {
    account: Account,
    max: u64,
    size: u64,
    /// Since when bytes are counted, and how many the application has taken since.
    since: Instant,
    taken: u64,
    rtt: Duration,
}

impl Window {
    pub(super) fn new(now: Instant, account: Account, max: u64) -> Self {
        Self {
            account,
            max: max.max(MIN),
            size: INITIAL.min(max.max(MIN)),
            since: now,
            taken: 0,
            rtt: DEFAULT_RTT,
        }
    }

    /// The application has taken bytes. A sender in slow start doubles what it sends within a round trip, and
    /// BBR even more: four times what was taken in the last one never holds it up.
    pub(super) fn consumed(&mut self, now: Instant, bytes: u64, rtt: Option<Duration>) {
        if let Some(rtt) = rtt {
            self.rtt = rtt.max(MIN_RTT);
        }
        self.taken += bytes;
        if 4 * self.taken > self.size {
            self.size = (4 * self.taken).min(self.max);
        }
        if now.saturating_duration_since(self.since) >= self.rtt {
            self.since = now;
            self.taken = 0;
        }
    }

    /// How many bytes may come before the application takes some; `unread` wait already.
    pub(super) fn size(&self, unread: u64) -> u64 {
        let share = (self.account.left() / SHARE) as u64 + unread;
        self.size.min(share.max(MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::memory::Stock;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn window(now: Instant, memory: usize) -> Window {
        let account = Stock::new(memory).account(memory);
        Window::new(now, account, 8 << 20)
    }

    #[test]
    fn it_grows_with_what_the_application_takes_in_a_round_trip_and_no_further() {
        let start = Instant::now();
        let mut window = window(start, 1 << 30);
        for i in 0..100 {
            window.consumed(start + i * 10 * MS, 250_000, Some(40 * MS));
        }
        let size = window.size(0);
        assert!((4_000_000..=5_100_000).contains(&size), "{size}");
    }

    #[test]
    fn a_slow_reader_gets_no_more_than_the_first_window() {
        let start = Instant::now();
        let mut window = window(start, 1 << 30);
        for i in 0..1000 {
            window.consumed(start + i * 10 * MS, 1000, Some(40 * MS));
        }
        assert_eq!(window.size(0), INITIAL);
    }

    #[test]
    fn little_memory_makes_small_windows() {
        let now = Instant::now();
        assert_eq!(window(now, 1 << 20).size(0), 64 << 10);
        assert_eq!(window(now, 1 << 10).size(0), MIN);
    }
}
