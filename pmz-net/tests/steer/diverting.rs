//! What is diverted at another device, what is not, and what comes back: single packets, on the loopback device's
//! index, as the kernel has it in a trial.

use pmz_net::steer::{Diversion, LinkKind, PrefixKind, TrialPacket, Verdict};

use crate::common::skip::need_root;
use crate::packets::{
    ACK, RST, SYN, around, echo, port_unreachable, seen, tcp, udp, v4_fragment, v6_fragment,
    with_hop_by_hop,
};
use crate::trial::{Bench, ip};

/// The tunnel's own address, another device's, and a service's, in both families.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("10.8.0.2", "192.0.2.5", "10.96.0.10"),
    ("fd00:8::2", "2001:db8::5", "fd00:96::10"),
];
const LOOPBACK: u32 = 1;
const TUN: u32 = 77;
const MTU: u32 = 1280;
const ETHERNET: usize = 14;

fn diversion() -> Diversion {
    Diversion {
        addresses: FAMILIES.map(|(own, ..)| ip(own)).to_vec(),
        tun: TUN,
        mtu: MTU,
    }
}

fn diverting_until(until: u64) -> Bench {
    let mut bench = Bench::cluster();
    for (.., service) in FAMILIES {
        bench.put(service, None, false);
    }
    let place = Some((&diversion(), LinkKind::Ethernet, until));
    bench.trial().maps().set_diversion(LOOPBACK, place).unwrap();
    bench
}

fn diverting() -> Bench {
    diverting_until(u64::MAX)
}

#[track_caller]
fn passes(bench: &Bench, packet: &[u8]) {
    let outcome = bench.divert(packet);
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!(outcome.bytes, packet);
}

#[track_caller]
fn goes_as(bench: &Bench, packet: &[u8], expected: &[u8]) {
    let outcome = bench.divert(packet);
    assert_eq!(outcome.verdict, Verdict::TurnBack);
    assert_eq!(outcome.bytes, expected);
}

/// Comes back with an Ethernet header of its own, behind the one that every trial has.
#[track_caller]
fn comes_as(bench: &Bench, packet: &[u8], expected: &[u8]) {
    let outcome = bench.returning(packet);
    assert_eq!(outcome.verdict, Verdict::TurnBack);
    let (frame, packet) = outcome.bytes.split_at(ETHERNET);
    assert_eq!(packet, expected);
    let ethertype: [u8; 2] = if packet[0] >> 4 == 4 {
        [0x08, 0]
    } else {
        [0x86, 0xdd]
    };
    // The loopback device's own address is zeroes.
    assert_eq!(frame[..12], [0; 12]);
    assert_eq!(frame[12..], ethertype);
}

type Kind<'a> = &'a dyn Fn(&str, &str) -> Vec<u8>;

/// As from the other end: both ports exchanged, sums and all.
fn answer(service: &str, to: &str, request: &[u8]) -> Vec<u8> {
    let (header, at) = if request[0] >> 4 == 4 {
        (20, 9)
    } else {
        (40, 6)
    };
    let mut answer = around(service, to, request[at], &request[header..]);
    let ports: [u8; 4] = answer[header..header + 4].try_into().unwrap();
    answer[header..header + 4].copy_from_slice(&[ports[2], ports[3], ports[0], ports[1]]);
    answer
}

#[test]
fn every_kind_of_packet_goes_with_the_tunnels_address_and_comes_back_with_its_own() {
    need_root!();
    for (tunnel, own, service) in FAMILIES {
        let bench = diverting();
        let kinds: [Kind<'_>; 4] = [
            &|from, to| tcp(from, to, SYN, b""),
            &|from, to| tcp(from, to, ACK, &[3; 999]),
            &|from, to| udp(from, to, b"odd number of bytes"),
            &|from, to| udp(from, to, b""),
        ];
        for kind in kinds {
            goes_as(&bench, &kind(own, service), &kind(tunnel, service));
            seen(&kind(tunnel, service));
            comes_as(
                &bench,
                &answer(service, tunnel, &kind(tunnel, service)),
                &answer(service, own, &kind(own, service)),
            );
        }
        // Echoes have one identifier for both ways.
        goes_as(&bench, &echo(own, service, 9), &echo(tunnel, service, 9));
        comes_as(&bench, &echo(service, tunnel, 9), &echo(service, own, 9));
        // Of another protocol the addresses are all there is.
        goes_as(
            &bench,
            &around(own, service, 99, b"other"),
            &around(tunnel, service, 99, b"other"),
        );
        comes_as(
            &bench,
            &around(service, tunnel, 99, b"other"),
            &around(service, own, 99, b"other"),
        );
    }
    let (tunnel, own, service) = FAMILIES[1];
    let extended = |from, to| with_hop_by_hop(&udp(from, to, b"options"));
    goes_as(
        &diverting(),
        &extended(own, service),
        &extended(tunnel, service),
    );
}

#[test]
fn what_is_not_steered_and_what_is_no_packet_takes_its_own_way() {
    need_root!();
    let mut bench = diverting();
    passes(&bench, &udp("192.0.2.5", "198.51.100.1", b"x"));
    passes(&bench, &udp("2001:db8::5", "2001:db8::9", b"x"));
    let mut broken = udp("192.0.2.5", "10.96.0.10", b"x");
    broken[0] = 0x44;
    passes(&bench, &broken);
    let excluded = crate::trial::steered(&[
        ("10.96.0.0/12", PrefixKind::Services),
        ("10.96.0.10/32", PrefixKind::Excluded),
    ]);
    bench.trial().maps().set_prefixes(&excluded).unwrap();
    passes(&bench, &udp("192.0.2.5", "10.96.0.10", b"x"));
    assert_eq!(bench.report().drops, Default::default());
}

#[test]
fn nothing_is_diverted_after_the_lease_without_a_place_or_of_a_family_without_an_address() {
    need_root!();
    let packet = udp("192.0.2.5", "10.96.0.10", b"x");
    // The clock began with the machine.
    passes(&diverting_until(1), &packet);
    let mut bench = diverting();
    let v4_only = Diversion {
        addresses: vec![ip("10.8.0.2")],
        ..diversion()
    };
    let place = Some((&v4_only, LinkKind::Ethernet, u64::MAX));
    bench.trial().maps().set_diversion(LOOPBACK, place).unwrap();
    passes(&bench, &udp("2001:db8::5", "fd00:96::10", b"x"));
    bench.trial().maps().set_diversion(LOOPBACK, None).unwrap();
    passes(&bench, &packet);
}

#[test]
fn errors_are_told_in_the_words_of_who_hears_them() {
    need_root!();
    for (tunnel, own, service) in FAMILIES {
        let bench = diverting();
        bench.divert(&udp(own, service, b"a question"));
        // From the cluster about what went out; the transport's sum in a quotation stays what it was.
        let quoted = udp(tunnel, service, b"a question");
        let router = if ip(own).is_ipv4() {
            "10.96.9.9"
        } else {
            "fd00:96::99"
        };
        let outcome = bench.returning(&port_unreachable(router, tunnel, &quoted));
        assert_eq!(outcome.verdict, Verdict::TurnBack);
        let error = &outcome.bytes[ETHERNET..];
        let heard = seen(error);
        assert_eq!(heard.destination, ip(own));
        assert_eq!(heard.source, ip(router));
        assert_eq!(address(&heard.transport[8..], Field::Source), ip(own));
        // From this machine about what came back.
        let answered = answer(service, own, &udp(own, service, b"a question"));
        let outcome = bench.divert(&port_unreachable(own, service, &answered));
        let told = seen(&outcome.bytes);
        assert_eq!(told.source, ip(tunnel));
        assert_eq!(
            address(&told.transport[8..], Field::Destination),
            ip(tunnel)
        );
    }
}

enum Field {
    Source,
    Destination,
}

fn address(packet: &[u8], field: Field) -> std::net::IpAddr {
    let (v4, size) = (
        packet[0] >> 4 == 4,
        if packet[0] >> 4 == 4 { 4 } else { 16 },
    );
    let first = if v4 { 12 } else { 8 };
    let at = match field {
        Field::Source => first,
        Field::Destination => first + size,
    };
    if v4 {
        <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap().into()
    } else {
        <[u8; 16]>::try_from(&packet[at..at + 16]).unwrap().into()
    }
}

#[test]
fn what_the_tunnel_can_not_take_in_one_piece_is_asked_for_in_smaller_ones() {
    need_root!();
    for (_, own, service) in FAMILIES {
        let mut bench = diverting();
        let large = udp(own, service, &[7; MTU as usize]);
        let outcome = bench.divert(&large);
        assert_eq!(outcome.verdict, Verdict::TurnBack);
        let error = seen(&outcome.bytes);
        assert_eq!((error.source, error.destination), (ip(service), ip(own)));
        let expected = if ip(own).is_ipv4() { [3, 4] } else { [2, 0] };
        assert_eq!(error.transport[..2], expected);
        assert_eq!(error.transport[4..8], MTU.to_be_bytes());
        // Of a super-packet it is the pieces that count.
        let bytes = &tcp(own, service, ACK, &[7; 2000]);
        for (size, expected) in [(1000, 1), (1250, 2)] {
            let gso = Some((2, size));
            let packet = TrialPacket { bytes, gso };
            bench.trial().divert(packet, 1).unwrap();
            assert_eq!(bench.report().refusals.too_big, expected);
        }
    }
}

#[test]
fn a_flow_that_only_its_source_tells_from_another_is_refused_while_the_other_lives() {
    need_root!();
    for (tunnel, own, service) in FAMILIES {
        let other = if ip(own).is_ipv4() {
            "192.0.2.6"
        } else {
            "2001:db8::6"
        };
        let mut bench = diverting();
        goes_as(
            &bench,
            &tcp(own, service, SYN, b""),
            &tcp(tunnel, service, SYN, b""),
        );
        let outcome = bench.divert(&tcp(other, service, SYN, b""));
        assert_eq!(outcome.verdict, Verdict::TurnBack);
        let refused = seen(&outcome.bytes);
        assert_eq!(refused.destination, ip(other));
        assert_eq!(refused.transport[13] & RST, RST);
        assert_eq!(bench.report().refusals.collided, 1);
        // The first one is none the worse.
        let back = answer(service, tunnel, &tcp(tunnel, service, ACK, b""));
        comes_as(
            &bench,
            &back,
            &answer(service, own, &tcp(own, service, ACK, b"")),
        );
    }
}

#[test]
fn later_fragments_go_along_and_come_back_behind_the_first_one() {
    need_root!();
    for (tunnel, own, service) in FAMILIES {
        let bench = diverting();
        let whole = |from, to| udp(from, to, &[7; 1000]);
        let cut = |packet: &[u8], offset, more| {
            if packet[0] >> 4 == 4 {
                v4_fragment(packet, offset, more)
            } else {
                v6_fragment(packet, offset, more)
            }
        };
        let later = |from, to| cut(&around(from, to, 17, &[9; 64]), 125, false);
        goes_as(&bench, &whole(own, service), &whole(tunnel, service));
        goes_as(&bench, &later(own, service), &later(tunnel, service));
        let first = cut(&answer(service, tunnel, &whole(tunnel, service)), 0, true);
        comes_as(
            &bench,
            &first,
            &cut(&answer(service, own, &whole(own, service)), 0, true),
        );
        comes_as(&bench, &later(service, tunnel), &later(service, own));
    }
}

#[test]
fn what_answers_nobody_diverted_passes_as_it_is() {
    need_root!();
    for (tunnel, _, service) in FAMILIES {
        let bench = diverting();
        for packet in [
            udp(service, tunnel, b"x"),
            tcp(service, tunnel, ACK, b"x"),
            echo(service, tunnel, 3),
            port_unreachable(service, tunnel, &udp(tunnel, service, b"x")),
        ] {
            let outcome = bench.returning(&packet);
            assert_eq!(outcome.verdict, Verdict::Pass);
            assert_eq!(outcome.bytes, packet);
        }
    }
}
