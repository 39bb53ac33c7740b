//! What a peer says that follows all rules.

use std::time::Duration;

use pmz_net::tcp::State;

use super::{Machine, OURS, PATIENCE};
use crate::wire::{ACK, Segment, complete, distance};

impl Machine {
    /// From now on the peer is honest: it gets everything that was written, unless the connection is gone.
    pub(in super::super) fn finish(&mut self) {
        let handshake = !self.connection.is_established();
        let over = matches!(self.connection.state(), State::Closed | State::TimeWait);
        if over || self.aborted || handshake || self.connection.is_reset() {
            return;
        }
        self.connection.close();
        self.closed = true;
        self.reads = true;
        let end = OURS.wrapping_add(self.written as u32).wrapping_add(2);
        // What the peer knows of its own timestamps may be old: the answer to a probe tells.
        self.pass(Duration::from_secs(2));
        let probe = Segment {
            flags: ACK,
            seq: self.told.wrapping_sub(1),
            ack: self.acked,
            stamps: self.stamps.then_some((self.echo, self.stamp)),
            ..Segment::default()
        };
        self.feed(&probe);
        let mut acked = self.acked;
        let until = self.now + PATIENCE;
        while self.now < until && !self.connection.is_reset() {
            let n = self.connection.received().len();
            let instant = self.instant();
            self.connection.consume(instant, n);
            let before = acked;
            self.honest_acknowledgement(acked);
            self.honest_drain(&mut acked);
            if acked == end {
                self.honest_acknowledgement(acked);
                assert!(
                    !self.connection.awaits_acknowledgement(),
                    "all was acknowledged"
                );
                return;
            }
            if acked == before {
                self.pass_to_timer();
                self.honest_drain(&mut acked);
            }
            self.now += Duration::from_millis(100);
        }
        let gone = self.connection.is_reset();
        assert!(gone, "{acked} of {end} in an hour: {:?}", self.connection);
    }

    pub(super) fn honest_acknowledgement(&mut self, acked: u32) {
        let segment = Segment {
            flags: ACK,
            // Behind all that was said before: else its window would be an old one.
            seq: self.told_right,
            ack: acked,
            window: 60_000,
            stamps: self.stamps.then_some((self.echo, self.stamp)),
            ..Segment::default()
        };
        self.note(&segment);
        let packet = segment.packet(self.addresses[1], self.addresses[0]);
        let instant = self.instant();
        self.inputs += 1;
        let _ = self
            .connection
            .handle_segment(instant, &packet, &mut |bytes| bytes.len());
    }

    pub(super) fn honest_drain(&mut self, acked: &mut u32) {
        let instant = self.instant();
        for _ in 0..20_000 {
            let Some(written) = self.connection.poll_transmit(instant, &mut self.out) else {
                return;
            };
            let len = complete(&self.connection, written, &mut self.out);
            let segment = Segment::read(&self.out[..len]);
            let (start, end) = (segment.seq, segment.seq.wrapping_add(segment.len()));
            self.kept.push((start, end));
            let mut again = true;
            while std::mem::take(&mut again) {
                for &(start, end) in &self.kept {
                    if distance(start, *acked) <= 0 && distance(end, *acked) > 0 {
                        *acked = end;
                        again = true;
                    }
                }
                self.kept.retain(|(_, end)| distance(*end, *acked) > 0);
            }
            self.sent(segment);
        }
        panic!("no end of packets");
    }
}
