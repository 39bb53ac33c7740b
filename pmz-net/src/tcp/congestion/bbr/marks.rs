//! Congestion marks (RFC 3168). The first version of BBR does not react to them, as it does not to losses; but a
//! mark is never chance, and RFC 3168 lets nobody announce that it understands them who does not. The queue
//! that a mark complains of is what the window holds above the product of rate and round trip, so that part
//! is what gives way: the rate, and with it the share of the bottleneck, does not.

use super::UNIT;

/// Of the window, in thousandths, that a marked round leaves (RFC 8511 has 0.85 for mild reactions).
const LEFT: u64 = 850;
/// What an unmarked round gives back.
const GIVEN_BACK: u64 = 50;
/// Half is all that can be above the product.
const LEAST: u64 = 500;

#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// The running round has marks.
    marked: bool,
    /// The one before had.
    marked_before: bool,
    bound: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            marked: false,
            marked_before: false,
            bound: UNIT,
        }
    }
}

impl Marks {
    pub(super) fn on_ack(&mut self, marked: bool, round_began: bool) {
        if round_began {
            self.marked_before = self.marked;
            self.marked = false;
            self.bound = if self.marked_before {
                (self.bound * LEFT / UNIT).max(LEAST)
            } else {
                (self.bound + GIVEN_BACK).min(UNIT)
            };
        }
        self.marked |= marked;
    }

    /// Whether the round that ended last had marks.
    pub(super) fn marked_round(&self) -> bool {
        self.marked_before
    }

    /// What may be used of the window, in thousandths, if not all.
    pub(super) fn bound(&self) -> Option<u64> {
        (self.bound < UNIT).then_some(self.bound)
    }
}
