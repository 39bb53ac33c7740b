//! The engine as the NAT sees it, and the NAT as the engine sees it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use pmz_net::engine::outbound::Outbound;
use pmz_net::engine::{Direction, Engine, Local, Paths};
use pmz_net::nat::{Egress, Frame, Inbox, Nat, Waker, Way};
use pmz_net::tunnel::{Peer, PeerId};

use crate::sessions::INNER_MTU;

/// Bytes that one flow may have in flight by UDP, where a queue of unknown depth stands in the way:
/// smoltcp's sender does not survive losses that it causes itself.
const IN_FLIGHT_UDP: usize = 384 << 10;
/// The same towards an end that takes no super-packets, so is another WireGuard: its socket has the system's default buffer, 208 KiB on Linux, in
/// which a datagram of 1.4 kB counts as 2.3.
const IN_FLIGHT_UDP_PLAIN: usize = 96 << 10;
/// On a stream nothing is lost; the carrier asks for what it can take.
const IN_FLIGHT_STREAM: usize = 4 << 20;

/// Packets from the NAT into the tunnel.
pub(crate) struct TunnelEgress {
    engine: Arc<Engine>,
    outbound: Outbound,
    /// The peer of the packet before: packets come in runs.
    last: Option<Arc<Peer<Paths>>>,
}

impl TunnelEgress {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            outbound: Outbound::default(),
            last: None,
        }
    }

    fn peer(&self, id: PeerId) -> Option<Arc<Peer<Paths>>> {
        match &self.last {
            Some(peer) if peer.id() == id => Some(peer.clone()),
            Some(_) | None => self.engine.tunnel().peer(id),
        }
    }
}

impl Egress for TunnelEgress {
    fn has_room(&self, peer: PeerId, flow_hash: u32) -> bool {
        let Some(peer) = self.peer(peer) else {
            return true;
        };
        match peer.attached.direction() {
            Direction::Stream => peer
                .attached
                .stream_for(flow_hash)
                .is_none_or(|stream| stream.has_room()),
            Direction::Udp(_) | Direction::None => true,
        }
    }

    fn transmit(&mut self, peer: PeerId, flow_hash: u32, frame: &mut [u8]) {
        let Some(peer) = self.peer(peer) else { return };
        self.engine
            .send(&mut self.outbound, &peer, flow_hash, frame);
        self.last = Some(peer);
    }

    fn transmit_gathered(
        &mut self,
        peer: PeerId,
        flow_hash: u32,
        head: &mut [u8],
        payload: [&[u8]; 2],
    ) {
        let Some(peer) = self.peer(peer) else { return };
        self.engine
            .send_gathered(&mut self.outbound, &peer, flow_hash, head, payload);
        self.last = Some(peer);
    }

    fn flush(&mut self) {
        self.engine.flush(&mut self.outbound);
    }

    fn way(&self, peer: PeerId) -> Way {
        let Some(peer) = self.peer(peer) else {
            return Way {
                mtu: INNER_MTU,
                lossless: false,
                in_flight_limit: IN_FLIGHT_UDP_PLAIN,
            };
        };
        let paths = &peer.attached;
        let lossless = matches!(paths.direction(), Direction::Stream);
        Way {
            mtu: paths.mtu(),
            lossless,
            in_flight_limit: match lossless {
                true => IN_FLIGHT_STREAM,
                false if paths.super_packets() => IN_FLIGHT_UDP,
                false => IN_FLIGHT_UDP_PLAIN,
            },
        }
    }
}

/// Packets from the tunnel into the NAT. The NAT is started after the engine, which it needs.
pub(crate) struct NatLocal {
    inbox: Inbox,
    waker: Waker,
}

impl NatLocal {
    pub(crate) fn new(nat: &Nat) -> Self {
        Self {
            inbox: nat.inbox(),
            waker: nat.waker(),
        }
    }

    fn owned(&self, frame: &[u8]) -> Frame {
        let mut owned = self.inbox.frames().take(frame.len());
        owned.extend_from_slice(frame);
        owned
    }
}

impl Local for NatLocal {
    fn deliver(&self, peer: PeerId, frame: &[u8]) -> bool {
        self.inbox.try_push(peer, self.owned(frame)).is_ok()
    }

    fn deliver_waiting<'a>(
        &'a self,
        peer: PeerId,
        frame: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let frame = self.owned(frame);
        Box::pin(async move {
            // Where the NAT has stopped the agent is ending, and nobody waits for the packet.
            let _ = self.inbox.push(peer, frame).await;
        })
    }

    fn settle(&self, busy: bool) {
        match busy {
            true => self.inbox.hand_over(),
            false => self.inbox.settle(),
        }
    }

    fn peer_has_room(&self, peer: PeerId) {
        self.waker.room(peer);
    }
}
