//! What a peer says that follows no rule.

use super::super::program::Program;
use super::Machine;
use crate::wire::{ACK, FIN, PSH, RST, SYN, Segment, distance};

impl Machine {
    pub(super) fn segment(&mut self, program: &mut Program<'_>) -> Segment {
        let size = self.size().max(1);
        let kind = program.byte();
        let flags = match kind % 16 {
            0..=10 => ACK,
            11 => ACK | PSH,
            12 => ACK | FIN,
            13 => program.choose(&[RST, RST | ACK, SYN, SYN | ACK]),
            _ => program.byte() | if kind & 16 == 0 { ACK } else { 0 },
        };
        let seq_base = match kind >> 5 {
            0..=4 => self.told,
            5 => self.told_right,
            6 => self.given,
            _ => self.told.wrapping_add(10 * size),
        };
        let ack_base = match program.byte() % 4 {
            0 | 1 => self.acked,
            2 => self.next,
            _ => self
                .acked
                .wrapping_add((self.next.wrapping_sub(self.acked)) / 2),
        };
        let len = match program.byte() % 16 {
            0..=7 => 0,
            8 => 1,
            9 => u32::from(program.byte()),
            10..=13 => size.min(9000),
            14 => 2 * size.min(9000),
            _ => program.word() % 60_000,
        };
        let mut segment = Segment {
            flags,
            seq: seq_base.wrapping_add(program.offset(size)),
            ack: ack_base.wrapping_add(program.offset(size)),
            window: program.choose(&[65_535, 0, 1, 100, 1000, 1500, 20_000, 65_535]),
            payload: vec![0x5a; len as usize],
            ecn: program.byte() % 4,
            ..Segment::default()
        };
        if self.stamps || program.one_in(8) {
            let value = self.echo.wrapping_add(program.offset(1000));
            segment.stamps = Some((value, self.stamp.wrapping_sub(program.offset(10))));
        }
        for _ in 0..program.choose(&[0_u8, 0, 0, 1, 1, 2, 3, 4]) {
            let start = self.acked.wrapping_add(program.offset(size));
            let end = match program.byte() % 4 {
                0 | 1 => start.wrapping_add(program.offset(size)),
                2 => self.next,
                _ => start.wrapping_add(size),
            };
            segment.sack.push((start, end));
        }
        if segment.stamps.is_some() {
            segment.sack.truncate(3);
        }
        if program.one_in(16) {
            segment.raw_options = (0..program.byte() % 40).map(|_| program.byte()).collect();
        }
        if program.one_in(16) {
            segment.mss = Some(program.word() as u16);
        }
        segment
    }

    pub(super) fn feed(&mut self, segment: &Segment) {
        let packet = segment.packet(self.addresses[1], self.addresses[0]);
        self.feed_damaged(segment, &packet);
    }

    pub(super) fn feed_damaged(&mut self, segment: &Segment, packet: &[u8]) {
        let intact = Segment::read_hostile(packet);
        for told in intact.iter().chain([segment]) {
            self.note(told);
        }
        if std::env::var_os("PMZ_TCP_TRACE").is_some() {
            println!(
                "{:?} <- {segment:?} {:?}",
                self.now,
                intact.as_ref() == Some(segment)
            );
        }
        self.inputs += 1;
        self.fed += packet.len() as u64;
        let (instant, reads) = (self.instant(), self.reads);
        let mut taken = 0;
        let _ = self
            .connection
            .handle_segment(instant, packet, &mut |bytes| {
                let n = if reads { bytes.len() } else { 0 };
                taken += n as u64;
                n
            });
        self.read += taken;
        self.drain();
    }

    /// What the endpoint may believe of it.
    pub(super) fn note(&mut self, segment: &Segment) {
        let behind = distance(self.next, segment.ack);
        if segment.has(ACK) && (0..1 << 30).contains(&behind) {
            if distance(segment.ack, self.acked) > 0 {
                self.acked = segment.ack;
            }
            let shift = if segment.has(SYN) { 0 } else { self.shift };
            let right = segment.ack.wrapping_add(u32::from(segment.window) << shift);
            if distance(right, self.right) > 0 {
                self.right = right;
            }
        }
        let end = segment.seq.wrapping_add(segment.len());
        let near = distance(segment.seq, self.told).abs() <= 1 << 29;
        if near && distance(end, self.given) > 0 {
            self.given = end;
        }
    }
}
