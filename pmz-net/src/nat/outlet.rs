//! Packets towards clients: headers, checksums left to the tunnel's ends, and what the NAT says itself.

use std::net::IpAddr;
use std::sync::Arc;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, TcpControl, TcpPacket,
    TcpRepr, TcpSeqNumber, UdpPacket, checksum,
};

use super::counters::{add, bump};
use super::flow::FlowKey;
use super::sockets::Unreachable;
use super::tcp::Segment;
use super::wire::{emit_ip, emit_v4_fragment, emit_v6_fragment, ip_header_len, smol};
use super::{Egress, NatCounters, PeerId, Way};
use crate::packet::{GsoKind, MAX_FRAME, VNET_HDR_LEN, VnetHdr};

const TCP_CHECKSUM_OFFSET: u16 = 16;
const UDP_CHECKSUM_OFFSET: u16 = 6;
pub(super) const UDP_HEADER_LEN: usize = 8;
const ICMP_HEADER_LEN: usize = 8;
/// An ICMP error is at most this long (RFC 1812, 4.3.2.3 and RFC 4443, 2.4).
const ICMPV4_ERROR_MAX: usize = 576;
const ICMPV6_ERROR_MAX: usize = 1280;
/// No tunnel's MTU is smaller.
const MIN_MTU: u16 = 576;

/// Where frames for clients are made and go out.
pub(super) struct Outlet {
    egress: Box<dyn Egress>,
    counters: Arc<NatCounters>,
    frame: Box<[u8]>,
    fragment: Box<[u8]>,
    held_back: bool,
    next_ident: u32,
}

impl Outlet {
    pub(super) fn new(egress: Box<dyn Egress>, counters: Arc<NatCounters>) -> Self {
        Self {
            egress,
            counters,
            frame: vec![0; MAX_FRAME].into_boxed_slice(),
            fragment: vec![0; MAX_FRAME].into_boxed_slice(),
            held_back: false,
            next_ident: rand::random(),
        }
    }

    pub(super) fn has_room(&self, peer: PeerId, hash: u32) -> bool {
        self.egress.has_room(peer, hash)
    }

    pub(super) fn mtu(&self, peer: PeerId) -> u16 {
        self.way(peer).mtu
    }

    /// How TCP segments to this peer travel now.
    pub(super) fn way(&self, peer: PeerId) -> Way {
        let mut way = self.egress.way(peer);
        way.mtu = way.mtu.max(MIN_MTU);
        way
    }

    /// Where the next packet is to be written.
    pub(super) fn packet(&mut self) -> &mut [u8] {
        &mut self.frame[VNET_HDR_LEN..]
    }

    /// Lets go what was held back, if anything was.
    pub(super) fn flush(&mut self) {
        if std::mem::take(&mut self.held_back) {
            self.egress.flush();
        }
    }

    fn send(&mut self, peer: PeerId, hash: u32, header: VnetHdr, len: usize) {
        header.emit(&mut self.frame);
        let frame = &mut self.frame[..VNET_HDR_LEN + len];
        bump(&self.counters.frames_out);
        add(&self.counters.bytes_out, frame.len() as u64);
        self.egress.transmit(peer, hash, frame);
        self.held_back = true;
    }

    /// Sends the TCP segment whose headers stand in [`Outlet::packet`], and whose payload stands behind them
    /// or elsewhere.
    pub(super) fn segment(
        &mut self,
        key: &FlowKey,
        hash: u32,
        segment: Segment,
        mss: usize,
        elsewhere: Option<[&[u8]; 2]>,
    ) {
        let ip = ip_header_len(key.service.ip());
        let Segment {
            header_len,
            payload_len,
        } = segment;
        let tcp_len = header_len + payload_len - ip;
        let sum = pseudo_header(key.service.ip(), key.client.ip(), IpProtocol::Tcp, tcp_len);
        let mut tcp = TcpPacket::new_unchecked(&mut self.packet()[ip..header_len]);
        tcp.set_checksum(sum);
        let reduced = tcp.cwr();
        let largest = usize::from(self.mtu(key.peer)).saturating_sub(header_len);
        let gso_size = mss.min(largest);
        let gso = match key.service {
            _ if payload_len <= gso_size => GsoKind::None,
            std::net::SocketAddr::V4(_) => GsoKind::TcpV4,
            std::net::SocketAddr::V6(_) => GsoKind::TcpV6,
        };
        let super_packet = gso != GsoKind::None;
        let header = VnetHdr {
            needs_csum: true,
            gso,
            // That the window was reduced is said once.
            ecn: super_packet && reduced,
            hdr_len: if super_packet { header_len as u16 } else { 0 },
            gso_size: if super_packet { gso_size as u16 } else { 0 },
            csum_start: ip as u16,
            csum_offset: TCP_CHECKSUM_OFFSET,
        };
        let Some(payload) = elsewhere else {
            return self.send(key.peer, hash, header, header_len + payload_len);
        };
        if !super_packet {
            let [first, second] = payload;
            let room = &mut self.packet()[header_len..header_len + payload_len];
            let (front, back) = room.split_at_mut(first.len());
            front.copy_from_slice(first);
            back.copy_from_slice(second);
            return self.send(key.peer, hash, header, header_len + payload_len);
        }
        header.emit(&mut self.frame);
        let head = &mut self.frame[..VNET_HDR_LEN + header_len];
        bump(&self.counters.frames_out);
        add(&self.counters.bytes_out, (head.len() + payload_len) as u64);
        self.egress.transmit_gathered(key.peer, hash, head, payload);
        self.held_back = true;
    }

    /// Sends a TCP segment without payload: `Rst` or `None` for a bare acknowledgement.
    pub(super) fn bare_segment(
        &mut self,
        key: &FlowKey,
        control: TcpControl,
        seq: u32,
        ack: Option<u32>,
        window_len: u16,
    ) {
        let repr = TcpRepr {
            src_port: key.service.port(),
            dst_port: key.client.port(),
            control,
            seq_number: TcpSeqNumber(seq.cast_signed()),
            ack_number: ack.map(|ack| TcpSeqNumber(ack.cast_signed())),
            window_len,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (src, dst) = (key.service.ip(), key.client.ip());
        let packet = self.packet();
        let Some(ip) = emit_ip(packet, src, dst, IpProtocol::Tcp, repr.buffer_len()) else {
            return;
        };
        let header_len = ip + repr.buffer_len();
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut packet[ip..header_len]),
            &smol(src),
            &smol(dst),
            &ChecksumCapabilities::ignored(),
        );
        let segment = Segment {
            header_len,
            payload_len: 0,
        };
        self.segment(key, key.flow_hash(), segment, usize::MAX, None);
    }

    /// Refuses a segment (RFC 9293, 3.10.7.1).
    pub(super) fn refuse(&mut self, key: &FlowKey, segment: &TcpPacket<&[u8]>) {
        if segment.rst() {
            return;
        }
        if segment.ack() {
            let seq = segment.ack_number().0.cast_unsigned();
            self.bare_segment(key, TcpControl::Rst, seq, None, 0);
        } else {
            let ack = segment.seq_number().0.cast_unsigned();
            let len = u32::try_from(segment.segment_len()).unwrap_or(0);
            self.bare_segment(key, TcpControl::Rst, 0, Some(ack.wrapping_add(len)), 0);
        }
    }

    /// Sends datagrams of `size` bytes each, the last one shorter; their payload of `len` bytes together
    /// stands behind the headers' place in [`Outlet::packet`].
    pub(super) fn datagrams(&mut self, key: &FlowKey, hash: u32, len: usize, size: usize) {
        let headers = ip_header_len(key.service.ip()) + UDP_HEADER_LEN;
        let fits = headers + size <= usize::from(self.mtu(key.peer));
        if len <= size || fits {
            let size = (len > size).then_some(size);
            self.datagram(key, hash, len, size);
            return;
        }
        // Joined by the kernel, but each too large for the tunnel: rare enough for a copy.
        let payload = self.packet()[headers..headers + len].to_vec();
        for datagram in payload.chunks(size.max(1)) {
            self.packet()[headers..headers + datagram.len()].copy_from_slice(datagram);
            self.datagram(key, hash, datagram.len(), None);
        }
    }

    /// Sends a datagram, in fragments where it is larger than the MTU, or a super-packet to be cut by `cut`.
    fn datagram(&mut self, key: &FlowKey, hash: u32, len: usize, cut: Option<usize>) {
        let (src, dst) = (key.service.ip(), key.client.ip());
        let ip = ip_header_len(src);
        let udp_len = UDP_HEADER_LEN + len;
        let total = ip + udp_len;
        let fits = cut.is_some() || total <= usize::from(self.mtu(key.peer));
        let packet = self.packet();
        if emit_ip(packet, src, dst, IpProtocol::Udp, udp_len).is_none() {
            return;
        }
        let mut udp = UdpPacket::new_unchecked(&mut packet[ip..total]);
        udp.set_src_port(key.service.port());
        udp.set_dst_port(key.client.port());
        udp.set_len(udp_len as u16);
        if !fits {
            udp.fill_checksum(&smol(src), &smol(dst));
            self.fragments(key.peer, hash, ip, total);
            return;
        }
        udp.set_checksum(pseudo_header(src, dst, IpProtocol::Udp, udp_len));
        let mut header = VnetHdr {
            needs_csum: true,
            csum_start: ip as u16,
            csum_offset: UDP_CHECKSUM_OFFSET,
            ..VnetHdr::default()
        };
        if let Some(size) = cut {
            header.gso = GsoKind::UdpL4;
            header.hdr_len = (ip + UDP_HEADER_LEN) as u16;
            header.gso_size = size as u16;
        }
        self.send(key.peer, hash, header, total);
    }

    /// Sends an ICMP message, whose `len` bytes stand behind the IP header's place in [`Outlet::packet`]; its
    /// checksum is filled in here.
    pub(super) fn icmp(&mut self, peer: PeerId, hash: u32, src: IpAddr, dst: IpAddr, len: usize) {
        let ip = ip_header_len(src);
        let total = ip + len;
        let fits = total <= usize::from(self.mtu(peer));
        let packet = self.packet();
        let protocol = match (src, dst) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                Icmpv4Packet::new_unchecked(&mut packet[ip..total]).fill_checksum();
                IpProtocol::Icmp
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                Icmpv6Packet::new_unchecked(&mut packet[ip..total]).fill_checksum(&src, &dst);
                IpProtocol::Icmpv6
            }
            _ => return,
        };
        if emit_ip(packet, src, dst, protocol, len).is_none() {
            return;
        }
        if fits {
            self.send(peer, hash, VnetHdr::default(), total);
        } else {
            self.fragments(peer, hash, ip, total);
        }
    }

    /// Says that a packet went nowhere, quoting it. The answer comes from where the packet was to go.
    pub(super) fn unreachable(&mut self, key: &FlowKey, why: Unreachable, quote: &[u8]) {
        let (src, dst) = (key.service.ip(), key.client.ip());
        let ip = ip_header_len(src);
        let largest = match src {
            IpAddr::V4(_) => ICMPV4_ERROR_MAX,
            IpAddr::V6(_) => ICMPV6_ERROR_MAX,
        };
        let largest = largest.min(usize::from(self.mtu(key.peer)));
        let quote = &quote[..quote.len().min(largest - ip - ICMP_HEADER_LEN)];
        let message = &mut self.packet()[ip..ip + ICMP_HEADER_LEN + quote.len()];
        message[..ICMP_HEADER_LEN].fill(0);
        message[ICMP_HEADER_LEN..].copy_from_slice(quote);
        let (kind, code) = match src {
            IpAddr::V4(_) => (
                Icmpv4Message::DstUnreachable.into(),
                match why {
                    Unreachable::Network => 0,
                    Unreachable::Host => 1,
                    Unreachable::Port => 3,
                    Unreachable::Prohibited => 13,
                },
            ),
            IpAddr::V6(_) => (
                Icmpv6Message::DstUnreachable.into(),
                match why {
                    Unreachable::Network => 0,
                    Unreachable::Prohibited => 1,
                    Unreachable::Host => 3,
                    Unreachable::Port => 4,
                },
            ),
        };
        (message[0], message[1]) = (kind, code);
        let len = message.len();
        self.icmp(key.peer, key.flow_hash(), src, dst, len);
    }

    /// Sends the packet in [`Outlet::packet`] in fragments: `ip` bytes of IP header without options, `total` bytes in all.
    fn fragments(&mut self, peer: PeerId, hash: u32, ip: usize, total: usize) {
        self.next_ident = self.next_ident.wrapping_add(1);
        let ident = self.next_ident;
        let mtu = usize::from(self.mtu(peer));
        let v6 = self.frame[VNET_HDR_LEN] >> 4 == 6;
        let headers = if v6 { ip + 8 } else { ip };
        let step = (mtu - headers) / 8 * 8;
        let mut offset = 0;
        while ip + offset < total {
            let start = ip + offset;
            let len = step.min(total - start);
            let more = start + len < total;
            let out = &mut self.fragment[..VNET_HDR_LEN + headers + len];
            VnetHdr::default().emit(out);
            let packet = &mut out[VNET_HDR_LEN..];
            let whole = &self.frame[VNET_HDR_LEN..];
            packet[..ip].copy_from_slice(&whole[..ip]);
            packet[headers..].copy_from_slice(&whole[start..start + len]);
            if v6 {
                emit_v6_fragment(packet, offset, more, ident);
            } else {
                emit_v4_fragment(packet, offset, more, ident);
            }
            bump(&self.counters.frames_out);
            add(&self.counters.bytes_out, out.len() as u64);
            self.egress.transmit(peer, hash, out);
            self.held_back = true;
            offset += len;
        }
    }
}

fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: IpProtocol, len: usize) -> u16 {
    checksum::pseudo_header(&smol(src), &smol(dst), protocol, len as u32)
}
