//! What a segment that came does to a connection (RFC 9293, 3.10.7).

use std::time::Instant;

use super::super::header::{self, Header};
use super::super::sender::Acknowledgement;
use super::super::sequence::Space;
use super::{BadSegment, Connection, State, Syn};

/// Sequence numbers further than this from what is expected are nobody's honest mistake (RFC 7323, 2.3: no
/// window is larger).
const PLAUSIBLE: u64 = 1 << 30;

/// A segment may be so much older, by its timestamp's clock, than the latest one in order: one that was sent
/// again, and so fills a gap, may have overtaken it. RFC 7323 would have it thrown away, and the sender takes
/// it for lost. Sequence numbers need far longer than these milliseconds to come round.
const OVERTAKEN: i32 = 100;

/// What the sack option says.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    blocks: [(u64, u64); 3],
    count: usize,
    /// What arrived twice.
    duplicate: Option<(u64, u64)>,
}

impl Told {
    fn blocks(&self) -> &[(u64, u64)] {
        &self.blocks[..self.count]
    }
}

/// Where a segment lies, in counted numbers.
#[derive(Clone, Copy)]
struct Place {
    start: u64,
    /// Behind its payload.
    end: u64,
}

impl Connection {
    /// Takes a segment of this connection, an IP packet without IP options. Payload that is in order, with
    /// nothing waiting before it, is shown to `direct`, which says how many bytes of it it took; the rest is
    /// kept.
    ///
    /// # Errors
    /// When the segment is malformed or fits nothing that was ever sent.
    pub fn handle_segment(
        &mut self,
        now: Instant,
        packet: &[u8],
        direct: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Result<(), BadSegment> {
        let (header, payload) = header::read(packet).ok_or(BadSegment)?;
        let payload = packet.get(payload).ok_or(BadSegment)?;
        match self.state {
            State::Closed => Ok(()),
            State::SynSent => self.answer(now, &header),
            _ => self.synchronised(now, &header, payload, direct),
        }
    }

    /// The answer to our SYN (RFC 9293, 3.10.7.3).
    fn answer(&mut self, now: Instant, header: &Header) -> Result<(), BadSegment> {
        let flags = header.flags;
        let acknowledges = flags.ack && header.ack == self.ours.wire(1) && self.sender.next() == 1;
        if flags.ack && !acknowledges {
            return Err(BadSegment);
        }
        if flags.rst {
            if acknowledges {
                self.reset = true;
                self.state = State::Closed;
            }
            return Ok(());
        }
        if !flags.syn {
            return Err(BadSegment);
        }
        self.take_syn(now, &Syn::from(header));
        self.heard(now);
        if !acknowledges {
            // Both opened at once (RFC 9293, 3.5): our SYN goes out again, now with an acknowledgement.
            self.state = State::SynReceived;
            self.sender.resend_syn();
            return Ok(());
        }
        self.acknowledged(now, header, 1, true, false);
        self.established();
        self.receiver.acknowledge_now();
        Ok(())
    }

    fn synchronised(
        &mut self,
        now: Instant,
        header: &Header,
        payload: &[u8],
        direct: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Result<(), BadSegment> {
        let flags = header.flags;
        let next = self.receiver.next();
        let start = self.theirs.number(header.seq, next);
        if flags.syn {
            return self.another_syn(now, header, start);
        }
        let start = start.ok_or(BadSegment)?;
        if start.abs_diff(next) > PLAUSIBLE {
            return Err(BadSegment);
        }
        let place = Place {
            start,
            end: start + payload.len() as u64,
        };
        if flags.rst {
            self.take_reset(now, place);
            return Ok(());
        }
        if self.is_stale(header) {
            self.challenge(now);
            return Ok(());
        }
        if !self.is_acceptable(place, flags.fin) {
            self.unacceptable(now, place, payload, direct);
            if place.start != next {
                return Ok(());
            }
        }
        if !flags.ack {
            return Err(BadSegment);
        }
        self.heard(now);
        self.take_stamp(header, start);
        let bare = payload.is_empty() && !flags.fin;
        self.take_acknowledgement(now, header, start, bare)?;
        if matches!(
            self.state,
            State::Established | State::FinWait1 | State::FinWait2
        ) {
            self.take_payload(now, header, place, payload, direct);
        } else if flags.fin {
            // Once more: our acknowledgement was lost.
            self.receiver.acknowledge_now();
        }
        Ok(())
    }

    /// A SYN on a connection that is there: the one that opened it, again, or somebody who lost its state
    /// and will reset ours when told of it (RFC 5961, 4).
    fn another_syn(
        &mut self,
        now: Instant,
        header: &Header,
        start: Option<u64>,
    ) -> Result<(), BadSegment> {
        if self.state == State::SynReceived && start == Some(0) {
            if self.active && header.flags.ack {
                // The other end's SYN-ACK, after both opened at once.
                self.receiver.acknowledge_now();
                return self.take_acknowledgement(now, header, 0, false);
            }
            self.sender.resend_syn();
        } else {
            self.challenge(now);
        }
        Ok(())
    }

    /// A reset counts where it stands exactly where the next byte would; elsewhere in the window it is
    /// answered (RFC 5961, 3).
    fn take_reset(&mut self, now: Instant, place: Place) {
        if place.start == self.receiver.next() {
            // Everything was said and acknowledged: nothing may be lost by it (RFC 1337).
            self.reset = self.state != State::TimeWait;
            self.state = State::Closed;
        } else if (self.receiver.next()..self.receiver.right()).contains(&place.start) {
            self.challenge(now);
        }
    }

    /// Whether its timestamp says that it is from the sequence numbers' turn before (PAWS, RFC 7323, 5).
    fn is_stale(&self, header: &Header) -> bool {
        self.options.stamps
            && header.timestamps.is_some_and(|stamps| {
                stamps.value.wrapping_sub(self.recent_stamp).cast_signed() < -OVERTAKEN
            })
    }

    /// RFC 9293, 3.10.7.4.
    fn is_acceptable(&self, place: Place, fin: bool) -> bool {
        let (next, right) = (self.receiver.next(), self.receiver.right());
        let end = place.end + u64::from(fin);
        if place.start == end {
            return (next..=right.max(next)).contains(&place.start);
        }
        place.start < right && end > next
    }

    /// Old data, data beyond the window, a probe: what is expected is said, and what came twice.
    fn unacceptable(
        &mut self,
        now: Instant,
        place: Place,
        payload: &[u8],
        direct: &mut dyn FnMut(&[u8]) -> usize,
    ) {
        if place.end <= self.receiver.next() && !payload.is_empty() {
            self.receiver
                .segment(now, place.start, payload, false, direct);
        } else {
            self.challenge(now);
        }
    }

    fn challenge(&mut self, now: Instant) {
        if self.challenges.may_send(now) {
            self.receiver.acknowledge_now();
        }
    }

    /// RFC 7323, 4.3.
    fn take_stamp(&mut self, header: &Header, start: u64) {
        if let Some(stamps) = header.timestamps
            && self.options.stamps
            && start <= self.receiver.acknowledged()
            && stamps.value.wrapping_sub(self.recent_stamp).cast_signed() > 0
        {
            self.recent_stamp = stamps.value;
        }
    }

    /// `bare`: it came without data.
    fn take_acknowledgement(
        &mut self,
        now: Instant,
        header: &Header,
        start: u64,
        bare: bool,
    ) -> Result<(), BadSegment> {
        let una = self.sender.una();
        let oldest = una.saturating_sub(self.sender.max_window().max(1 << 16));
        let number = self.ours.number(header.ack, una);
        // RFC 5961, 5.2.
        let Some(number) = number.filter(|n| (oldest..=self.sender.next()).contains(n)) else {
            self.challenge(now);
            return Err(BadSegment);
        };
        if self.state == State::SynReceived {
            if number == 0 {
                return Err(BadSegment);
            }
            self.established();
        }
        if number < una {
            // Overtaken by a later one: what it says of data behind gaps may stand in no other, since there is
            // room for three blocks only.
            let told = self.blocks(header, number);
            if !told.blocks().is_empty() {
                let ack = Acknowledgement {
                    number: una,
                    blocks: told.blocks(),
                    duplicate: told.duplicate,
                    repeats: false,
                    stamps: None,
                    marked: false,
                };
                self.sender.acknowledged(now, &ack);
            }
            return Ok(());
        }
        let (told_seq, told_ack) = self.window_told;
        // RFC 9293, 3.10.7.4, and as Linux has it: a window beside an old sequence number that belongs to an
        // acknowledgement newer than any. The one from before would end further right than was promised.
        let tells = number > una || start > told_seq || (start == told_seq && number >= told_ack);
        if tells {
            self.window_told = (start, number);
        }
        let window = u64::from(header.window) << self.their_shift;
        let repeats = bare && number == una && window == self.sender.window();
        self.acknowledged(now, header, number, tells, repeats);
        if self.sender.is_fin_acknowledged() {
            self.state = match self.state {
                State::FinWait1 => State::FinWait2,
                State::Closing => State::TimeWait,
                State::LastAck => State::Closed,
                other => other,
            };
        }
        Ok(())
    }

    /// The blocks of an acknowledgement of `number`, checked.
    fn blocks(&self, header: &Header, number: u64) -> Told {
        let mut told = Told::default();
        if !self.options.sack {
            return told;
        }
        let (una, next) = (self.sender.una(), self.sender.next());
        let blocks = header.sack.iter().flatten();
        let blocks = blocks.filter_map(|block| read_block(self.ours, *block, number, next));
        for (index, block) in blocks.enumerate() {
            let again = block.1 <= number
                || (index == 0 && encloses(&header.sack, self.ours, number, block));
            if again {
                if index == 0 {
                    told.duplicate = Some(block);
                }
            } else if block.0 >= number && block.1 > una {
                told.blocks[told.count] = (block.0.max(una), block.1);
                told.count += 1;
            }
        }
        told
    }

    /// Hands an acknowledgement to the sender, its blocks checked.
    fn acknowledged(
        &mut self,
        now: Instant,
        header: &Header,
        number: u64,
        tells_window: bool,
        repeats: bool,
    ) {
        let told = self.blocks(header, number);
        let stamps = header.timestamps.filter(|_| self.options.stamps);
        let ack = Acknowledgement {
            number,
            blocks: told.blocks(),
            duplicate: told.duplicate,
            repeats,
            stamps: stamps.map(|stamps| (stamps.echo, self.clock.now(now))),
            marked: self.options.ecn && header.flags.ece && !header.flags.syn,
        };
        self.sender.acknowledged(now, &ack);
        if tells_window {
            let shift = if header.flags.syn {
                0
            } else {
                self.their_shift
            };
            self.sender
                .set_window(now, u64::from(header.window) << shift);
        }
    }

    fn take_payload(
        &mut self,
        now: Instant,
        header: &Header,
        place: Place,
        payload: &[u8],
        direct: &mut dyn FnMut(&[u8]) -> usize,
    ) {
        if self.options.ecn {
            // RFC 3168, 6.1.3: reported until the sender says that it has reacted.
            self.report_marks = (self.report_marks && !header.flags.cwr) || header.ecn;
        }
        let right = self.receiver.right();
        let beyond = place.end.saturating_sub(right) as usize;
        let payload = &payload[..payload.len().saturating_sub(beyond)];
        let fin = header.flags.fin && beyond == 0;
        let taken = self
            .receiver
            .segment(now, place.start, payload, fin, direct);
        self.sender.refused(taken.refused as u64);
        if header.ecn && self.options.ecn {
            self.receiver.acknowledge_now();
        }
        if self.receiver.is_finished() {
            self.state = match self.state {
                State::Established => State::CloseWait,
                State::FinWait1 => State::Closing,
                State::FinWait2 => State::TimeWait,
                other => other,
            };
        }
    }

    fn established(&mut self) {
        self.state = if self.sender.is_closed() {
            State::FinWait1
        } else {
            State::Established
        };
    }

    fn heard(&mut self, now: Instant) {
        self.keep_alive_at = now + self.keep_alive;
        self.keep_alive_due = false;
    }
}

/// A block of the sack option, if it can be one: of what was sent, and not of another turn of the sequence
/// numbers. May lie before `acknowledged`: a duplicate.
fn read_block(
    space: Space,
    (start, end): (u32, u32),
    acknowledged: u64,
    sent: u64,
) -> Option<(u64, u64)> {
    let (start, end) = (
        space.number(start, acknowledged)?,
        space.number(end, acknowledged)?,
    );
    (start < end && end <= sent).then_some((start, end))
}

/// Whether the second block encloses this first one, which then is a duplicate (RFC 2883, 4).
fn encloses(blocks: &[Option<(u32, u32)>; 3], space: Space, near: u64, block: (u64, u64)) -> bool {
    let Some((start, end)) = blocks[1] else {
        return false;
    };
    match (space.number(start, near), space.number(end, near)) {
        (Some(start), Some(end)) => start <= block.0 && block.1 <= end,
        _ => false,
    }
}
