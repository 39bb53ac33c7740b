//! A packet that a client sends over and over.

use std::net::Ipv4Addr;

use pmz_net::packet::checksum::{fill_v4_header, pseudo_header};

/// The client's own port, in the tunnel.
const PORT: u16 = 40_000;
const PAYLOAD: usize = 100;

/// A UDP datagram of 100 bytes of payload in an IPv4 packet (RFC 768, RFC 791).
pub(super) fn datagram(from: Ipv4Addr, (to, port): (Ipv4Addr, u16)) -> Vec<u8> {
    const UDP: u8 = 17;
    let udp_len = (8 + PAYLOAD) as u16;
    let mut packet = vec![0x5a; 20 + usize::from(udp_len)];
    let (ip, udp) = packet.split_at_mut(20);
    ip.fill(0);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
    ip[8] = 64;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    fill_v4_header(ip);
    udp[..2].copy_from_slice(&PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&port.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    udp[6..8].fill(0);
    let sum = pseudo_header(from.into(), to.into(), UDP, udp_len).with(udp);
    udp[6..8].copy_from_slice(&sum.checksum_not_zero().to_be_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use pmz_net::packet::IpView;
    use pmz_net::packet::checksum::{transport_ok, v4_header_ok};

    use super::*;

    #[test]
    fn a_datagram_has_right_checksums_and_lengths() {
        let (from, to) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(10, 96, 0, 9));
        let packet = datagram(from, (to, 7));
        assert!(v4_header_ok(&packet[..20]));
        let view = IpView::parse(&packet).unwrap();
        assert!(transport_ok(&view));
        assert_eq!(view.transport().len(), 8 + PAYLOAD);
        assert_eq!(view.transport()[2..4], [0, 7]);
    }
}
