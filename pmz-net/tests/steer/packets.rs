//! Packets made by hand, and a second opinion (smoltcp's) about their checksums.

use std::net::IpAddr;

use smoltcp::wire::{
    Icmpv4Packet, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket,
};

use crate::trial::ip;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

pub(crate) const SOURCE_PORT: u16 = 40_000;
pub(crate) const SEQUENCE: u32 = 0xffff_fff0;
pub(crate) const ACKNOWLEDGEMENT: u32 = 0x1234_5678;

/// The one's complement sum of RFC 1071, by its definition.
pub(crate) fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An IP packet around a payload as it is.
pub(crate) fn around(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (octets(ip(source)), octets(ip(destination)));
    let mut packet = Vec::new();
    if source.len() == 4 {
        packet.extend([0x45, 0]);
        packet.extend(u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
        packet.extend([0x12, 0x34, 0x40, 0, 63, protocol, 0, 0]);
    } else {
        packet.extend([0x60, 0, 0, 0]);
        packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        packet.extend([protocol, 63]);
    }
    packet.extend(&source);
    packet.extend(&destination);
    if source.len() == 4 {
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

/// As [`around`], with the payload's checksum, at `place`, over the pseudo-header and itself.
fn summed(
    source: &str,
    destination: &str,
    protocol: u8,
    mut payload: Vec<u8>,
    place: usize,
) -> Vec<u8> {
    let (from, to) = (octets(ip(source)), octets(ip(destination)));
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let sum = checksum(&[&from, &to, &length, &[0, 0, 0, protocol], &payload]);
    payload[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    around(source, destination, protocol, &payload)
}

pub(crate) fn tcp(source: &str, destination: &str, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(SOURCE_PORT.to_be_bytes());
    segment.extend(80_u16.to_be_bytes());
    segment.extend(SEQUENCE.to_be_bytes());
    segment.extend(ACKNOWLEDGEMENT.to_be_bytes());
    // One option: a maximum segment size.
    segment.extend([6 << 4, flags, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
    segment.extend(data);
    summed(source, destination, 6, segment, 16)
}

pub(crate) fn udp(source: &str, destination: &str, data: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(SOURCE_PORT.to_be_bytes());
    datagram.extend(53_u16.to_be_bytes());
    datagram.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    summed(source, destination, 17, datagram, 6)
}

/// An ICMP or ICMPv6 message.
pub(crate) fn icmp(
    source: &str,
    destination: &str,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    data: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(data);
    if ip(source).is_ipv6() {
        return summed(source, destination, 58, message, 2);
    }
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    around(source, destination, 1, &message)
}

/// An echo request.
pub(crate) fn echo(source: &str, destination: &str, id: u16) -> Vec<u8> {
    let kind = if ip(source).is_ipv6() { 128 } else { 8 };
    let [a, b] = id.to_be_bytes();
    icmp(source, destination, kind, 0, [a, b, 0, 1], b"12345678")
}

/// Says that a port is unreachable, quoting a packet.
pub(crate) fn port_unreachable(source: &str, destination: &str, quoted: &[u8]) -> Vec<u8> {
    let (kind, code) = if ip(source).is_ipv6() { (1, 4) } else { (3, 3) };
    icmp(source, destination, kind, code, [0; 4], quoted)
}

/// What IPv6 puts before the transport: a hop-by-hop header of 8 bytes.
pub(crate) fn with_hop_by_hop(packet: &[u8]) -> Vec<u8> {
    extended(packet, 0, &[0, 1, 4, 0, 0, 0, 0])
}

/// As the first fragment, or as one at `offset` (in units of 8 bytes).
pub(crate) fn v6_fragment(packet: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
    extended(packet, 44, &[0, a, b, 1, 2, 3, 4])
}

/// With an extension header in front, of which all but the first byte is given.
pub(crate) fn extended(packet: &[u8], number: u8, rest: &[u8]) -> Vec<u8> {
    let mut extended = packet[..40].to_vec();
    let next = std::mem::replace(&mut extended[6], number);
    extended.push(next);
    extended.extend(rest);
    extended.extend(&packet[40..]);
    let length = u16::try_from(extended.len() - 40).unwrap();
    extended[4..6].copy_from_slice(&length.to_be_bytes());
    extended
}

pub(crate) fn v4_fragment(packet: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let mut fragment = packet.to_vec();
    fragment[6..8].copy_from_slice(&(offset | u16::from(more) << 13).to_be_bytes());
    fragment[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum(&[&fragment[..20]]);
    fragment[10..12].copy_from_slice(&sum.to_be_bytes());
    fragment
}

/// A packet as smoltcp understands it.
pub(crate) struct Seen<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) transport: &'a [u8],
}

/// Reads a packet, and fails where a length or a checksum in it is wrong.
pub(crate) fn seen(packet: &[u8]) -> Seen<'_> {
    let (source, destination, protocol, transport) = if packet[0] >> 4 == 4 {
        let view = Ipv4Packet::new_checked(packet).unwrap();
        assert!(view.verify_checksum(), "the IPv4 header checksum is wrong");
        assert_eq!(usize::from(view.total_len()), packet.len());
        (
            IpAddress::from(view.src_addr()),
            IpAddress::from(view.dst_addr()),
            view.next_header(),
            &packet[usize::from(view.header_len())..],
        )
    } else {
        let view = Ipv6Packet::new_checked(packet).unwrap();
        assert_eq!(view.total_len(), packet.len());
        let (protocol, transport) = match view.next_header() {
            IpProtocol::HopByHop => (IpProtocol::from(packet[40]), &packet[48..]),
            protocol => (protocol, &packet[40..]),
        };
        (
            IpAddress::from(view.src_addr()),
            IpAddress::from(view.dst_addr()),
            protocol,
            transport,
        )
    };
    let right = match (protocol, source, destination) {
        (IpProtocol::Tcp, ..) => TcpPacket::new_checked(transport)
            .unwrap()
            .verify_checksum(&source, &destination),
        (IpProtocol::Udp, ..) => UdpPacket::new_checked(transport)
            .unwrap()
            .verify_checksum(&source, &destination),
        (IpProtocol::Icmp, ..) => Icmpv4Packet::new_checked(transport)
            .unwrap()
            .verify_checksum(),
        (IpProtocol::Icmpv6, IpAddress::Ipv6(source), IpAddress::Ipv6(destination)) => {
            Icmpv6Packet::new_checked(transport)
                .unwrap()
                .verify_checksum(&source, &destination)
        }
        other => panic!("no transport known: {other:?}"),
    };
    assert!(right, "the transport checksum is wrong");
    Seen {
        source: source.into(),
        destination: destination.into(),
        protocol: protocol.into(),
        transport,
    }
}
