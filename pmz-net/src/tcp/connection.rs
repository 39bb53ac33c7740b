//! A connection: the states of RFC 9293, and both halves joined.

mod segment;
mod transmit;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::congestion::Congestion;
use super::header::{Header, MAX_WINDOW_SHIFT, TCP_HEADER_LEN, TIMESTAMPS_LEN};
use super::memory::Account;
use super::receiver::Receiver;
use super::sender::{Counters, Path, Sender, SenderSetup};
use super::sequence::Space;

/// A peer that says nothing of its MSS takes this (RFC 9293, 3.7.1).
const DEFAULT_MSS: [u16; 2] = [536, 1220];
/// As small as Linux lets it be: a peer that asks for single bytes would get a header with each.
const MIN_MSS: u16 = 48;

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

/// What a connection's first segment said, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn {
    pub isn: u32,
    pub mss: Option<u16>,
    pub window_len: u16,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// The timestamp, if it came with one (RFC 7323).
    pub timestamp: Option<u32>,
    /// It asks for explicit congestion notification (RFC 3168, 6.1.1).
    pub ecn: bool,
}

/// What is needed to make a connection.
#[derive(Debug)]
pub struct Setup {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// The largest packet, in bytes.
    pub mtu: u16,
    /// Where memory for payload comes from.
    pub account: Account,
    /// Payload kept until it is acknowledged, and window promised: at most so many bytes each.
    pub max_buffer: u64,
    pub congestion: Congestion,
    pub path: Path,
    /// Unpredictable: the initial sequence number and the timestamps' offset come from it.
    pub seed: u64,
    /// A silent peer is probed this often.
    pub keep_alive: Duration,
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
    /// A connection that the peer opens with this SYN; the answer comes from [`Connection::poll_transmit`].
    pub fn accept(now: Instant, setup: Setup, syn: &Syn) -> Self {
        let mut connection = Self::new(now, setup, State::SynReceived);
        connection.take_syn(now, syn);
        connection.options.ecn = syn.ecn;
        connection
    }

    /// A connection that this end opens; the SYN comes from [`Connection::poll_transmit`].
    pub fn connect(now: Instant, setup: Setup) -> Self {
        let mut connection = Self::new(now, setup, State::SynSent);
        connection.active = true;
        connection.options = Options {
            stamps: true,
            sack: true,
            scaling: true,
            ecn: false,
        };
        connection
    }

    fn new(now: Instant, setup: Setup, state: State) -> Self {
        let seed = setup.seed;
        let (isn, offset) = (seed as u32, (seed >> 32) as u32);
        let default_mss = DEFAULT_MSS[usize::from(setup.local.is_ipv6())];
        let sender = Sender::new(
            now,
            SenderSetup {
                account: setup.account.clone(),
                max_buffer: setup.max_buffer,
                segment: default_mss.into(),
                algorithm: setup.congestion,
                path: setup.path,
                seed,
            },
        );
        Self {
            local: setup.local,
            remote: setup.remote,
            state,
            active: false,
            sender,
            receiver: Receiver::new(now, setup.account, setup.max_buffer),
            ours: Space::new(isn),
            theirs: Space::new(0),
            shift: shift_for(setup.max_buffer),
            their_shift: 0,
            window_told: (0, 0),
            mtu: setup.mtu,
            their_mss: default_mss,
            options: Options::default(),
            clock: Clock { epoch: now, offset },
            recent_stamp: 0,
            report_marks: false,
            abort: None,
            reset: false,
            challenges: Challenges {
                since: now,
                sent: 0,
            },
            keep_alive: setup.keep_alive,
            keep_alive_at: now + setup.keep_alive,
            keep_alive_due: false,
            last_window: 0,
            gathered: None,
        }
    }

    /// Takes over what the peer's SYN says.
    fn take_syn(&mut self, now: Instant, syn: &Syn) {
        self.theirs = Space::new(syn.isn);
        self.receiver.synchronise();
        if let Some(mss) = syn.mss.filter(|mss| *mss != 0) {
            self.their_mss = mss.max(MIN_MSS);
        }
        self.options.sack = syn.sack_permitted;
        self.options.scaling = syn.window_scale.is_some();
        self.their_shift = syn.window_scale.unwrap_or(0).min(MAX_WINDOW_SHIFT);
        if !self.options.scaling {
            self.shift = 0;
        }
        self.options.stamps = syn.timestamp.is_some();
        self.recent_stamp = syn.timestamp.unwrap_or(0);
        if self.options.stamps {
            self.sender.use_stamps();
        }
        if self.options.sack {
            self.sender.use_sack();
        }
        self.update_segment();
        // A SYN's window is never scaled (RFC 7323, 2.2).
        self.sender.set_window(now, syn.window_len.into());
    }

    fn ip_header_len(&self) -> usize {
        if self.local.is_ipv6() { 40 } else { 20 }
    }

    /// The MSS to tell the peer: options are not counted (RFC 6691).
    fn our_mss(&self) -> u16 {
        let headers = self.ip_header_len() + TCP_HEADER_LEN;
        self.mtu.saturating_sub(headers as u16).max(MIN_MSS)
    }

    fn update_segment(&mut self) {
        let mss = self.their_mss.min(self.our_mss());
        let options = if self.options.stamps {
            TIMESTAMPS_LEN
        } else {
            0
        };
        self.sender.set_segment(u64::from(mss) - options as u64);
    }

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

/// The shift that makes a window of this size fit into 16 bits (RFC 7323, 2.2).
fn shift_for(window: u64) -> u8 {
    let bits = (u64::BITS - window.leading_zeros()) as u8;
    bits.saturating_sub(16).min(MAX_WINDOW_SHIFT)
}

impl From<&Header> for Syn {
    fn from(header: &Header) -> Self {
        Self {
            isn: header.seq,
            mss: header.mss,
            window_len: header.window,
            window_scale: header.window_shift,
            sack_permitted: header.sack_permitted,
            timestamp: header.timestamps.map(|stamps| stamps.value),
            ecn: header.flags.ece && header.flags.cwr,
        }
    }
}
