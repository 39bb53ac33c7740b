//! What a connection sends.

use std::time::{Duration, Instant};

use super::super::header::{Flags, Header, MAX_HEADER_LEN, Timestamps};
use super::super::sender::Chunk;
use super::{Abort, Connection, State, Written};
use crate::packet::MAX_PACKET;

/// An unanswered probe of a silent peer is repeated after this (Linux' tcp_keepalive_intvl).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(75);

impl Connection {
    /// Writes the next packet to send, at most 64 KiB, into `out`, which has room for it: its headers, and its
    /// payload unless [`Connection::payload`] has it.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut [u8]) -> Option<Written> {
        self.gathered = None;
        if self.abort == Some(Abort::Due) {
            self.abort = Some(Abort::Said);
            let flags = Flags {
                rst: true,
                ack: true,
                ..Flags::default()
            };
            return self.write(now, out, flags, self.sender.next(), None);
        }
        if self.state == State::Closed {
            return None;
        }
        self.sender.handle_timeout(now);
        if self.sender.next() == 0 {
            self.sender.send_syn(now);
            return self.write_syn(now, out);
        }
        if !self.is_established() {
            let stamp = self.clock.now(now);
            let due = self.sender.poll_syn(now, stamp);
            return if due { self.write_syn(now, out) } else { None };
        }
        // What arrived out of order is told without payload: the blocks would make its segments longer.
        if self.receiver.has_blocks() && self.receiver.is_due(now) {
            return self.write_acknowledgement(now, out);
        }
        if self.sender.take_window_probe() || self.take_keep_alive(now) {
            let flags = Flags {
                ack: true,
                ..Flags::default()
            };
            let before = self.sender.una().saturating_sub(1);
            return self.write(now, out, flags, before, None);
        }
        let most = self.largest_payload(out.len());
        let stamp = self.clock.now(now);
        if let Some(chunk) = self.sender.poll(now, most, stamp) {
            return self.write_chunk(now, out, chunk);
        }
        if self.receiver.is_due(now) {
            return self.write_acknowledgement(now, out);
        }
        None
    }

    /// Payload of the largest super-packet: full segments.
    fn largest_payload(&self, room: usize) -> u64 {
        let room = room.min(MAX_PACKET).saturating_sub(MAX_HEADER_LEN) as u64;
        let segment = self.sender.segment().max(1);
        (room / segment * segment).max(segment)
    }

    /// Whether the peer was silent for so long that it is asked.
    fn take_keep_alive(&mut self, now: Instant) -> bool {
        let due = self.keep_alive_at <= now && self.state != State::TimeWait;
        if due {
            self.keep_alive_at = now + KEEP_ALIVE_INTERVAL.min(self.keep_alive);
        }
        due
    }

    fn write_syn(&mut self, now: Instant, out: &mut [u8]) -> Option<Written> {
        let ack = self.state == State::SynReceived;
        let header = Header {
            flags: Flags {
                syn: true,
                ack,
                // RFC 3168, 6.1.1: agreed to.
                ece: ack && self.options.ecn,
                ..Flags::default()
            },
            seq: self.ours.wire(0),
            ack: if ack {
                self.theirs.wire(self.receiver.next())
            } else {
                0
            },
            window: self.receiver.announce(0),
            timestamps: self.stamps(now),
            mss: Some(self.our_mss()),
            window_shift: self.options.scaling.then_some(self.shift),
            sack_permitted: self.options.sack,
            ..Header::default()
        };
        self.last_window = header.window;
        let header_len = header.write(out, self.local, self.remote, 0)?;
        Some(Written {
            header_len,
            payload_len: 0,
        })
    }

    fn write_acknowledgement(&mut self, now: Instant, out: &mut [u8]) -> Option<Written> {
        let flags = Flags {
            ack: true,
            ..Flags::default()
        };
        self.write(now, out, flags, self.sender.next(), None)
    }

    fn write_chunk(&mut self, now: Instant, out: &mut [u8], chunk: Chunk) -> Option<Written> {
        let data_end = chunk.end.min(self.sender.outgoing.end());
        let fin = chunk.end > data_end;
        // RFC 3168, 6.1.5: what is sent again must not be marked.
        let cwr = chunk.fresh && std::mem::take(&mut self.sender.tell_reduced);
        let flags = Flags {
            ack: true,
            psh: chunk.last,
            fin,
            cwr,
            ..Flags::default()
        };
        self.write(now, out, flags, chunk.start, Some((data_end, chunk.fresh)))
    }

    /// Writes a segment that begins at this number; with payload up to another one.
    fn write(
        &mut self,
        now: Instant,
        out: &mut [u8],
        flags: Flags,
        start: u64,
        payload: Option<(u64, bool)>,
    ) -> Option<Written> {
        let (end, fresh) = payload.unwrap_or((start, false));
        let payload_len = end.saturating_sub(start) as usize;
        let bare = payload.is_none() && !flags.rst;
        let sack = match bare && self.options.sack {
            // Beside timestamps there is room for three.
            true => self.receiver.blocks(self.theirs, 3),
            false => [None; 3],
        };
        let header = Header {
            flags: Flags {
                ece: self.report_marks && !flags.rst,
                ..flags
            },
            seq: self.ours.wire(start),
            ack: self.theirs.wire(self.receiver.next()),
            window: self.receiver.announce(self.shift),
            timestamps: self.stamps(now),
            sack,
            ecn: self.options.ecn && fresh && payload_len > 0,
            ..Header::default()
        };
        self.last_window = header.window;
        let header_len = header.write(out, self.local, self.remote, payload_len)?;
        let outgoing = &self.sender.outgoing;
        if payload_len > self.segment_size() && outgoing.two_pieces(start, payload_len).is_some() {
            self.gathered = Some((start, payload_len));
        } else {
            let room = out.get_mut(header_len..header_len + payload_len)?;
            outgoing.copy(start, room);
        }
        Some(Written {
            header_len,
            payload_len,
        })
    }

    fn stamps(&self, now: Instant) -> Option<Timestamps> {
        self.options.stamps.then(|| Timestamps {
            value: self.clock.now(now),
            echo: self.recent_stamp,
        })
    }
}
