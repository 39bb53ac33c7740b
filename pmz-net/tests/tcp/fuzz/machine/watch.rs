//! What the endpoint may say, by what it was told.

use super::{MEMORY, Machine, OURS, RESERVED, THEIRS};
use crate::wire::{ACK, RST, SYN, Segment, complete, distance};

impl Machine {
    /// Takes everything that is to go out; packets.
    pub(super) fn drain(&mut self) -> u64 {
        let mut packets = 0;
        let instant = self.instant();
        while let Some(written) = self.connection.poll_transmit(instant, &mut self.out) {
            packets += 1;
            assert!(packets < 20_000, "no end of packets");
            let len = complete(&self.connection, written, &mut self.out);
            let segment = Segment::read(&self.out[..len]);
            self.sent(segment);
        }
        packets
    }

    pub(super) fn sent(&mut self, segment: Segment) {
        if std::env::var_os("PMZ_TCP_TRACE").is_some() {
            println!("{:?} -> {segment:?}", self.now);
        }
        self.packets += 1;
        self.sent_anything = true;
        if segment.has(SYN) {
            self.our_shift = segment.scale.unwrap_or(0);
        }
        let end = segment.seq.wrapping_add(segment.len());
        if segment.has(RST) {
            self.resets += 1;
            assert_eq!(self.resets, 1, "one reset is enough");
            self.last = Some(segment);
            return;
        }
        assert!(self.resets == 0, "a word after the reset");
        if !segment.payload.is_empty() {
            let beyond = distance(end, self.right);
            // A FIN behind the payload may stand there.
            assert!(beyond <= 0, "{beyond} bytes beyond the window: {segment:?}");
            let first = u64::from(segment.seq.wrapping_sub(OURS.wrapping_add(1)));
            for (byte, at) in segment.payload.iter().zip(first..) {
                assert!(at < self.written, "a byte that nobody wrote");
                assert_eq!(*byte, at as u8 ^ 0x33, "byte {at}");
            }
        } else if segment.len() == 0 {
            self.bare += 1;
        }
        if distance(end, self.next) > 0 {
            self.next = end;
        }
        if let Some((value, echo)) = segment.stamps {
            self.stamp = value;
            self.echo = echo;
        }
        if segment.has(ACK) {
            let before = std::mem::replace(&mut self.told, segment.ack);
            let known = before != THEIRS.wrapping_add(1) || self.packets > 1;
            assert!(
                !known || distance(self.told, before) >= 0,
                "acknowledges less"
            );
            assert!(
                distance(self.told, self.given) <= 0,
                "acknowledges {} of {}",
                self.told.wrapping_sub(THEIRS),
                self.given.wrapping_sub(THEIRS),
            );
            let shift = if segment.has(SYN) {
                0
            } else {
                self.shift_told()
            };
            let right = segment.ack.wrapping_add(u32::from(segment.window) << shift);
            assert!(
                distance(right, self.told_right) >= 0,
                "takes the window back"
            );
            self.told_right = right;
        }
        self.last = Some(segment);
    }

    /// Our windows are scaled only if the peer's are.
    pub(super) fn shift_told(&self) -> u8 {
        if self.scaled { self.our_shift } else { 0 }
    }

    pub(super) fn check(&mut self) {
        let instant = self.instant();
        if self.timer().is_some_and(|at| at <= self.now) && self.drain() == 0 {
            let still = self.timer().is_some_and(|at| at <= self.now);
            assert!(!still, "always now: {:?}", self.connection);
        }
        let used = self.stock.used();
        assert!(used <= MEMORY + RESERVED, "{used} bytes of memory");
        let answers = self.inputs + self.wakes + 2 * self.written / 16 + 100;
        assert!(
            self.bare <= answers,
            "{} acknowledgements of {}",
            self.bare,
            self.inputs
        );
        assert!(self.read <= self.fed, "bytes out of nothing");
        let _ = self.connection.owes_acknowledgement(instant);
        let _ = self.connection.bare_acknowledgement();
    }
}
