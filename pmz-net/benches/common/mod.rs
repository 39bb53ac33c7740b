//! Packets that the benches take through pmz, and what they share.

// Each bench is a program of its own, and none needs all of it.
#![allow(dead_code)]

use std::net::Ipv4Addr;

use pmz_net::packet::checksum::{fill_v4_header, pseudo_header};
use pmz_net::packet::{GsoKind, VNET_HDR_LEN, VnetHdr};

/// The largest packet on the wire of the tunnel, as wg-quick has it.
pub(crate) const MTU: u16 = 1420;
/// The inner addresses of client and server.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

const IP: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;

/// A TCP super-packet of 64 KiB as a TUN gives it (RFC 9293, linux/virtio_net.h): virtio-net header, headers, payload, a checksum
/// that is still to be completed, segments that fill the MTU.
pub(crate) fn super_packet() -> Vec<u8> {
    let len = 65_535;
    let mut frame = vec![0x5a; VNET_HDR_LEN + len];
    let header = VnetHdr {
        needs_csum: true,
        gso: GsoKind::TcpV4,
        ecn: false,
        hdr_len: (IP + TCP) as u16,
        gso_size: MTU - (IP + TCP) as u16,
        csum_start: IP as u16,
        csum_offset: 16,
    };
    header.emit(&mut frame);
    let packet = &mut frame[VNET_HDR_LEN..];
    ip_header(packet, 6, CLIENT, SERVER);
    let tcp = &mut packet[IP..IP + TCP];
    tcp.fill(0);
    tcp[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&5201_u16.to_be_bytes());
    tcp[12] = 5 << 4;
    // ACK.
    tcp[13] = 0x10;
    tcp[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
    let sum = pseudo_header(CLIENT.into(), SERVER.into(), 6, (len - IP) as u16);
    tcp[16..18].copy_from_slice(&sum.fold().to_be_bytes());
    frame
}

/// A UDP datagram of so many bytes of payload behind a virtio-net header.
pub(crate) fn datagram(to: (Ipv4Addr, u16), payload: usize) -> Vec<u8> {
    let mut frame = vec![0x5a; VNET_HDR_LEN + IP + UDP + payload];
    VnetHdr::default().emit(&mut frame);
    let packet = &mut frame[VNET_HDR_LEN..];
    ip_header(packet, 17, CLIENT, to.0);
    let udp = &mut packet[IP..];
    let len = udp.len() as u16;
    udp[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    udp[2..4].copy_from_slice(&to.1.to_be_bytes());
    udp[4..6].copy_from_slice(&len.to_be_bytes());
    udp[6..8].fill(0);
    let sum = pseudo_header(CLIENT.into(), to.0.into(), 17, len).with(udp);
    udp[6..8].copy_from_slice(&sum.checksum_not_zero().to_be_bytes());
    frame
}

/// An IPv4 header (RFC 791) before the rest of the packet.
fn ip_header(packet: &mut [u8], protocol: u8, from: Ipv4Addr, to: Ipv4Addr) {
    let len = packet.len() as u16;
    let header = &mut packet[..IP];
    header.fill(0);
    header[0] = 0x45;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[6] = 0x40;
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&from.octets());
    header[16..20].copy_from_slice(&to.octets());
    fill_v4_header(header);
}
