//! Packets from clients: to the flow that they belong to, to a new one, or answered at once.

use std::io;
use std::net::SocketAddr;

use smoltcp::wire::{IpProtocol, TcpControl, TcpPacket, UdpPacket};

use super::counters::bump;
use super::echo::{EchoFlow, make_reply, request_ident};
use super::flow::{FlowId, FlowKey, Protocol};
use super::outlet::UDP_HEADER_LEN;
use super::sockets::{Failure, Unreachable, dial_echo, dial_tcp, dial_udp};
use super::tcp::{Opening, TcpFlow, TimeWaitVerdict};
use super::udp::UdpFlow;
use super::wire::{IpView, Parsed, ip_header_len, parse, without_options};
use super::worker::{Kind, Worker};
use super::{Frame, PeerId};
use crate::packet::{GsoKind, VNET_HDR_LEN, VnetHdr};

impl Worker {
    /// Takes a frame of a peer.
    pub(super) fn inbound(&mut self, peer: PeerId, frame: &mut Frame) {
        let (Some(header), Some(packet)) = (VnetHdr::parse(frame), frame.get_mut(VNET_HDR_LEN..))
        else {
            bump(&self.counters.malformed);
            return;
        };
        match parse(packet) {
            Some(Parsed::Whole(view)) => self.whole(peer, &header, packet, &view),
            Some(Parsed::Fragment) => self.fragment(peer, packet),
            None => bump(&self.counters.malformed),
        }
    }

    /// Keeps a fragment until the rest is there.
    fn fragment(&mut self, peer: PeerId, packet: &[u8]) {
        let whole = self.reassembler.push(self.now, packet);
        self.count_fragments();
        let Some(mut packet) = whole else { return };
        match parse(&packet) {
            Some(Parsed::Whole(view)) => {
                self.whole(peer, &VnetHdr::default(), &mut packet, &view);
            }
            Some(Parsed::Fragment) | None => bump(&self.counters.malformed),
        }
    }

    fn whole(&mut self, peer: PeerId, header: &VnetHdr, packet: &mut [u8], view: &IpView) {
        let handled = match view.protocol {
            IpProtocol::Tcp => self.tcp(peer, packet, view),
            IpProtocol::Udp => self.udp(peer, header, packet, view),
            IpProtocol::Icmp if view.dst.is_ipv4() => self.icmp(peer, packet, view),
            IpProtocol::Icmpv6 if view.dst.is_ipv6() => self.icmp(peer, packet, view),
            _ => None,
        };
        if handled.is_none() {
            bump(&self.counters.malformed);
        }
    }

    fn tcp(&mut self, peer: PeerId, packet: &mut [u8], view: &IpView) -> Option<()> {
        let segment = TcpPacket::new_checked(&packet[view.l4..view.end]).ok()?;
        if segment.src_port() == 0 || segment.dst_port() == 0 {
            return None;
        }
        let key = FlowKey {
            peer,
            protocol: Protocol::Tcp,
            client: SocketAddr::new(view.src, segment.src_port()),
            service: SocketAddr::new(view.dst, segment.dst_port()),
        };
        let opens = segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
        let isn = segment.seq_number().0.cast_unsigned();

        let Some(id) = self.flows.id(&key) else {
            let verdict = self
                .time_wait
                .segment(self.now, &key, segment.syn(), segment.rst(), isn);
            match verdict {
                TimeWaitVerdict::Acknowledge { seq, ack } => {
                    self.outlet
                        .bare_segment(&key, TcpControl::None, seq, Some(ack), 0);
                }
                TimeWaitVerdict::Ignore => {}
                TimeWaitVerdict::Unknown if opens => {
                    let opening = Opening::read(&segment, &packet[..view.end])?;
                    self.open_tcp(&key, opening, &packet[view.l4..view.end]);
                }
                TimeWaitVerdict::Unknown => {
                    bump(&self.counters.stray_segments);
                    self.outlet.refuse(&key, &segment);
                }
            }
            return Some(());
        };
        let Kind::Tcp(flow) = &mut self.flows.get_mut(id)?.kind else {
            return None;
        };
        if flow.is_dialing() {
            if segment.rst() {
                flow.abort(self.now, None);
                self.remove(id, &key);
            } else if opens {
                let opening = Opening::read(&segment, &packet[..view.end])?;
                flow.retry(opening);
            }
            return Some(());
        }
        if opens {
            flow.another_syn(isn, &mut self.outlet);
            return Some(());
        }
        let packet = without_options(packet, view)?;
        if flow.segment(self.now, packet, &mut self.outlet).is_err() {
            bump(&self.counters.bad_segments);
        }
        self.queue(id);
        Some(())
    }

    fn open_tcp(&mut self, key: &FlowKey, opening: Opening, segment: &[u8]) {
        let segment = TcpPacket::new_unchecked(segment);
        if self.config.is_own(key.service.ip()) {
            self.outlet.refuse(key, &segment);
            return;
        }
        if self.config.denies(key.service.ip()) {
            bump(&self.counters.denied);
            self.outlet
                .unreachable(key, Unreachable::Prohibited, &opening.quote);
            return;
        }
        let dials = self.peers.usage(key.peer).dials;
        let too_many = dials >= self.config.max_dials_per_peer;
        if too_many || !self.has_place(key) {
            bump(&self.counters.flow_limit_hits);
            self.outlet.refuse(key, &segment);
            return;
        }
        bump(&self.counters.dials);
        match dial_tcp(key.service, &self.ports) {
            Ok(socket) => {
                let until = self.now + self.config.dial_timeout;
                let flow = TcpFlow::new(*key, socket, opening, until);
                if self
                    .insert(*key, Kind::Tcp(Box::new(flow)), until)
                    .is_none()
                {
                    self.outlet.refuse(key, &segment);
                }
            }
            Err(e) => self.dial_failed(key, Failure::of(&e), opening.isn(), &opening.quote),
        }
    }

    /// Tells a client that its SYN was refused or went nowhere.
    pub(super) fn dial_failed(&mut self, key: &FlowKey, failure: Failure, isn: u32, quote: &[u8]) {
        let counter = match failure {
            Failure::Refused => &self.counters.dials_refused,
            Failure::Unreachable(_) => &self.counters.dials_unreachable,
            Failure::Exhausted => &self.counters.resource_limit_hits,
        };
        bump(counter);
        match failure {
            Failure::Unreachable(why) => self.outlet.unreachable(key, why, quote),
            Failure::Refused | Failure::Exhausted => {
                let ack = isn.wrapping_add(1);
                self.outlet
                    .bare_segment(key, TcpControl::Rst, 0, Some(ack), 0);
            }
        }
    }

    /// Whether the limits allow another flow of this peer; an idle datagram flow makes way.
    fn has_place(&mut self, key: &FlowKey) -> bool {
        let usage = self.peers.usage(key.peer);
        let full = usage.flows >= self.config.max_flows_per_peer
            || self.flows.len() >= self.config.max_flows;
        if !full {
            return true;
        }
        let flows = &mut self.flows;
        let oldest = usage.evict(|id| flows.get_mut(id)?.datagram_active());
        let Some(id) = oldest else { return false };
        let Some(old) = self.flows.get_mut(id).map(|flow| flow.key) else {
            return false;
        };
        bump(&self.counters.evicted);
        self.remove(id, &old);
        true
    }

    fn udp(&mut self, peer: PeerId, header: &VnetHdr, packet: &[u8], view: &IpView) -> Option<()> {
        let bytes = &packet[view.l4..view.end];
        let super_packet = header.gso == GsoKind::UdpL4;
        // A super-packet's UDP length need not be that of the whole.
        let (client_port, service_port, payload) = if super_packet {
            let payload = bytes.get(UDP_HEADER_LEN..)?;
            let udp = UdpPacket::new_unchecked(bytes);
            (udp.src_port(), udp.dst_port(), payload)
        } else {
            let udp = UdpPacket::new_checked(bytes).ok()?;
            (udp.src_port(), udp.dst_port(), udp.payload())
        };
        if client_port == 0 || service_port == 0 {
            return None;
        }
        let key = FlowKey {
            peer,
            protocol: Protocol::Udp,
            client: SocketAddr::new(view.src, client_port),
            service: SocketAddr::new(view.dst, service_port),
        };
        let id = match self.flows.id(&key) {
            Some(id) => id,
            None => {
                let id = self.open_datagram(&key, &packet[..view.end], |key, now| {
                    Ok(Kind::Udp(UdpFlow::new(*key, dial_udp(key.service)?, now)))
                });
                let Some(id) = id else { return Some(()) };
                id
            }
        };
        let segment = super_packet.then_some(header.gso_size);
        if let Kind::Udp(udp) = &mut self.flows.get_mut(id)?.kind {
            udp.forward(self.now, payload, segment, &mut self.outlet, &self.counters);
        }
        Some(())
    }

    fn icmp(&mut self, peer: PeerId, packet: &[u8], view: &IpView) -> Option<()> {
        let message = &packet[view.l4..view.end];
        // Errors about what the NAT sent are of no use to it, and nothing else is for it to answer.
        let Some(ident) = request_ident(view.dst, message) else {
            return Some(());
        };
        let key = FlowKey {
            peer,
            protocol: Protocol::Echo,
            client: SocketAddr::new(view.src, ident),
            service: SocketAddr::new(view.dst, 0),
        };
        if self.config.is_own(view.dst) {
            let ip = ip_header_len(view.dst);
            let reply = self.outlet.packet().get_mut(ip..ip + message.len())?;
            reply.copy_from_slice(message);
            make_reply(view.dst, reply);
            self.outlet
                .icmp(peer, key.flow_hash(), view.dst, view.src, message.len());
            return Some(());
        }
        let id = match self.flows.id(&key) {
            Some(id) => id,
            None => {
                let id = self.open_datagram(&key, &packet[..view.end], |key, now| {
                    let socket = dial_echo(key.service.ip())?;
                    Ok(Kind::Echo(EchoFlow::new(*key, socket, now)))
                });
                let Some(id) = id else { return Some(()) };
                id
            }
        };
        if let Kind::Echo(echo) = &mut self.flows.get_mut(id)?.kind {
            echo.forward(self.now, message, &self.counters);
        }
        Some(())
    }

    /// Makes a UDP or echo flow, or tells the client why not.
    fn open_datagram(
        &mut self,
        key: &FlowKey,
        quote: &[u8],
        dial: impl FnOnce(&FlowKey, std::time::Instant) -> io::Result<Kind>,
    ) -> Option<FlowId> {
        let destination = key.service.ip();
        if self.config.is_own(destination) {
            self.outlet.unreachable(key, Unreachable::Port, quote);
            return None;
        }
        if self.config.denies(destination) {
            bump(&self.counters.denied);
            self.outlet.unreachable(key, Unreachable::Prohibited, quote);
            return None;
        }
        if !self.has_place(key) {
            bump(&self.counters.flow_limit_hits);
            return None;
        }
        let error = match dial(key, self.now) {
            Ok(kind) => {
                let deadline = self.now + self.config.icmp_idle.min(self.config.udp_idle);
                return self.insert(*key, kind, deadline);
            }
            Err(e) => e,
        };
        match Failure::of(&error) {
            Failure::Exhausted => bump(&self.counters.resource_limit_hits),
            Failure::Refused => self.outlet.unreachable(key, Unreachable::Port, quote),
            Failure::Unreachable(why) => {
                if key.protocol == Protocol::Echo && why == Unreachable::Prohibited {
                    bump(&self.counters.echo_not_permitted);
                }
                self.outlet.unreachable(key, why, quote);
            }
        }
        None
    }
}
