//! One direction of a link. Sans-IO: packets and time come in as arguments.

#[cfg(test)]
mod tests;

use std::time::Instant;

use pmz_net::packet::mark_congestion;

use super::bottleneck::Bottleneck;
use super::chance::{Chances, Draw, flip};
use super::spec::LinkSpec;
use super::transit::{Packet, Transit};

/// What is under way at most: a second at 1 Gbit/s, and still little memory.
const MAX_BYTES: usize = 128 << 20;

const IPPROTO_UDP: u8 = 17;

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipeCounters {
    /// Came out at the other end, copies included.
    pub delivered: u64,
    /// Lost by chance, alone or in a burst, or as UDP that is blocked.
    pub lost: u64,
    /// Found the queue full, or exceeded the policer's rate.
    pub dropped: u64,
    /// Got the mark for congestion.
    pub marked: u64,
    /// Had a bit made wrong.
    pub corrupted: u64,
    /// Were sent twice.
    pub duplicated: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub(super) struct Pipe {
    spec: LinkSpec,
    chances: Chances,
    bottleneck: Bottleneck,
    /// When the last packet that keeps the order arrives.
    last_arrival: Option<Instant>,
    transit: Transit,
    counters: PipeCounters,
}

impl Pipe {
    pub(super) fn new(spec: LinkSpec, seed: u64) -> Self {
        Self {
            spec,
            chances: Chances::new(seed),
            bottleneck: Bottleneck::default(),
            last_arrival: None,
            transit: Transit::default(),
            counters: PipeCounters::default(),
        }
    }

    /// Packets that are under way arrive as it was.
    pub(super) fn set_spec(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    pub(super) fn counters(&self) -> PipeCounters {
        self.counters
    }

    /// A packet goes in. Gives it back if it gets no further.
    pub(super) fn handle_packet(&mut self, now: Instant, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let draw = self.chances.draw();
        let in_burst = self.chances.in_burst(&draw, self.spec.burst_loss);
        if in_burst || draw.loss < self.spec.loss || (self.spec.block_udp && is_udp(&bytes)) {
            self.counters.lost += 1;
            return Some(bytes);
        }
        let passage = if self.transit.bytes() + bytes.len() > MAX_BYTES {
            None
        } else {
            self.bottleneck.pass(&self.spec, now, bytes.len())
        };
        let Some(passage) = passage else {
            self.counters.dropped += 1;
            return Some(bytes);
        };
        if self.spec.ecn.is_some_and(|most| passage.wait > most) && mark_congestion(&mut bytes) {
            self.counters.marked += 1;
        }
        let corrupt = draw.corrupt < self.spec.corrupt;
        if corrupt {
            flip(&mut bytes, draw.bit);
            self.counters.corrupted += 1;
        }
        let packet = Packet { bytes, corrupt };
        let arrival = self.arrival(passage.sent, &draw);
        if draw.duplicate < self.spec.duplicate {
            self.counters.duplicated += 1;
            self.transit.send(arrival, packet.clone());
        }
        self.transit.send(arrival, packet);
        None
    }

    /// When a packet arrives that has been sent by then.
    fn arrival(&mut self, sent: Instant, draw: &Draw) -> Instant {
        if draw.reorder < self.spec.reorder {
            return sent;
        }
        let jitter = self.spec.jitter.mul_f64(2.0 * draw.jitter);
        let arrival = sent + (self.spec.delay + jitter).saturating_sub(self.spec.jitter);
        if self.spec.disorder {
            return arrival;
        }
        let arrival = self.last_arrival.map_or(arrival, |last| last.max(arrival));
        self.last_arrival = Some(arrival);
        arrival
    }

    /// The next packet that has arrived by now.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Packet> {
        let packet = self.transit.arrived(now)?;
        self.counters.delivered += 1;
        Some(packet)
    }

    /// When the next packet arrives.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.transit.next_arrival()
    }
}

/// Whether it is UDP over IPv4, or over IPv6 without extension headers.
fn is_udp(packet: &[u8]) -> bool {
    let protocol = match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9),
        Some(6) => packet.get(6),
        _ => None,
    };
    protocol == Some(&IPPROTO_UDP)
}
