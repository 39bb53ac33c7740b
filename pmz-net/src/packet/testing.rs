//! Packets for tests. Their checksums are made and verified by smoltcp, so that ours is not checked by itself.

use std::net::IpAddr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use super::ip::{ICMP, ICMPV6, IpView, TCP, UDP};
use super::tcp;
use super::{VNET_HDR_LEN, VnetHdr};

pub(crate) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub(crate) fn random_bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes[..]);
    bytes
}

/// A packet to be built. TCP unless `protocol` says UDP.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) v4: bool,
    pub(crate) protocol: u8,
    pub(crate) ports: (u16, u16),
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// TCP options; a multiple of 4 bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) id: u16,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) dont_fragment: bool,
}

impl Sample {
    pub(crate) fn tcp(v4: bool) -> Self {
        Self {
            v4,
            protocol: TCP,
            ports: (40_000, 80),
            seq: 1000,
            ack: 77,
            flags: tcp::ACK,
            // Two NOPs and a timestamp.
            options: vec![1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
            payload: Vec::new(),
            id: 100,
            tos: 0,
            ttl: 64,
            dont_fragment: true,
        }
    }

    pub(crate) fn udp(v4: bool) -> Self {
        Self {
            protocol: UDP,
            options: Vec::new(),
            ..Self::tcp(v4)
        }
    }

    pub(crate) fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub(crate) fn transport_len(&self) -> usize {
        let header = if self.protocol == UDP { 8 } else { 20 };
        header + self.options.len() + self.payload.len()
    }

    fn ip(&self) -> Vec<u8> {
        let len = self.transport_len() as u16;
        if self.v4 {
            let mut out = vec![0x45, self.tos];
            out.extend((len + 20).to_be_bytes());
            out.extend(self.id.to_be_bytes());
            out.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
            out.extend([self.ttl, self.protocol, 0, 0]);
            out.extend([10, 0, 0, 1, 10, 96, 0, 7]);
            Ipv4Packet::new_unchecked(&mut out).fill_checksum();
            return out;
        }
        let mut out = vec![0x60 | self.tos >> 4, self.tos << 4, 0x12, 0x34];
        out.extend(len.to_be_bytes());
        out.extend([self.protocol, self.ttl]);
        for last in [1, 7] {
            out.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        out
    }

    /// The packet with right checksums.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut out = self.ip();
        let transport = out.len();
        out.extend(self.ports.0.to_be_bytes());
        out.extend(self.ports.1.to_be_bytes());
        if self.protocol == UDP {
            out.extend((self.transport_len() as u16).to_be_bytes());
            out.extend([0, 0]);
        } else {
            out.extend(self.seq.to_be_bytes());
            out.extend(self.ack.to_be_bytes());
            let data_offset = (20 + self.options.len()) / 4;
            out.extend([(data_offset as u8) << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
            out.extend(&self.options);
        }
        out.extend(&self.payload);
        fill_transport_checksum(&mut out, transport);
        out
    }

    /// A frame with a partial checksum, as a TUN gives it; `header` needs only what makes a super-packet one.
    pub(crate) fn frame(&self, header: VnetHdr) -> Vec<u8> {
        let packet = self.build();
        let transport = packet.len() - self.transport_len();
        let csum_offset = if self.protocol == UDP { 6 } else { 16 };
        let header = VnetHdr {
            needs_csum: true,
            hdr_len: (packet.len() - self.payload.len()) as u16,
            csum_start: transport as u16,
            csum_offset,
            ..header
        };
        let mut frame = vec![0; VNET_HDR_LEN];
        header.emit(&mut frame);
        frame.extend(packet);
        let at = VNET_HDR_LEN + transport + usize::from(csum_offset);
        let sum = naive_pseudo_sum(&frame[VNET_HDR_LEN..]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        frame
    }
}

pub(crate) fn addresses(packet: &[u8]) -> (IpAddr, IpAddr) {
    if packet[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_unchecked(packet);
        (ip.src_addr().into(), ip.dst_addr().into())
    } else {
        let ip = Ipv6Packet::new_unchecked(packet);
        (ip.src_addr().into(), ip.dst_addr().into())
    }
}

/// The pseudo-header's sum, word by word.
pub(crate) fn naive_pseudo_sum(packet: &[u8]) -> u16 {
    let view = IpView::parse(packet).unwrap();
    let mut bytes = Vec::new();
    let (src, dst) = addresses(packet);
    for address in [src, dst] {
        match address {
            IpAddr::V4(a) => bytes.extend(a.octets()),
            IpAddr::V6(a) => bytes.extend(a.octets()),
        }
    }
    bytes.extend((view.transport().len() as u16).to_be_bytes());
    bytes.extend([0, view.protocol()]);
    naive_sum(&bytes)
}

/// The definition: words added with the carry brought round.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn fill_transport_checksum(packet: &mut [u8], transport: usize) {
    let (src, dst) = addresses(packet);
    let protocol = IpView::parse(packet).unwrap().protocol();
    let (src, dst) = (src.into(), dst.into());
    match protocol {
        TCP => TcpPacket::new_unchecked(&mut packet[transport..]).fill_checksum(&src, &dst),
        UDP => UdpPacket::new_unchecked(&mut packet[transport..]).fill_checksum(&src, &dst),
        other => panic!("no checksum for protocol {other}"),
    }
}

/// Fails unless smoltcp finds the packet sound: lengths, IP checksum, transport checksum.
#[track_caller]
pub(crate) fn assert_sound(packet: &[u8]) {
    let (src, dst) = addresses(packet);
    if src.is_ipv4() {
        let ip = Ipv4Packet::new_checked(packet).expect("IPv4 header");
        assert!(ip.verify_checksum(), "IPv4 checksum");
        assert_eq!(usize::from(ip.total_len()), packet.len(), "total length");
    } else {
        let ip = Ipv6Packet::new_checked(packet).expect("IPv6 header");
        assert_eq!(ip.total_len(), packet.len(), "payload length");
    }
    let view = IpView::parse(packet).unwrap();
    let transport = view.transport();
    let ends = (src.into(), dst.into());
    match (view.protocol(), src, dst) {
        (TCP, ..) => {
            let segment = TcpPacket::new_checked(transport).expect("TCP header");
            assert!(segment.verify_checksum(&ends.0, &ends.1), "TCP checksum");
        }
        (UDP, ..) => {
            let datagram = UdpPacket::new_checked(transport).expect("UDP header");
            assert_eq!(usize::from(datagram.len()), transport.len(), "UDP length");
            assert!(datagram.verify_checksum(&ends.0, &ends.1), "UDP checksum");
        }
        (ICMP, ..) => {
            let message = Icmpv4Packet::new_checked(transport).expect("ICMP header");
            assert!(message.verify_checksum(), "ICMP checksum");
        }
        (ICMPV6, IpAddr::V6(src), IpAddr::V6(dst)) => {
            let message = Icmpv6Packet::new_checked(transport).expect("ICMPv6 header");
            assert!(message.verify_checksum(&src, &dst), "ICMPv6 checksum");
        }
        other => panic!("unexpected protocol in {other:?}"),
    }
}

/// A packet that was sound and had some bytes changed, or was cut: what an attacker sends.
pub(crate) fn mangled(rng: &mut StdRng) -> Vec<u8> {
    let v4 = rng.random();
    let len = rng.random_range(0..200);
    let payload = random_bytes(rng, len);
    let sample = if rng.random() {
        Sample::tcp(v4)
    } else {
        Sample::udp(v4)
    };
    let mut packet = sample.payload(&payload).build();
    for _ in 0..rng.random_range(0..6) {
        // Mostly headers: what is behind them matters little.
        let at = rng.random_range(0..packet.len().min(64));
        packet[at] = rng.random();
    }
    if rng.random_ratio(1, 4) {
        let next = [0, 43, 44, 60][rng.random_range(0..4)];
        packet[if v4 { 9 } else { 6 }] = next;
    }
    if rng.random_ratio(1, 3) {
        packet.truncate(rng.random_range(0..=packet.len()));
    }
    packet
}
