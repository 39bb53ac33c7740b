//! The hot loop that joins a local side (a TUN, or the agent's NAT), the tunnel and its carriers.
//!
//! Outward, a frame (virtio-net header and IP packet, often a super-packet of 64 KiB) finds its peer and
//! the peer's carrier. On UDP it is cut into segments which are sealed one behind the other and leave in
//! one system call; on a stream it waits, whole, in the short queue of the stream that its flow belongs to.
//! Inward, messages are opened, joined to super-packets where they came in segments, and delivered.
//!
//! Threads: whoever calls [`Engine::send`] seals ([`tun::run`] or the NAT's thread); [`inbound::run`]
//! receives UDP; each stream has a task for each direction ([`stream::run`]). Nobody waits for a lock that
//! is held across a system call.

pub mod inbound;
pub mod outbound;
mod paths;
pub mod probe;
mod spread;
pub mod stop;
pub mod stream;
pub mod tun;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::carrier::stream::StreamQueue;
use crate::carrier::udp::UdpCarrier;
use crate::packet::BufferPool;
use crate::tunnel::{DropCounts, MAX_HANDSHAKE, Peer, PeerId, Tunnel};
pub use paths::{Direction, Paths, PathsReport};
use probe::{Answer, Probe};

/// How often the tunnel's timers are driven: boringtun wants about 250 ms.
const TIMER_INTERVAL: Duration = Duration::from_millis(250);
/// Frames that may wait in streams' queues at once, over all peers.
const POOLED_FRAMES: usize = 256;
/// Answers to probes that may wait for the session to look at them.
const MAX_ANSWERS: usize = 64;

/// The side of the engine that isn't the tunnel: takes the packets that came through it.
pub trait Local: Send + Sync {
    /// Takes one frame of `peer`: virtio-net header and IP packet. False where there is no room; then
    /// UDP loses the frame, and a stream waits with [`Local::deliver_waiting`].
    fn deliver(&self, peer: PeerId, frame: &[u8]) -> bool;

    /// Takes one frame as soon as there is room. A stream reads nothing while it waits here, which is
    /// how the local side pushes back.
    fn deliver_waiting<'a>(
        &'a self,
        peer: PeerId,
        frame: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    /// The frames delivered so far wait for being seen to. `busy`: the caller has other things to do, such as to
    /// deliver more that is at hand; otherwise what the local side does about them may take the caller's time.
    fn settle(&self, _busy: bool) {}

    /// A stream of a peer can take frames again, after its [`StreamQueue::has_room`] was false.
    fn peer_has_room(&self, _peer: PeerId) {}
}

/// The way on which a message came.
#[derive(Clone, Debug)]
pub enum Via {
    /// From this address.
    Udp(SocketAddr),
    /// On this stream.
    Stream(Arc<StreamQueue>),
}

impl Via {
    fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Udp(from) => Some(from.ip()),
            Self::Stream(_) => None,
        }
    }
}

/// What the engine lost, beside what the tunnel and the queues count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineDrops {
    /// Messages that the tunnel refused, by reason.
    #[serde(flatten)]
    pub tunnel: DropCounts,
    /// Packets to addresses that no peer has.
    pub no_peer: u64,
    /// Packets to a peer without a carrier.
    pub no_carrier: u64,
    /// Frames that no packet could be read from.
    pub unreadable: u64,
    /// Packets that came by UDP faster than the local side took them.
    pub local_full: u64,
    /// Frames for which no buffer was free.
    pub no_buffer: u64,
    /// UDP batches that the kernel refused.
    pub udp_send: u64,
}

#[derive(Default)]
struct Counters {
    no_peer: AtomicU64,
    no_carrier: AtomicU64,
    unreadable: AtomicU64,
    local_full: AtomicU64,
    no_buffer: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One end of the tunnel.
pub struct Engine {
    tunnel: Tunnel<Paths>,
    udp: Option<UdpCarrier>,
    local: Arc<dyn Local>,
    /// This end's own addresses in the tunnel: probes go to and come from them.
    own: RwLock<Vec<IpAddr>>,
    answers: mpsc::Sender<Answer>,
    pool: BufferPool,
    counters: Counters,
}

impl Engine {
    /// An engine without peers. Answers to its probes come out of the receiver.
    pub fn new(
        tunnel: Tunnel<Paths>,
        udp: Option<UdpCarrier>,
        local: Arc<dyn Local>,
    ) -> (Arc<Self>, mpsc::Receiver<Answer>) {
        let (answers, receiver) = mpsc::channel(MAX_ANSWERS);
        let engine = Self {
            tunnel,
            udp,
            local,
            own: RwLock::new(Vec::new()),
            answers,
            pool: BufferPool::new(POOLED_FRAMES),
            counters: Counters::default(),
        };
        (Arc::new(engine), receiver)
    }

    /// The tunnel, to add and remove peers.
    pub fn tunnel(&self) -> &Tunnel<Paths> {
        &self.tunnel
    }

    /// The UDP carrier, if there is one.
    pub fn udp(&self) -> Option<&UdpCarrier> {
        self.udp.as_ref()
    }

    /// Sets this end's addresses in the tunnel.
    pub fn set_own_addresses(&self, addresses: Vec<IpAddr>) {
        *self.own.write() = addresses;
    }

    /// Sends a sealed message on the peer's present carrier; for handshakes.
    pub fn send_message(&self, peer: &Peer<Paths>, message: &[u8]) {
        match peer.attached.direction() {
            Direction::Udp(to) => self.send_udp_message(to, message),
            Direction::Stream => {
                if let Some(stream) = peer.attached.any_stream() {
                    stream.push_message(message);
                }
            }
            Direction::None => count(&self.counters.no_carrier),
        }
    }

    /// Sends a sealed message back on the way on which one came.
    fn send_back(&self, via: &Via, message: &[u8]) {
        match via {
            Via::Udp(to) => self.send_udp_message(*to, message),
            Via::Stream(stream) => {
                stream.push_message(message);
            }
        }
    }

    fn send_udp_message(&self, to: SocketAddr, message: &[u8]) {
        if let Some(udp) = &self.udp {
            // A failure is counted by the carrier; whoever waits for an answer tries again.
            let _ = udp.send(to, message, message.len());
        }
    }

    /// Begins a handshake with the peer at once.
    pub fn initiate(&self, peer: &Peer<Paths>) {
        let mut out = [0_u8; MAX_HANDSHAKE];
        if let Some(len) = peer.initiate(&mut out) {
            self.send_message(peer, &out[..len]);
        }
    }

    /// Begins a handshake with the peer at once, with the same message on each of the ways given.
    pub fn initiate_on(&self, peer: &Peer<Paths>, ways: &[Via]) {
        let mut out = [0_u8; MAX_HANDSHAKE];
        if let Some(len) = peer.initiate(&mut out) {
            for way in ways {
                self.send_back(way, &out[..len]);
            }
        }
    }

    /// Sends a probe to the peer on the way given. False where there is no session yet.
    pub fn probe(&self, peer: &Peer<Paths>, via: &Via, probe: Probe) -> bool {
        let Some(own) = self.own.read().first().copied() else {
            return false;
        };
        let Some(to) = peer.attached.address(own.is_ipv4()) else {
            return false;
        };
        let Some(packet) = probe.to_packet(own, to) else {
            return false;
        };
        self.seal_back(peer, via, &packet)
    }

    fn seal_back(&self, peer: &Peer<Paths>, via: &Via, packet: &[u8]) -> bool {
        let mut out = [0_u8; probe::MAX_PACKET + MAX_HANDSHAKE];
        match peer.seal(packet, &mut out) {
            crate::tunnel::Sealed::Data(len) => {
                self.send_back(via, &out[..len]);
                true
            }
            crate::tunnel::Sealed::Initiation(len) => {
                self.send_back(via, &out[..len]);
                false
            }
            crate::tunnel::Sealed::Nothing => false,
        }
    }

    /// Drives the tunnel's timers for as long as it is polled.
    pub async fn run_timers(&self) {
        let mut ticks = tokio::time::interval(TIMER_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tunnel
                .handle_timeout(|peer, message| self.send_message(peer, message));
        }
    }

    /// What was lost so far.
    pub fn drops(&self) -> EngineDrops {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineDrops {
            tunnel: self.tunnel.drops(),
            no_peer: load(&self.counters.no_peer),
            no_carrier: load(&self.counters.no_carrier),
            unreadable: load(&self.counters.unreadable),
            local_full: load(&self.counters.local_full),
            no_buffer: load(&self.counters.no_buffer),
            udp_send: self.udp.as_ref().map_or(0, UdpCarrier::send_failures),
        }
    }
}

#[cfg(test)]
mod tests;
