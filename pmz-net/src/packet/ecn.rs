//! Explicit congestion notification (RFC 3168) in an IP header.

use super::checksum;

const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;

/// Marks a packet with congestion experienced, its header checksum with it. False where its sender did
/// not say that it understands the mark.
pub fn mark_congestion(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => {
            if packet[1] & ECN == NOT_ECT {
                return false;
            }
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= ECN;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let sum = u16::from_be_bytes([packet[10], packet[11]]);
            packet[10..12].copy_from_slice(&checksum::update(sum, old, new).to_be_bytes());
            true
        }
        // The traffic class lies across the first two bytes, ECN in bits 4 and 5 of the second.
        Some(6) if packet.len() >= 40 => {
            if (packet[1] >> 4) & ECN == NOT_ECT {
                return false;
            }
            packet[1] |= ECN << 4;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

    use super::*;

    #[test]
    fn a_capable_packet_is_marked_and_its_checksum_still_fits() {
        let mut v4 = [0_u8; 20];
        v4[0] = 0x45;
        v4[1] = 0b10;
        v4[2..4].copy_from_slice(&20_u16.to_be_bytes());
        checksum::fill_v4_header(&mut v4);
        assert!(mark_congestion(&mut v4));
        let packet = Ipv4Packet::new_checked(&v4).unwrap();
        assert!(packet.verify_checksum());
        assert_eq!(packet.ecn(), 3);

        let mut v6 = [0_u8; 40];
        v6[0] = 0x60;
        v6[1] = 0b01 << 4;
        assert!(mark_congestion(&mut v6));
        assert_eq!(Ipv6Packet::new_unchecked(&v6).traffic_class() & 3, 3);
    }

    #[test]
    fn a_packet_that_is_not_capable_stays_as_it_is() {
        let mut v4 = [0_u8; 20];
        v4[0] = 0x45;
        assert!(!mark_congestion(&mut v4));
        assert_eq!(v4[1], 0);
        assert!(!mark_congestion(&mut []));
    }
}
