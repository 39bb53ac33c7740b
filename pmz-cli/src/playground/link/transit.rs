//! Packets that are under way, in the order of their arrival.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Instant;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Transit {
    /// Those that arrive after all that were sent before them: nearly all.
    in_order: VecDeque<UnderWay>,
    others: BinaryHeap<Reverse<UnderWay>>,
    bytes: usize,
    next_number: u64,
}

/// A packet as it arrives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Packet {
    pub(super) bytes: Vec<u8>,
    /// One of its bits is wrong.
    pub(super) corrupt: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    arrival: Instant,
    /// Those that arrive at the same time keep their order.
    number: u64,
    packet: Packet,
}

impl Transit {
    /// Bytes of all packets.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sends a packet on its way.
    pub(super) fn send(&mut self, arrival: Instant, packet: Packet) {
        self.bytes += packet.bytes.len();
        let number = self.next_number;
        self.next_number += 1;
        let packet = UnderWay {
            arrival,
            number,
            packet,
        };
        match self.in_order.back() {
            Some(last) if arrival < last.arrival => self.others.push(Reverse(packet)),
            _ => self.in_order.push_back(packet),
        }
    }

    /// When the next packet arrives.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        let in_order = self.in_order.front().map(|next| next.arrival);
        let other = self.others.peek().map(|Reverse(next)| next.arrival);
        match (in_order, other) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next packet that has arrived by now.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Packet> {
        if self.next_arrival()? > now {
            return None;
        }
        let other_first = match (self.in_order.front(), self.others.peek()) {
            (Some(a), Some(Reverse(b))) => (b.arrival, b.number) < (a.arrival, a.number),
            (None, _) => true,
            (_, None) => false,
        };
        let next = if other_first {
            self.others.pop().map(|Reverse(next)| next)
        } else {
            self.in_order.pop_front()
        };
        let UnderWay { packet, .. } = next?;
        self.bytes -= packet.bytes.len();
        Some(packet)
    }
}
