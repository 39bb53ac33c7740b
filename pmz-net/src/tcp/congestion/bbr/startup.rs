//! When Startup has filled the path: the bandwidth stops growing.
//!
//! The third version also leaves Startup when a round loses 2 % or more. Simulated, that costs more than it
//! saves: 20 Mbit/s with 200 ms and 2 % of chance loss fell from 0.98 of the link to 0.76, and to 0.27 with some
//! seeds. Asking in the same round for no growth and a loss of a fifth is harmless there, and halves what
//! Startup loses at a queue as long as the path; but a flow that joined eight others then had 0.2 of its fair
//! share in its first two seconds and 0.6 in the next ten, where the first version takes more than its share
//! from the start. So losses do not end it.

use super::scale;

/// A round that grows by less than a quarter has not grown: doubling what is sent should do more.
const GROWTH: (u64, u64) = (5, 4);
/// So many rounds without growth: a receiver's window that opens late or a lost burst can hold up one or two.
const ROUNDS: u32 = 3;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FullPipe {
    bandwidth: u64,
    rounds: u32,
    full: bool,
}

impl FullPipe {
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// A round is over that the application did not limit. `marked`: the path said in it that its queue grows,
    /// and together with a bandwidth that does not, once is enough.
    pub(super) fn on_round(&mut self, bandwidth: u64, marked: bool) {
        if self.full {
            return;
        }
        if bandwidth >= scale(self.bandwidth, GROWTH.0, GROWTH.1) {
            self.bandwidth = bandwidth;
            self.rounds = 0;
            return;
        }
        self.rounds += 1;
        self.full = self.rounds >= ROUNDS || marked;
    }

    /// Growth counts from here; a path that was full stays so.
    pub(super) fn forget(&mut self) {
        self.bandwidth = 0;
        self.rounds = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_rounds_without_a_quarter_more_fill_the_path() {
        let mut pipe = FullPipe::default();
        for bandwidth in [100, 200, 249, 249, 250, 300, 311] {
            pipe.on_round(bandwidth, false);
            assert!(!pipe.is_full(), "{bandwidth}");
        }
        pipe.on_round(311, false);
        assert!(pipe.is_full());
        pipe.forget();
        assert!(pipe.is_full());
    }

    #[test]
    fn with_a_mark_one_round_without_growth_is_enough() {
        let mut pipe = FullPipe::default();
        pipe.on_round(100, true);
        pipe.on_round(200, true);
        assert!(!pipe.is_full());
        pipe.on_round(220, true);
        assert!(pipe.is_full());
    }
}
