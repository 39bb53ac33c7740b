//! How a connection begins, and what its first segments agree on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::congestion::Congestion;
use super::super::header::{Header, MAX_WINDOW_SHIFT, TCP_HEADER_LEN, TIMESTAMPS_LEN};
use super::super::memory::Account;
use super::super::receiver::Receiver;
use super::super::sender::{Path, Sender, SenderSetup};
use super::super::sequence::Space;
use super::{Challenges, Clock, Connection, Options, State};

/// A peer that says nothing of its MSS takes this (RFC 9293, 3.7.1).
const DEFAULT_MSS: [u16; 2] = [536, 1220];
/// As small as Linux lets it be: a peer that asks for single bytes would get a header with each.
const MIN_MSS: u16 = 48;

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
    pub(super) fn take_syn(&mut self, now: Instant, syn: &Syn) {
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
            self.sender.use_blocks();
        }
        self.update_segment();
        // A SYN's window is never scaled (RFC 7323, 2.2).
        self.sender.set_window(now, syn.window_len.into());
    }

    fn ip_header_len(&self) -> usize {
        if self.local.is_ipv6() { 40 } else { 20 }
    }

    /// The MSS to tell the peer: options are not counted (RFC 6691).
    pub(super) fn our_mss(&self) -> u16 {
        let headers = self.ip_header_len() + TCP_HEADER_LEN;
        self.mtu.saturating_sub(headers as u16).max(MIN_MSS)
    }

    pub(super) fn update_segment(&mut self) {
        let mss = self.their_mss.min(self.our_mss());
        let options = if self.options.stamps {
            TIMESTAMPS_LEN
        } else {
            0
        };
        self.sender.set_segment(u64::from(mss) - options as u64);
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
