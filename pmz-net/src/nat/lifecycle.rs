//! How flows come into everything that knows them and out of it, and how they wait for room.

use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::Interest;
use mio::unix::SourceFd;

use super::PeerId;
use super::counters::bump;
use super::flow::{FlowId, FlowKey, Protocol};
use super::worker::{Flow, Kind, Worker};

/// Flows asked in vain whether their carrier has room before the rest waits for the next time.
const MISSES: usize = 64;

impl Worker {
    /// Puts a new flow into the table and has its socket watched.
    pub(super) fn insert(&mut self, key: FlowKey, kind: Kind, deadline: Instant) -> Option<FlowId> {
        let flow = Flow {
            key,
            kind,
            queued: false,
            blocked: false,
            deadline,
            armed: None,
        };
        let id = self.flows.vacant();
        let interest = match &flow.kind {
            Kind::Tcp(_) => Interest::READABLE | Interest::WRITABLE,
            Kind::Udp(_) | Kind::Echo(_) => Interest::READABLE,
        };
        if self
            .registry
            .register(&mut SourceFd(&flow.fd()), id.token(), interest)
            .is_err()
        {
            bump(&self.counters.resource_limit_hits);
            return None;
        }
        let dialing = matches!(flow.kind, Kind::Tcp(_));
        self.flows.insert(key, flow);
        let usage = self.peers.usage(key.peer);
        usage.flows += 1;
        if dialing {
            usage.dials += 1;
        } else {
            usage.datagram_flow(id, self.now, self.config.max_flows_per_peer);
        }
        self.gauge(key.protocol, 1);
        self.queue(id);
        Some(id)
    }

    fn gauge(&self, protocol: Protocol, change: i64) {
        let counters = &self.counters;
        let kind = match protocol {
            Protocol::Tcp => &counters.tcp_flows,
            Protocol::Udp => &counters.udp_flows,
            Protocol::Echo => &counters.icmp_flows,
        };
        for gauge in [&counters.flows, kind] {
            gauge.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Takes a flow out of everything that knows it. Its socket closes with it.
    pub(super) fn remove(&mut self, id: FlowId, key: &FlowKey) -> Option<Flow> {
        let mut flow = self.flows.remove(id, key)?;
        if let Kind::Tcp(tcp) = &mut flow.kind {
            self.counters.add_tcp(tcp.take_counters());
        }
        self.gauge(key.protocol, -1);
        if let Some(usage) = self.peers.get_mut(key.peer) {
            usage.flows = usage.flows.saturating_sub(1);
            if let Kind::Tcp(tcp) = &flow.kind {
                if tcp.is_dialing() {
                    usage.dials = usage.dials.saturating_sub(1);
                } else {
                    usage.tcp_open = usage.tcp_open.saturating_sub(1);
                }
                let bytes = tcp.ring_bytes();
                usage.ring_bytes = usage.ring_bytes.saturating_sub(bytes);
                self.ring_bytes -= bytes;
            }
        }
        if flow.blocked {
            self.unblock(key.peer, id);
        }
        self.peers.tidy(key.peer);
        Some(flow)
    }

    pub(super) fn block(&mut self, key: FlowKey, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        if !flow.blocked {
            flow.blocked = true;
            let usage = self.peers.usage(key.peer);
            usage.blocked.push_back(id);
            if !std::mem::replace(&mut usage.awaits_room, true) {
                self.waiting.blocked_peers.fetch_add(1, Ordering::SeqCst);
            }
        }
        // Room made before the line above was not told.
        if self.outlet.has_room(key.peer, key.flow_hash()) {
            flow.blocked = false;
            self.unblock(key.peer, id);
            self.queue(id);
        }
    }

    pub(super) fn unblock(&mut self, peer: PeerId, id: FlowId) {
        let Some(usage) = self.peers.get_mut(peer) else {
            return;
        };
        usage.blocked.retain(|blocked| *blocked != id);
        if usage.blocked.is_empty() && std::mem::take(&mut usage.awaits_room) {
            self.waiting.blocked_peers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// The peer's carrier has room again: flows take turns, the one that waited longest first, until it
    /// has none.
    pub(super) fn room(&mut self, peer: PeerId) {
        let Some(usage) = self.peers.get_mut(peer) else {
            return;
        };
        let mut misses = 0;
        for _ in 0..usage.blocked.len() {
            let Some(usage) = self.peers.get_mut(peer) else {
                return;
            };
            let Some(id) = usage.blocked.pop_front() else {
                break;
            };
            let Some(flow) = self.flows.get_mut(id) else {
                continue;
            };
            let hash = flow.key.flow_hash();
            if !self.outlet.has_room(peer, hash) {
                // Another of the carrier's connections may have room; all of a crowd need not be asked.
                usage.blocked.push_back(id);
                misses += 1;
                if misses >= MISSES {
                    break;
                }
                continue;
            }
            flow.blocked = false;
            self.turn(id);
        }
        if let Some(usage) = self.peers.get_mut(peer)
            && usage.blocked.is_empty()
            && std::mem::take(&mut usage.awaits_room)
        {
            self.waiting.blocked_peers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Drops all flows of a peer.
    pub(super) fn forget(&mut self, peer: PeerId) {
        for id in self.flows.of_peer(peer) {
            let Some(flow) = self.flows.get_mut(id) else {
                continue;
            };
            if let Kind::Tcp(tcp) = &mut flow.kind {
                tcp.abort(self.now, None);
            }
            let key = flow.key;
            self.remove(id, &key);
        }
        self.time_wait.forget(peer);
        self.peers.tidy(peer);
    }

    /// Resets what is left.
    pub(super) fn end(&mut self) {
        for id in self.flows.all() {
            if let Some(flow) = self.flows.get_mut(id)
                && let Kind::Tcp(tcp) = &mut flow.kind
            {
                tcp.abort(self.now, Some(&mut self.outlet));
            }
        }
        self.outlet.flush();
    }
}
