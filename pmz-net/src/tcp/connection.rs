//! A connection: the states of RFC 9293, and both halves joined.

mod acknowledgement;
mod opening;
mod segment;
mod transmit;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::receiver::Receiver;
use super::sender::{Counters, Path, Sender};
use super::sequence::Space;
pub use opening::{Setup, Syn};

/// The states of RFC 9293, 3.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// A segment that no honest peer would have sent on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSegment;

/// A segment that was written: an IP packet without IP options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of IP and TCP header.
    pub header_len: usize,
    /// Bytes of payload; more than [`Connection::segment_size`] makes a super-packet.
    pub payload_len: usize,
}

#[derive(Debug)]
pub struct Connection {
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    /// This end opened the connection.
    active: bool,
    sender: Sender,
    receiver: Receiver,
    ours: Space,
    theirs: Space,
    /// Shift of the windows that we tell, and of those that we are told.
    shift: u8,
    their_shift: u8,
    /// Sequence and acknowledgement number of the segment that told the window last.
    window_told: (u64, u64),
    mtu: u16,
    their_mss: u16,
    options: Options,
    clock: Clock,
    /// The peer's latest timestamp in order.
    recent_stamp: u32,
    /// A congestion mark was seen, and the sender has not said that it reacted.
    report_marks: bool,
    /// The application aborted: a reset is to be sent, or was.
    abort: Option<Abort>,
    /// The peer reset the connection.
    reset: bool,
    challenges: Challenges,
    keep_alive: Duration,
    /// When a silent peer is probed.
    keep_alive_at: Instant,
    keep_alive_due: bool,
    last_window: u16,
    /// Where the payload of the segment written last stands, if not behind its headers.
    gathered: Option<(u64, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abort {
    Due,
    Said,
}

/// What both ends agreed on.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    stamps: bool,
    sack: bool,
    scaling: bool,
    ecn: bool,
}

/// The clock of the timestamp option: milliseconds, from a start that nobody knows (RFC 7323, 5.4).
#[derive(Clone, Copy, Debug)]
struct Clock {
    epoch: Instant,
    offset: u32,
}

impl Clock {
    fn now(self, now: Instant) -> u32 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        self.offset.wrapping_add(millis as u32)
    }
}

/// Acknowledgements that nothing but somebody's nonsense asked for: at most so many a second (RFC 5961, 7).
#[derive(Debug)]
struct Challenges {
    since: Instant,
    sent: u32,
}

impl Challenges {
    const PER_SECOND: u32 = 10;

    fn may_send(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.sent = 0;
        }
        self.sent += 1;
        self.sent <= Self::PER_SECOND
    }
}

impl Connection {
    /// The largest packet is another one from now on.
    pub fn set_mtu(&mut self, mtu: u16) {
        if mtu != self.mtu {
            self.mtu = mtu;
            self.update_segment();
        }
    }

    /// How packets travel from now on.
    pub fn set_path(&mut self, path: Path) {
        self.sender.set_path(path);
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// Bytes received, in order, as many as are in one piece.
    pub fn received(&self) -> &[u8] {
        self.receiver.received()
    }

    /// Takes bytes from the front of [`Connection::received`].
    pub fn consume(&mut self, now: Instant, n: usize) {
        let rtt = self.sender.smoothed_rtt();
        self.receiver.consume(now, n, rtt);
    }

    /// Room for bytes to send, in one piece, as much as is wanted. [`Connection::commit`] must follow.
    pub fn room(&mut self) -> &mut [u8] {
        let wants = self.sender.wants();
        if wants == 0 {
            return &mut [];
        }
        let room = self.sender.outgoing.room();
        let n = room.len().min(wants);
        &mut room[..n]
    }

    /// Sends the first `n` bytes of [`Connection::room`]; 0 gives the room back.
    pub fn commit(&mut self, n: usize) {
        self.sender.commit(n);
    }

    /// No more bytes will be committed.
    pub fn close(&mut self) {
        self.sender.close();
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            other => other,
        };
    }

    /// Resets the connection.
    pub fn abort(&mut self) {
        if self.abort.is_some() || self.reset {
            return;
        }
        // There is nobody to reset before anything was said and after everything was.
        let silent = matches!(self.state, State::SynSent | State::TimeWait | State::Closed);
        self.abort = Some(if silent { Abort::Said } else { Abort::Due });
        self.state = State::Closed;
    }

    /// Whether the application aborted the connection, and the peer has been told.
    pub fn is_aborted(&self) -> bool {
        self.abort == Some(Abort::Said)
    }

    /// Whether the application aborted the connection.
    pub fn is_aborting(&self) -> bool {
        self.abort.is_some()
    }

    /// Whether the peer reset the connection.
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    /// Whether the handshake is over.
    pub fn is_established(&self) -> bool {
        !matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// Whether the peer has closed its direction and every byte before was consumed.
    pub fn is_receive_finished(&self) -> bool {
        self.receiver.is_finished() && !self.receiver.has_unread()
    }

    /// Whether bytes that were received wait to be consumed.
    pub fn has_unread(&self) -> bool {
        self.receiver.has_unread()
    }

    /// Whether something that was sent, or is to be sent, awaits its acknowledgement.
    pub fn awaits_acknowledgement(&self) -> bool {
        self.sender.awaits_acknowledgement()
            || self.sender.outgoing.len() > 0
            || (self.sender.is_closed() && !self.sender.is_fin_acknowledged())
    }

    /// Whether an acknowledgement is still to go out.
    pub fn owes_acknowledgement(&self, now: Instant) -> bool {
        self.receiver.poll_timeout(now).is_some()
    }

    /// Payload of a full segment.
    pub fn segment_size(&self) -> usize {
        self.sender.segment() as usize
    }

    /// Sequence and acknowledgement number and window field of a bare acknowledgement, as they go over the
    /// wire now.
    pub fn bare_acknowledgement(&self) -> (u32, u32, u16) {
        (
            self.ours.wire(self.sender.next()),
            self.theirs.wire(self.receiver.next()),
            self.last_window,
        )
    }

    /// What was counted since the last call.
    pub fn take_counters(&mut self) -> Counters {
        self.sender.take_counters()
    }

    pub fn smoothed_rtt(&self) -> Option<Duration> {
        self.sender.smoothed_rtt()
    }

    /// The payload of the segment written last, in two pieces, where it was left out: that of a super-packet,
    /// which is copied only where it goes.
    pub fn payload(&self) -> Option<[&[u8]; 2]> {
        let (start, len) = self.gathered?;
        self.sender.outgoing.two_pieces(start, len)
    }

    /// When [`Connection::poll_transmit`] is to be called next, whatever happens.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        if self.abort == Some(Abort::Due) {
            return Some(now);
        }
        if matches!(self.state, State::Closed) {
            return None;
        }
        if self.sender.next() == 0 {
            return Some(now);
        }
        // Data waits for the handshake's end.
        if !self.is_established() {
            return self.sender.handshake_timeout(now);
        }
        let keep_alive = (self.state != State::TimeWait).then_some(self.keep_alive_at);
        [
            self.sender.poll_timeout(now),
            self.receiver.poll_timeout(now),
            keep_alive,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
