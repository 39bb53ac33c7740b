//! WireGuard around boringtun's noise: peers, sessions by receiver index, cryptokey routing, timers.
//!
//! Sans-IO: messages come in and go out as slices. (boringtun reads the monotonic clock itself; nothing
//! else here does.) A [`Tunnel`] is shared between threads; each peer has a lock of its own, held for one
//! message and never across a system call.
//!
//! What boringtun's core leaves to its caller is done here: finding the peer of a message, the check of
//! an inner packet's source against the peer's allowed IPs, and driving the rate limiter and timers.

mod counters;
mod peer;
mod routing;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use ipnet::IpNet;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use counters::Counters;
pub use counters::{Drop, DropCounts};
pub use peer::{Peer, PeerStats, Sealed};
use routing::AllowedIps;

/// Bytes that WireGuard adds to an inner packet: type, receiver, counter and tag (WireGuard paper, 5.4.6).
pub const DATA_OVERHEAD: usize = 32;
/// The largest handshake message; output buffers must hold at least this.
pub const MAX_HANDSHAKE: usize = 148;

/// Handshake messages a second above which initiators must prove their address by cookie. boringtun's
/// limiter sees each one twice: here before the costly Diffie-Hellman, and again in the peer.
const HANDSHAKES_PER_SECOND: u64 = 2 * 500;

/// A peer's number, unique for the life of a tunnel and never given out twice. It is also the upper 24
/// bits of the receiver indices of the peer's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// Why a peer can't be added.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddPeerError {
    /// Another peer has this public key.
    #[error("another peer has this public key")]
    DuplicateKey,
    /// One of the allowed IPs is a peer's already.
    #[error("{0} belongs to another peer")]
    DuplicateAddress(IpNet),
    /// Numbers are used up: 2^24 peers in the life of a process.
    #[error("no peer numbers left")]
    Exhausted,
}

/// What became of a received message.
#[derive(Debug)]
pub enum Opened<A> {
    /// An inner packet of `len` bytes stands at the start of the output buffer. Its source is the peer's.
    Packet {
        /// Who sent it.
        peer: Arc<Peer<A>>,
        /// Bytes of the IP packet, as its header says. Behind it stands whatever else was sealed.
        len: usize,
        /// No message sent after this one was received before it: the peer is where this came from.
        newest: bool,
    },
    /// `len` bytes at the start of the output buffer must go back to where the message came from.
    Reply {
        /// The peer, once it is known.
        peer: Option<Arc<Peer<A>>>,
        /// Bytes.
        len: usize,
    },
    /// An authenticated message without an inner packet.
    Empty {
        /// Who sent it.
        peer: Arc<Peer<A>>,
        /// As in [`Opened::Packet`].
        newest: bool,
    },
    /// Nothing; the reason is counted.
    Dropped(Drop),
}

struct Table<A> {
    /// Numbers that this end gives out: nobody else can choose them to collide.
    by_id: FxHashMap<PeerId, Arc<Peer<A>>>,
    by_key: HashMap<[u8; 32], PeerId>,
    allowed: AllowedIps,
    next_id: u32,
}

/// One end of WireGuard with all its peers. `A` is what the caller keeps at each peer.
pub struct Tunnel<A> {
    private_key: StaticSecret,
    public_key: PublicKey,
    limiter: Arc<RateLimiter>,
    table: RwLock<Table<A>>,
    counters: Counters,
}

impl<A> Tunnel<A> {
    /// A tunnel without peers.
    pub fn new(private_key: StaticSecret) -> Self {
        let public_key = PublicKey::from(&private_key);
        Self {
            limiter: Arc::new(RateLimiter::new(&public_key, HANDSHAKES_PER_SECOND)),
            private_key,
            public_key,
            table: RwLock::new(Table {
                by_id: FxHashMap::default(),
                by_key: HashMap::new(),
                allowed: AllowedIps::default(),
                next_id: 1,
            }),
            counters: Counters::default(),
        }
    }

    /// A tunnel with a fresh key from the system's random source.
    pub fn generate() -> Self {
        Self::new(StaticSecret::random_from_rng(rand_core::OsRng))
    }

    /// This end's public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.public_key.to_bytes()
    }

    /// Adds a peer that may send from, and is sent what goes to, `allowed`.
    ///
    /// # Errors
    /// Where the key or a prefix is another peer's.
    pub fn add_peer(
        &self,
        public_key: [u8; 32],
        allowed: Vec<IpNet>,
        attached: A,
    ) -> Result<Arc<Peer<A>>, AddPeerError> {
        let mut table = self.table.write();
        if table.by_key.contains_key(&public_key) {
            return Err(AddPeerError::DuplicateKey);
        }
        if let Some(taken) = allowed
            .iter()
            .find(|net| table.allowed.owner(**net).is_some())
        {
            return Err(AddPeerError::DuplicateAddress(*taken));
        }
        let id = PeerId(table.next_id);
        if id.0 >= 1 << 24 {
            return Err(AddPeerError::Exhausted);
        }
        table.next_id += 1;
        let tunn = Tunn::new(
            self.private_key.clone(),
            PublicKey::from(public_key),
            None,
            None,
            id.0,
            Some(self.limiter.clone()),
        );
        let peer = Arc::new(Peer::new(id, public_key, allowed, tunn, attached));
        for net in peer.allowed_ips() {
            table.allowed.insert(*net, id);
        }
        table.by_key.insert(public_key, id);
        table.by_id.insert(id, peer.clone());
        Ok(peer)
    }

    /// Forgets a peer: its keys, sessions and addresses.
    pub fn remove_peer(&self, id: PeerId) -> Option<Arc<Peer<A>>> {
        let mut table = self.table.write();
        let peer = table.by_id.remove(&id)?;
        table.by_key.remove(&peer.public_key());
        for net in peer.allowed_ips() {
            table.allowed.remove(*net);
        }
        Some(peer)
    }

    /// The peer of this number.
    pub fn peer(&self, id: PeerId) -> Option<Arc<Peer<A>>> {
        self.table.read().by_id.get(&id).cloned()
    }

    /// All peers.
    pub fn peers(&self) -> Vec<Arc<Peer<A>>> {
        self.table.read().by_id.values().cloned().collect()
    }

    /// Cryptokey routing: the peer that packets to `destination` go to.
    pub fn route(&self, destination: IpAddr) -> Option<Arc<Peer<A>>> {
        let table = self.table.read();
        let id = table.allowed.lookup(destination)?;
        table.by_id.get(&id).cloned()
    }

    /// Opens a received message. `out` must be at least as long as `message`, and [`MAX_HANDSHAKE`].
    /// `source` is the sender's address where the carrier has one; the rate limiter's cookies bind to it.
    pub fn open(&self, message: &[u8], source: Option<IpAddr>, out: &mut [u8]) -> Opened<A> {
        let opened = self.open_uncounted(message, source, out);
        if let Opened::Dropped(reason) = &opened {
            self.counters.add(*reason);
        }
        opened
    }

    fn open_uncounted(&self, message: &[u8], source: Option<IpAddr>, out: &mut [u8]) -> Opened<A> {
        let (peer, counter) = match Tunn::parse_incoming_packet(message) {
            Ok(Packet::PacketData(data)) => {
                let Some(counter) = message.get(8..16).and_then(|b| b.try_into().ok()) else {
                    return Opened::Dropped(Drop::Malformed);
                };
                let counter = u64::from_le_bytes(counter);
                (
                    self.by_receiver(data.receiver_idx),
                    Some((data.receiver_idx, counter)),
                )
            }
            Ok(Packet::HandshakeResponse(response)) => {
                (self.by_receiver(response.receiver_idx), None)
            }
            Ok(Packet::PacketCookieReply(reply)) => (self.by_receiver(reply.receiver_idx), None),
            Ok(Packet::HandshakeInit(_)) => match self.by_initiation(message, source, out) {
                Ok(peer) => (peer, None),
                Err(opened) => return opened,
            },
            Err(_) => return Opened::Dropped(Drop::Malformed),
        };
        let Some(peer) = peer else {
            return Opened::Dropped(Drop::UnknownReceiver);
        };

        let mut noise = peer.noise();
        let (len, from) = match noise.tunn.decapsulate(source, message, out) {
            TunnResult::WriteToTunnelV4(packet, from) => (packet.len(), IpAddr::V4(from)),
            TunnResult::WriteToTunnelV6(packet, from) => (packet.len(), IpAddr::V6(from)),
            TunnResult::WriteToNetwork(reply) => {
                let len = reply.len();
                noise.refresh();
                drop(noise);
                return Opened::Reply {
                    peer: Some(peer),
                    len,
                };
            }
            TunnResult::Done => {
                noise.refresh();
                let newest = noise.received(counter, message.len());
                drop(noise);
                return Opened::Empty { peer, newest };
            }
            TunnResult::Err(error) => return Opened::Dropped(reason(&error)),
        };
        let newest = noise.received(counter, message.len());
        drop(noise);
        // Where a host's own prefix is the peer's, there is no longer one that could be another's.
        if !peer.has_host(from) && self.table.read().allowed.lookup(from) != Some(peer.id()) {
            return Opened::Dropped(Drop::WrongSource);
        }
        Opened::Packet { peer, len, newest }
    }

    fn by_receiver(&self, index: u32) -> Option<Arc<Peer<A>>> {
        self.peer(PeerId(index >> 8))
    }

    /// Who sent a handshake initiation: its static key is inside, under our own.
    fn by_initiation(
        &self,
        message: &[u8],
        source: Option<IpAddr>,
        out: &mut [u8],
    ) -> Result<Option<Arc<Peer<A>>>, Opened<A>> {
        // On a stream there is no address to bind a cookie to; whoever is on it has been let in already.
        let source = source.or(Some(IpAddr::from([0, 0, 0, 0])));
        let init = match self.limiter.verify_packet(source, message, out) {
            Ok(Packet::HandshakeInit(init)) => init,
            Ok(_) => return Err(Opened::Dropped(Drop::Malformed)),
            Err(TunnResult::WriteToNetwork(cookie)) => {
                return Err(Opened::Reply {
                    peer: None,
                    len: cookie.len(),
                });
            }
            Err(TunnResult::Err(error)) => return Err(Opened::Dropped(reason(&error))),
            Err(_) => return Err(Opened::Dropped(Drop::Malformed)),
        };
        let half = parse_handshake_anon(&self.private_key, &self.public_key, &init)
            .map_err(|_| Opened::Dropped(Drop::NotAuthentic))?;
        let table = self.table.read();
        let Some(id) = table.by_key.get(&half.peer_static_public) else {
            return Err(Opened::Dropped(Drop::UnknownKey));
        };
        Ok(table.by_id.get(id).cloned())
    }

    /// Drives all timers; to be called about every 250 ms. Each message that must be sent is given to
    /// `transmit` with its peer.
    pub fn handle_timeout(&self, mut transmit: impl FnMut(&Arc<Peer<A>>, &[u8])) {
        self.limiter.reset_count();
        let mut out = [0_u8; MAX_HANDSHAKE];
        for peer in self.peers() {
            if let Some(len) = peer.handle_timeout(&mut out) {
                transmit(&peer, &out[..len]);
            }
        }
    }

    /// Messages dropped so far, by reason.
    pub fn drops(&self) -> DropCounts {
        self.counters.snapshot()
    }
}

fn reason(error: &WireGuardError) -> Drop {
    match error {
        WireGuardError::DuplicateCounter | WireGuardError::InvalidCounter => Drop::Replay,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => Drop::UnknownReceiver,
        WireGuardError::InvalidAeadTag
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::WrongKey => Drop::NotAuthentic,
        WireGuardError::UnderLoad => Drop::RateLimited,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::InvalidPacket
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired => Drop::Malformed,
    }
}

#[cfg(test)]
mod tests;
