//! Frames made by hand. Their checksums are zero: nobody looks.

use std::net::IpAddr;

pub(crate) const PORT: u16 = 51_820;
pub(crate) const LAPTOP: &str = "192.0.2.7";
pub(crate) const LAPTOP6: &str = "2001:db8:1:aa01::7";
const AGENT: &str = "10.244.0.5";
const AGENT6: &str = "fd00:244::5";

/// A WireGuard message: its type, and of this length.
pub(crate) fn message(kind: u8, length: usize) -> Vec<u8> {
    let mut message = vec![0xa5; length];
    let head = [kind, 0, 0, 0];
    let room = length.min(4);
    message[..room].copy_from_slice(&head[..room]);
    message
}

/// A message with a receiver index.
pub(crate) fn to_receiver(kind: u8, length: usize, index: u32) -> Vec<u8> {
    let mut message = message(kind, length);
    let place = if kind == 2 { 8 } else { 4 };
    message[place..place + 4].copy_from_slice(&index.to_le_bytes());
    message
}

/// A UDP datagram from that source to the agent, from its IP header on.
pub(crate) fn packet(source: &str, port: u16, payload: &[u8]) -> Vec<u8> {
    let source: IpAddr = source.parse().unwrap();
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut packet = Vec::new();
    match source {
        IpAddr::V4(source) => {
            let agent: std::net::Ipv4Addr = AGENT.parse().unwrap();
            packet.extend([0x45, 0]);
            packet.extend((20 + length).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            packet.extend(source.octets());
            packet.extend(agent.octets());
        }
        IpAddr::V6(source) => {
            let agent: std::net::Ipv6Addr = AGENT6.parse().unwrap();
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([17, 64]);
            packet.extend(source.octets());
            packet.extend(agent.octets());
        }
    }
    packet.extend(40_000_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// An Ethernet frame around a packet, with VLAN tags of these types.
pub(crate) fn ethernet(packet: &[u8], tags: &[u16]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 5]);
    }
    let ethertype: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// An IPv6 packet with an extension header of 8 bytes put in.
pub(crate) fn extended(packet: &[u8], number: u8) -> Vec<u8> {
    let mut extended = packet[..40].to_vec();
    let next = std::mem::replace(&mut extended[6], number);
    extended.extend([next, 0, 1, 4, 0, 0, 0, 0]);
    extended.extend(&packet[40..]);
    let length = u16::try_from(extended.len() - 40).unwrap();
    extended[4..6].copy_from_slice(&length.to_be_bytes());
    extended
}
