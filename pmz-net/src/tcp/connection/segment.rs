//! What a segment that came does to a connection (RFC 9293, 3.10.7).

use std::time::Instant;

use super::super::header::{self, Header};
use super::{BadSegment, Connection, State, Syn};

/// Sequence numbers further than this from what is expected are nobody's honest mistake (RFC 7323, 2.3: no
/// window is larger).
const PLAUSIBLE: u64 = 1 << 30;

/// A segment may be so much older, by its timestamp's clock, than the latest one in order: one that was sent
/// again, and so fills a gap, may have overtaken it. RFC 7323 would have it thrown away, and the sender takes
/// it for lost. Sequence numbers need far longer than these milliseconds to come round.
const OVERTAKEN: i32 = 100;

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

    pub(super) fn challenge(&mut self, now: Instant) {
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

    pub(super) fn established(&mut self) {
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
