//! What one end may say, by what it has heard. Sequence numbers are counted from the SYN's on.

use super::app::pattern;
use super::ensure;
use crate::wire::{ACK, FIN, RST, SYN, Segment, distance};

pub(super) struct Watch {
    /// This end's direction.
    direction: usize,
    /// Bytes that it sends, and that it is sent.
    total: u64,
    expected: u64,
    pub(super) packets: u64,
    ours: Option<u32>,
    theirs: Option<u32>,
    /// Shifts that the SYNs told.
    our_shift: Option<u8>,
    their_shift: Option<u8>,
    /// Behind all that was sent.
    next: u64,
    /// The acknowledgement and the window's right edge that were told last.
    told: u64,
    told_right: u64,
    /// The right edge that was heard of, at most.
    heard_right: u64,
    heard_ack: u64,
    stamp: Option<u32>,
    heard_stamp: Option<u32>,
    /// Ranges of the peer's numbers that came in.
    came: Vec<(u64, u64)>,
}

impl Watch {
    pub(super) fn new(direction: usize, total: u64, expected: u64) -> Self {
        Self {
            direction,
            total,
            expected,
            packets: 0,
            ours: None,
            theirs: None,
            our_shift: None,
            their_shift: None,
            next: 0,
            told: 0,
            told_right: 0,
            heard_right: 0,
            heard_ack: 0,
            stamp: None,
            heard_stamp: None,
            came: Vec::new(),
        }
    }

    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// What the peer's window has left.
    pub(super) fn heard_window(&self) -> i64 {
        self.heard_right as i64 - self.next as i64
    }

    fn shift(&self, of: Option<u8>, segment: &Segment) -> u8 {
        match (self.our_shift, self.their_shift) {
            (Some(_), Some(_)) if !segment.has(SYN) => of.unwrap_or(0),
            _ => 0,
        }
    }

    /// A segment of the peer comes in.
    pub(super) fn delivered(&mut self, segment: &Segment) {
        if segment.has(RST) {
            return;
        }
        if segment.has(SYN) {
            self.theirs = Some(segment.seq);
            self.their_shift = segment.scale;
        }
        let Some(isn) = self.theirs else { return };
        let near = self.came.first().map_or(0, |(_, end)| *end);
        let start = number(segment.seq, isn, near);
        self.arrived(start, start + u64::from(segment.len()));
        if let Some((value, _)) = segment.stamps {
            let newer = self.heard_stamp.is_none_or(|old| distance(value, old) > 0);
            if newer {
                self.heard_stamp = Some(value);
            }
        }
        let Some(ours) = self.ours.filter(|_| segment.has(ACK)) else {
            return;
        };
        let ack = number(segment.ack, ours, self.next);
        let right = ack + (u64::from(segment.window) << self.shift(self.their_shift, segment));
        self.heard_right = self.heard_right.max(right);
        self.heard_ack = self.heard_ack.max(ack);
    }

    fn arrived(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let from = self.came.partition_point(|range| range.1 < start);
        let to = self.came.partition_point(|range| range.0 <= end);
        let merged = self.came[from..to].iter().fold((start, end), |all, range| {
            (all.0.min(range.0), all.1.max(range.1))
        });
        self.came.splice(from..to, [merged]);
    }

    /// Up to where everything came in.
    fn whole(&self) -> u64 {
        self.came
            .first()
            .filter(|range| range.0 == 0)
            .map_or(0, |range| range.1)
    }

    /// This end sends a segment, not cut yet.
    pub(super) fn sends(&mut self, segment: &Segment, closed: bool) -> Result<(), String> {
        self.packets += 1;
        if segment.has(SYN) {
            ensure!(
                self.ours.is_none_or(|isn| isn == segment.seq),
                "another SYN"
            );
            self.ours = Some(segment.seq);
            self.our_shift = segment.scale;
        }
        if self.ours.is_none() && segment.has(RST) {
            let refused = number(segment.ack, self.theirs.unwrap_or(0), 1);
            ensure!(refused == 1, "refuses another SYN");
            return Ok(());
        }
        let isn = self.ours.ok_or("not a SYN first")?;
        self.data(segment, isn, closed)?;
        if segment.has(RST) {
            return Ok(());
        }
        let Some(theirs) = self.theirs else {
            ensure!(!segment.has(ACK), "an acknowledgement of nothing");
            return Ok(());
        };
        ensure!(segment.has(ACK), "no acknowledgement");
        self.acknowledgement(segment, theirs)
    }

    fn data(&mut self, segment: &Segment, isn: u32, closed: bool) -> Result<(), String> {
        let start = number(segment.seq, isn, self.next);
        let end = start + u64::from(segment.len());
        ensure!(start <= self.next, "a gap before {start}");
        self.next = self.next.max(end);
        for (byte, at) in segment.payload.iter().zip(start..) {
            ensure!(at >= 1 && at <= self.total, "a byte at {at}");
            let right = pattern(self.direction, at - 1);
            ensure!(*byte == right, "byte {at} is {byte}, not {right}");
        }
        if segment.has(FIN) {
            ensure!(closed && end == self.total + 2, "a FIN before {end}");
        }
        let heard = self.heard_right;
        if end > start && !segment.has(SYN) {
            ensure!(end <= heard, "{start} to {end}, the window ends at {heard}");
        }
        if let Some((value, echo)) = segment.stamps {
            let back = self.stamp.is_some_and(|before| distance(value, before) < 0);
            ensure!(!back, "timestamps go back");
            self.stamp = Some(value);
            let known = self
                .heard_stamp
                .map_or(echo == 0, |heard| distance(echo, heard) <= 0);
            ensure!(
                known || segment.has(RST),
                "the echo of what was never heard"
            );
        }
        Ok(())
    }

    fn acknowledgement(&mut self, segment: &Segment, theirs: u32) -> Result<(), String> {
        let whole = self.whole();
        let ack = number(segment.ack, theirs, whole);
        ensure!(ack <= whole, "acknowledges {ack}, {whole} came in");
        let before = std::mem::replace(&mut self.told, ack);
        ensure!(ack >= before, "acknowledges {ack} after {before}");
        let right = ack + (u64::from(segment.window) << self.shift(self.our_shift, segment));
        let before = std::mem::replace(&mut self.told_right, right);
        ensure!(
            right >= before,
            "the window's edge goes back from {before} to {right}"
        );
        for (index, (start, end)) in segment.sack.iter().enumerate() {
            let (start, end) = (number(*start, theirs, whole), number(*end, theirs, whole));
            ensure!(start < end, "a block from {start} to {end}");
            let came = self
                .came
                .iter()
                .any(|range| range.0 <= start && end <= range.1);
            ensure!(came, "the block from {start} to {end} never came");
            ensure!(index == 0 || start > ack, "an old block behind the first");
        }
        Ok(())
    }
}

/// The number that stands nearest to another one.
fn number(wire: u32, isn: u32, near: u64) -> u64 {
    let distance = distance(wire, isn.wrapping_add(near as u32));
    near.checked_add_signed(distance).unwrap_or(0)
}
