//! What a segment must satisfy before a TCP implementation that trusts its arithmetic gets to see it.
//!
//! smoltcp subtracts sequence numbers and panics where the result is negative, believes an
//! acknowledgement of bytes that were never sent, and drops the data of a segment whose
//! acknowledgement is old. Here the promises that were really made, read off the segments sent, decide.

use smoltcp::wire::TcpPacket;

use super::{BadSegment, Challenge};

/// Sequence numbers further than this from what is expected are nobody's honest mistake (RFC 7323: no
/// window is larger).
const PLAUSIBLE: u32 = 1 << 30;

/// `a - b` in sequence space.
fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

fn seq<T: AsRef<[u8]>>(tcp: &TcpPacket<T>) -> u32 {
    tcp.seq_number().0.cast_unsigned()
}

fn ack<T: AsRef<[u8]>>(tcp: &TcpPacket<T>) -> u32 {
    tcp.ack_number().0.cast_unsigned()
}

/// What to do with a segment before it is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Nothing new in it.
    Ignore,
    Feed {
        /// Bytes to cut off the payload's end, and the FIN with them: they are beyond the window.
        trim: usize,
        /// The acknowledgement number to put in.
        ack: u32,
    },
}

#[derive(Debug)]
pub(super) struct Guard {
    /// Whether anything was sent yet; before, no segment can answer it.
    spoken: bool,
    /// The largest acknowledgement seen.
    snd_una: u32,
    /// The end of what was sent.
    snd_max: u32,
    /// The next byte expected, as last said to the client.
    rcv_nxt: u32,
    /// The right edge of the largest window promised.
    rcv_right: u32,
    /// The window field as last sent.
    window: u16,
    /// The scale of our window field once the handshake is over.
    shift: u8,
    /// Only the SYN's unscaled window was promised yet.
    unscaled: bool,
    /// The sequence number behind the client's FIN.
    fin_end: Option<u32>,
}

impl Guard {
    /// For a connection whose SYN had this sequence number; `shift` is our window's scale, 0 if the client's
    /// SYN had no window scale option.
    pub(super) fn new(isn: u32, shift: u8) -> Self {
        let rcv_nxt = isn.wrapping_add(1);
        Self {
            spoken: false,
            snd_una: 0,
            snd_max: 0,
            rcv_nxt,
            rcv_right: rcv_nxt,
            window: 0,
            shift,
            unscaled: true,
            fin_end: None,
        }
    }

    /// Notes what a segment of ours says.
    pub(super) fn sent(&mut self, tcp: &TcpPacket<&[u8]>, payload_len: usize) {
        let start = seq(tcp);
        let controls = u32::from(tcp.syn()) + u32::from(tcp.fin());
        let end = start
            .wrapping_add(u32::try_from(payload_len).unwrap_or(0))
            .wrapping_add(controls);
        if !self.spoken {
            self.spoken = true;
            self.snd_una = start;
            self.snd_max = end;
        } else if distance(end, self.snd_max) > 0 {
            self.snd_max = end;
        }
        if !tcp.ack() {
            return;
        }
        self.rcv_nxt = ack(tcp);
        let shift = if tcp.syn() { 0 } else { self.shift };
        self.unscaled = tcp.syn();
        self.window = tcp.window_len();
        let right = self
            .rcv_nxt
            .wrapping_add(u32::from(tcp.window_len()) << shift);
        if distance(right, self.rcv_right) > 0 {
            self.rcv_right = right;
        }
    }

    /// Judges a segment of the client that is neither a SYN nor of another connection.
    pub(super) fn admit<T: AsRef<[u8]>>(
        &self,
        tcp: &TcpPacket<T>,
        payload_len: usize,
    ) -> Result<Admission, BadSegment> {
        if !self.spoken || tcp.syn() {
            return Err(BadSegment);
        }
        let start = seq(tcp);
        if distance(start, self.rcv_nxt).unsigned_abs() > PLAUSIBLE {
            return Err(BadSegment);
        }
        if tcp.rst() {
            return if payload_len == 0 {
                Ok(Admission::Feed {
                    trim: 0,
                    ack: ack(tcp),
                })
            } else {
                Err(BadSegment)
            };
        }
        if !tcp.ack() {
            return Err(BadSegment);
        }

        let ack = ack(tcp);
        if distance(ack, self.snd_max) > 0 || distance(ack, self.snd_una).unsigned_abs() > PLAUSIBLE
        {
            return Err(BadSegment);
        }
        let old_ack = distance(ack, self.snd_una) < 0;
        if old_ack && payload_len == 0 && !tcp.fin() {
            return Ok(Admission::Ignore);
        }
        let ack = if old_ack { self.snd_una } else { ack };

        let len = i32::try_from(payload_len).map_err(|_| BadSegment)?;
        let end = start
            .wrapping_add(len.cast_unsigned())
            .wrapping_add(u32::from(tcp.fin()));
        if let Some(fin_end) = self.fin_end
            && distance(end, fin_end) > 0
        {
            return Err(BadSegment);
        }
        let room = distance(self.rcv_right, start);
        if room <= 0 && len > 0 && self.unscaled {
            return Err(BadSegment);
        }
        let trim = if room > 0 && len > room {
            len - room
        } else {
            0
        };
        Ok(Admission::Feed {
            trim: trim.unsigned_abs() as usize,
            ack,
        })
    }

    /// Notes an acknowledgement that was fed.
    pub(super) fn acknowledged(&mut self, ack: u32) {
        if distance(ack, self.snd_una) > 0 {
            self.snd_una = ack;
        }
    }

    /// Notes that the client's FIN was taken, which ended at this sequence number.
    pub(super) fn finished(&mut self, end: u32) {
        self.fin_end.get_or_insert(end);
    }

    /// What a bare acknowledgement says now.
    pub(super) fn challenge(&self) -> Challenge {
        Challenge {
            seq: self.snd_max,
            ack: self.rcv_nxt,
            window: self.window,
        }
    }

    /// Whether everything sent is acknowledged, SYN and FIN included.
    pub(super) fn all_acknowledged(&self) -> bool {
        self.spoken && self.snd_una == self.snd_max
    }
}

#[cfg(test)]
mod tests;
