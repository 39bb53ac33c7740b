use rand::Rng;

use super::*;
use crate::packet::GsoKind;
use crate::packet::testing::{
    Sample, assert_sound, mangled, naive_pseudo_sum, naive_sum, random_bytes, rng,
};

/// 0 and 0xffff are the same number in ones' complement.
fn same(a: u16, b: u16) -> bool {
    let is_zero = |n| matches!(n, 0 | 0xffff);
    a == b || (is_zero(a) && is_zero(b))
}

#[test]
fn the_sum_is_that_of_the_definition() {
    let mut rng = rng(2);
    for len in 0..600 {
        let bytes = random_bytes(&mut rng, len);
        assert!(same(Sum::default().with(&bytes).fold(), naive_sum(&bytes)));
        let ones = vec![0xff; len];
        assert!(same(Sum::default().with(&ones).fold(), naive_sum(&ones)));
    }
    let largest = random_bytes(&mut rng, 65_535);
    assert_eq!(Sum::default().with(&largest).fold(), naive_sum(&largest));
}

#[test]
fn a_sum_in_pieces_is_that_of_the_whole() {
    let mut rng = rng(3);
    for _ in 0..500 {
        let len = rng.random_range(0..300);
        let bytes = random_bytes(&mut rng, len);
        let cut = rng.random_range(0..=bytes.len()) & !1;
        let (a, b) = bytes.split_at(cut);
        let pieces = Sum::default().with(a).with(b).fold();
        assert!(same(pieces, Sum::default().with(&bytes).fold()));
    }
}

#[test]
fn an_update_gives_what_a_new_sum_would() {
    let mut rng = rng(4);
    for _ in 0..5000 {
        let mut bytes = random_bytes(&mut rng, 40);
        let before = Sum::default().with(&bytes).checksum();
        let at = rng.random_range(0..20) * 2;
        let len = rng.random_range(0..=(40 - at) / 2) * 2;
        let new = random_bytes(&mut rng, len);
        let old = bytes[at..at + len].to_vec();
        bytes[at..at + len].copy_from_slice(&new);
        let after = Sum::default().with(&bytes).checksum();
        assert!(same(update_bytes(before, &old, &new), after));
    }
    // RFC 1624's own example, where equation 2 is wrong.
    assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn the_pseudo_header_is_that_of_the_addresses() {
    for v4 in [true, false] {
        let packet = Sample::udp(v4).payload(b"xyz").build();
        let view = IpView::parse(&packet).unwrap();
        let len = view.transport().len();
        let sum = pseudo_header(view.src(), view.dst(), view.protocol(), len as u16).fold();
        assert_eq!(sum, naive_pseudo_sum(&packet));
        assert_eq!(sum, pseudo_header_of(&view, len).fold());
    }
}

#[test]
fn a_partial_checksum_is_completed_in_place() {
    let mut rng = rng(5);
    for round in 0..400 {
        let payload = random_bytes(&mut rng, round);
        for sample in [Sample::tcp(round % 2 == 0), Sample::udp(round % 2 == 0)] {
            let mut frame = sample.payload(&payload).frame(VnetHdr::default());
            // As WireGuard pads.
            let len = frame.len();
            frame.extend(random_bytes(&mut rng, round % 16));
            assert!(complete(&mut frame));
            assert_sound(&frame[VNET_HDR_LEN..len]);
            assert!(!VnetHdr::parse(&frame).unwrap().needs_csum);
            let once = frame.clone();
            assert!(complete(&mut frame));
            assert_eq!(frame, once);
        }
    }
}

#[test]
fn a_udp_checksum_is_never_said_to_be_missing() {
    // Chosen so that the sum is 0xffff and its complement 0.
    let mut sample = Sample::udp(true).payload(&[0, 0]);
    let mut frame = sample.frame(VnetHdr::default());
    complete(&mut frame);
    let without = u16::from_be_bytes([frame[36], frame[37]]);
    sample.payload = without.to_be_bytes().to_vec();
    let mut frame = sample.frame(VnetHdr::default());
    assert!(complete(&mut frame));
    assert_eq!(&frame[36..38], &[0xff, 0xff]);
    assert_sound(&frame[VNET_HDR_LEN..]);
}

#[test]
fn a_header_that_points_outside_the_packet_changes_nothing() {
    let mut frame = Sample::tcp(true).payload(b"abc").frame(VnetHdr::default());
    let len = frame.len() - VNET_HDR_LEN;
    for (start, offset) in [
        (len - 1, 0),
        (len, 0),
        (len + 1, 0),
        (0, len - 1),
        (65_535, 65_535),
    ] {
        let header = VnetHdr {
            needs_csum: true,
            csum_start: start as u16,
            csum_offset: offset as u16,
            ..VnetHdr::default()
        };
        header.emit(&mut frame);
        let before = frame.clone();
        assert!(!complete(&mut frame));
        assert_eq!(frame, before);
    }
    assert!(!complete(&mut [0; 5]));
}

#[test]
fn a_changed_byte_is_noticed() {
    for sample in [Sample::tcp(true), Sample::udp(false)] {
        let packet = sample.payload(b"some bytes").build();
        assert!(transport_ok(&IpView::parse(&packet).unwrap()));
        let mut damaged = packet.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(!transport_ok(&IpView::parse(&damaged).unwrap()));
    }
    let mut unchecked = Sample::udp(true).payload(b"x").build();
    unchecked[26..28].fill(0);
    assert!(transport_ok(&IpView::parse(&unchecked).unwrap()));
}

#[test]
fn garbage_never_panics() {
    let mut rng = rng(6);
    for _ in 0..20_000 {
        let mut frame = random_bytes(&mut rng, VNET_HDR_LEN);
        frame[0] = 1;
        frame[1] %= 6;
        if rng.random() {
            VnetHdr {
                needs_csum: true,
                gso: GsoKind::None,
                csum_start: rng.random_range(0..100),
                csum_offset: rng.random_range(0..40),
                ..VnetHdr::default()
            }
            .emit(&mut frame);
        }
        frame.extend(mangled(&mut rng));
        if let Some(view) = frame.get(VNET_HDR_LEN..).and_then(IpView::parse) {
            transport_ok(&view);
        }
        complete(&mut frame);
    }
}
