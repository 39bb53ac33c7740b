use std::collections::HashSet;

use super::*;
use crate::packet::mark_congestion;
use crate::packet::testing::{Sample, assert_sound, mangled, random_bytes, rng};

fn with_extensions(extensions: &[(u8, Vec<u8>)], packet: &[u8]) -> Vec<u8> {
    let mut out = packet[..40].to_vec();
    let mut next_at = 6;
    for (kind, body) in extensions {
        let at = out.len();
        out.extend(body);
        out[at] = out[next_at];
        out[next_at] = *kind;
        next_at = at;
    }
    out.extend(&packet[40..]);
    let len = (out.len() - 40) as u16;
    out[4..6].copy_from_slice(&len.to_be_bytes());
    out
}

fn extension(len: usize) -> Vec<u8> {
    let mut body = vec![0; len];
    body[1] = (len / 8 - 1) as u8;
    body
}

#[test]
fn a_v4_packet_with_options_shows_its_headers() {
    let mut packet = Sample::udp(true).payload(b"hello").build();
    packet.splice(20..20, [7, 4, 4, 0]);
    packet[0] = 0x46;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());

    let view = IpView::parse(&packet).unwrap();
    assert_eq!(view.src().to_string(), "10.0.0.1");
    assert_eq!(view.dst().to_string(), "10.96.0.7");
    assert_eq!(view.protocol(), UDP);
    assert_eq!(view.transport_offset(), 24);
    assert_eq!(view.total_len(), packet.len());
    assert_eq!(view.ports(), Some((40_000, 80)));
    assert_eq!(view.hop_limit(), 64);
    assert!(!view.is_fragment());
}

#[test]
fn v6_extension_headers_are_walked() {
    let plain = Sample::tcp(false).payload(b"hello").build();
    let packet = with_extensions(
        &[
            (HOP_BY_HOP, extension(8)),
            (ROUTING, extension(24)),
            (DESTINATION, extension(16)),
        ],
        &plain,
    );
    let view = IpView::parse(&packet).unwrap();
    assert_eq!(view.protocol(), TCP);
    assert_eq!(view.transport_offset(), 40 + 8 + 24 + 16);
    assert_eq!(view.ports(), Some((40_000, 80)));
    assert_eq!(view.dst().to_string(), "fd00::7");
}

#[test]
fn a_chain_of_extension_headers_without_end_is_refused() {
    let plain = Sample::tcp(false).build();
    let chain: Vec<_> = (0..9).map(|_| (DESTINATION, extension(8))).collect();
    assert!(IpView::parse(&with_extensions(&chain[..7], &plain)).is_some());
    assert!(IpView::parse(&with_extensions(&chain, &plain)).is_none());
}

#[test]
fn a_fragment_is_told_from_a_whole_datagram_with_a_fragment_header() {
    let plain = Sample::tcp(false).payload(&[1; 64]).build();
    let with_field = |field: [u8; 2]| {
        let body = vec![0, 0, field[0], field[1], 0xde, 0xad, 0xbe, 0xef];
        with_extensions(&[(FRAGMENT, body)], &plain)
    };
    let atomic = with_field([0, 0]);
    let view = IpView::parse(&atomic).unwrap();
    assert!(!view.is_fragment());
    assert_eq!(view.ports(), Some((40_000, 80)));

    let first = with_field([0, 1]);
    let view = IpView::parse(&first).unwrap();
    let info = view.fragment().unwrap();
    assert_eq!((info.offset, info.more, info.id), (0, true, 0xdead_beef));
    assert_eq!(view.ports(), Some((40_000, 80)));

    let last = with_field([0x05, 0xb0]);
    let view = IpView::parse(&last).unwrap();
    let info = view.fragment().unwrap();
    assert_eq!((info.offset, info.more), (0x5b0, false));
    assert_eq!(view.ports(), None);
    assert_eq!(flow_hash(&first), flow_hash(&last));
}

#[test]
fn what_stands_behind_the_packet_is_not_part_of_it() {
    let packet = Sample::tcp(true).payload(b"abc").build();
    let mut padded = packet.clone();
    padded.extend([0; 13]);
    assert_eq!(IpView::parse(&padded).unwrap().bytes(), packet);
}

#[test]
fn a_cut_packet_is_only_good_as_a_quote() {
    let packet = Sample::tcp(true).payload(b"abcdefgh").build();
    let cut = &packet[..28];
    assert!(IpView::parse(cut).is_none());
    let view = IpView::parse_quoted(cut).unwrap();
    assert_eq!(view.ports(), Some((40_000, 80)));
    assert_eq!(view.total_len(), packet.len());
}

#[test]
fn garbage_never_panics() {
    let mut rng = rng(1);
    for round in 0..40_000 {
        let mut bytes = if round % 2 == 0 {
            let len = (round / 2) % 120;
            random_bytes(&mut rng, len)
        } else {
            mangled(&mut rng)
        };
        flow_hash(&bytes);
        for view in [IpView::parse(&bytes), IpView::parse_quoted(&bytes)]
            .into_iter()
            .flatten()
        {
            assert!(view.transport_offset() <= bytes.len());
            let _ = (view.src(), view.dst(), view.ports(), view.hop_limit());
            let _ = (view.traffic_class(), view.transport(), view.fragment());
        }
        mark_congestion(&mut bytes);
    }
}

#[test]
fn flows_are_spread_by_their_hash() {
    for v4 in [true, false] {
        let mut buckets = HashSet::new();
        for port in 0..1024u16 {
            let mut sample = Sample::tcp(v4);
            sample.ports.0 = 32_768 + port;
            let packet = sample.build();
            assert_eq!(flow_hash(&packet), flow_hash(&packet.clone()));
            buckets.insert(flow_hash(&packet) % 1024);
        }
        // Of 1024 balls in 1024 urns 63 % hit one of their own.
        assert!(buckets.len() > 580, "{} buckets", buckets.len());
    }
}

#[test]
fn the_hash_does_not_depend_on_the_payload() {
    let one = Sample::tcp(true).payload(b"one").build();
    let two = Sample::tcp(true).payload(b"another").build();
    assert_eq!(flow_hash(&one), flow_hash(&two));
}

#[test]
fn congestion_is_marked_only_where_the_sender_understands_it() {
    for v4 in [true, false] {
        for ecn in 0..4 {
            let mut sample = Sample::tcp(v4).payload(b"data");
            sample.tos = 0xb8 | ecn;
            let before = sample.build();
            let mut packet = before.clone();
            assert_eq!(mark_congestion(&mut packet), ecn != 0);
            assert_sound(&packet);
            let expected = if ecn == 0 { 0xb8 } else { 0xbb };
            assert_eq!(IpView::parse(&packet).unwrap().traffic_class(), expected);
            assert_eq!(ecn == 0 || ecn == 3, packet == before);
        }
    }
}
