//! One peer: its noise state behind a lock, its allowed IPs, its counts.

use std::net::IpAddr;
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use ipnet::IpNet;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::{DATA_OVERHEAD, MAX_HANDSHAKE, PeerId};

/// A peer and what the caller keeps with it.
pub struct Peer<A> {
    id: PeerId,
    public_key: [u8; 32],
    allowed: Vec<IpNet>,
    noise: Mutex<Noise>,
    /// The caller's own.
    pub attached: A,
}

pub(super) struct Noise {
    pub(super) tunn: Tunn,
    /// A session stands that packets can be sealed with. boringtun would queue packets while there is
    /// none, without knowing the carrier that they were meant for.
    has_session: bool,
    /// Receiver index and counter of the newest message.
    newest: (u32, u64),
    /// All but the handshake's age.
    counts: PeerStats,
}

impl Noise {
    pub(super) fn refresh(&mut self) {
        self.has_session = self.tunn.time_since_last_handshake().is_some();
    }

    /// An authentic message of `bytes` came; a data message has a receiver index and a counter. Returns whether no
    /// message sent after it came before it.
    pub(super) fn received(&mut self, counter: Option<(u32, u64)>, bytes: usize) -> bool {
        self.counts.received += 1;
        self.counts.received_bytes += bytes as u64;
        counter.is_some_and(|counter| self.is_newest(counter))
    }

    fn is_newest(&mut self, (index, counter): (u32, u64)) -> bool {
        if !self.has_session {
            // The first data message of an initiator is what makes the responder's session current.
            self.refresh();
        }
        // Indices of a peer's sessions count up in their lowest byte.
        let behind = self.newest.0.wrapping_sub(index) as u8;
        let older = (index != self.newest.0 && behind < 128 && behind != 0)
            || (index == self.newest.0 && counter < self.newest.1);
        if !older {
            self.newest = (index, counter);
        }
        !older
    }
}

/// What sealing an inner packet gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// A data message of this many bytes stands at the start of the output buffer.
    Data(usize),
    /// There is no session: the packet is lost, and a handshake initiation of this many bytes is to be
    /// sent instead.
    Initiation(usize),
    /// There is no session and a handshake is under way: the packet is lost.
    Nothing,
}

/// A peer's counts since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStats {
    /// Data messages sent.
    pub sent: u64,
    /// Bytes of them, WireGuard's own included.
    pub sent_bytes: u64,
    /// Authentic messages received.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Packets lost because no session stood.
    pub unsendable: u64,
    /// Age of the last handshake in seconds, while its session lives.
    pub handshake_age_s: Option<u64>,
}

impl<A> Peer<A> {
    pub(super) fn new(
        id: PeerId,
        public_key: [u8; 32],
        allowed: Vec<IpNet>,
        tunn: Tunn,
        attached: A,
    ) -> Self {
        Self {
            id,
            public_key,
            allowed,
            noise: Mutex::new(Noise {
                tunn,
                has_session: false,
                newest: (0, 0),
                counts: PeerStats::default(),
            }),
            attached,
        }
    }

    /// Its number.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Its WireGuard public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key
    }

    /// Prefixes that it may send from and is sent.
    pub fn allowed_ips(&self) -> &[IpNet] {
        &self.allowed
    }

    /// Seals `packet` into `out`, which must have room for [`DATA_OVERHEAD`] bytes more than the packet
    /// and at least [`MAX_HANDSHAKE`].
    pub fn seal(&self, packet: &[u8], out: &mut [u8]) -> Sealed {
        debug_assert!(out.len() >= MAX_HANDSHAKE.max(packet.len() + DATA_OVERHEAD));
        let mut noise = self.noise();
        if !noise.has_session {
            noise.counts.unsendable += 1;
            return match noise.tunn.format_handshake_initiation(out, false) {
                TunnResult::WriteToNetwork(message) => Sealed::Initiation(message.len()),
                _ => Sealed::Nothing,
            };
        }
        match noise.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) => {
                let len = message.len();
                noise.counts.sent += 1;
                noise.counts.sent_bytes += len as u64;
                Sealed::Data(len)
            }
            _ => Sealed::Nothing,
        }
    }

    /// Begins a handshake at once, even where one is under way or a session stands: after a change of
    /// network, or where an answer is overdue. `out` must hold [`MAX_HANDSHAKE`] bytes.
    pub fn initiate(&self, out: &mut [u8]) -> Option<usize> {
        match self.noise().tunn.format_handshake_initiation(out, true) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        }
    }

    /// Whether packets can be sealed now.
    pub fn has_session(&self) -> bool {
        self.noise().has_session
    }

    pub(super) fn handle_timeout(&self, out: &mut [u8]) -> Option<usize> {
        let mut noise = self.noise();
        let len = match noise.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(message) => Some(message.len()),
            _ => None,
        };
        noise.refresh();
        len
    }

    pub(super) fn noise(&self) -> MutexGuard<'_, Noise> {
        self.noise.lock()
    }

    /// Whether this one address, by itself, is among the allowed IPs.
    pub(super) fn has_host(&self, address: IpAddr) -> bool {
        let host = IpNet::from(address);
        self.allowed.contains(&host)
    }

    /// Its counts.
    pub fn stats(&self) -> PeerStats {
        let noise = self.noise();
        let age = noise.tunn.time_since_last_handshake();
        PeerStats {
            handshake_age_s: age.as_ref().map(Duration::as_secs),
            ..noise.counts
        }
    }
}

impl<A> std::fmt::Debug for Peer<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
