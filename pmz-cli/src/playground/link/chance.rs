//! A link's chances: what may happen to a packet, drawn before it is known what does.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::spec::LossBursts;

/// What was drawn for one packet, evenly spread; those that are no integers between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) loss: f64,
    pub(super) burst_loss: f64,
    pub(super) reorder: f64,
    pub(super) jitter: f64,
    pub(super) duplicate: f64,
    pub(super) corrupt: f64,
    /// Which bit is wrong, modulo their number.
    pub(super) bit: u32,
}

/// Where the draws come from.
#[derive(Debug)]
pub(super) struct Chances {
    /// Nobody has to be kept from guessing, and a draw is to cost next to nothing.
    rng: SmallRng,
    /// Packets that the present burst still takes.
    burst_left: u32,
}

impl Chances {
    /// The same seed makes the same draws.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            burst_left: 0,
        }
    }

    /// The next packet's. Each packet takes the same numbers from the generator, so that one property of
    /// a link doesn't change which packets another one hits.
    pub(super) fn draw(&mut self) -> Draw {
        Draw {
            loss: self.rng.random(),
            burst_loss: self.rng.random(),
            reorder: self.rng.random(),
            jitter: self.rng.random(),
            duplicate: self.rng.random(),
            corrupt: self.rng.random(),
            bit: self.rng.random(),
        }
    }

    /// Whether the packet that this was drawn for is one of a burst of losses.
    pub(super) fn in_burst(&mut self, draw: &Draw, bursts: Option<LossBursts>) -> bool {
        let Some(bursts) = bursts else {
            self.burst_left = 0;
            return false;
        };
        if self.burst_left == 0 && draw.burst_loss < bursts.share {
            self.burst_left = bursts.packets;
        }
        let lost = self.burst_left > 0;
        self.burst_left = self.burst_left.saturating_sub(1);
        lost
    }
}

/// Makes one bit of a packet wrong.
pub(super) fn flip(packet: &mut [u8], bit: u32) {
    let bit = bit as usize;
    let Some(place) = (bit / 8).checked_rem(packet.len()) else {
        return;
    };
    packet[place] ^= 1 << (bit % 8);
}
