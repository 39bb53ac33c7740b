//! Stand-ins and real addresses: what goes out and what comes back, with every checksum in it.

use pmz_net::steer::Verdict;

use crate::common::skip::need_root;
use crate::packets::{
    ACK, FIN, SYN, around, checksum, echo, extended, icmp, port_unreachable, seen, tcp, udp,
    v4_fragment, v6_fragment, with_hop_by_hop,
};
use crate::trial::{Bench, ip};

/// The machine, a stand-in, and what it stands for, in both families.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("10.8.0.2", "240.0.0.7", "10.96.0.10"),
    ("fd00:8::2", "fd00:5::7", "fd00:96::10"),
];

fn bench() -> Bench {
    Bench::remapped(&[("240.0.0.7", "10.96.0.10"), ("fd00:5::7", "fd00:96::10")])
}

/// That `packet`, on its way out, becomes `expected`.
#[track_caller]
fn goes_out_as(bench: &Bench, packet: &[u8], expected: &[u8]) {
    let outcome = bench.steer(packet);
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!(outcome.bytes, expected);
}

/// That `packet`, on its way in, becomes `expected`.
#[track_caller]
fn comes_in_as(bench: &Bench, packet: &[u8], expected: &[u8]) {
    let outcome = bench.returning(packet);
    assert_eq!(outcome.verdict, Verdict::Pass);
    assert_eq!(outcome.bytes, expected);
}

/// Makes a packet from one address to another.
type Kind<'a> = &'a dyn Fn(&str, &str) -> Vec<u8>;

#[test]
fn every_kind_of_packet_is_what_it_would_have_been_with_the_other_address() {
    need_root!();
    let bench = bench();
    for (machine, used, real) in FAMILIES {
        let kinds: [Kind<'_>; 9] = [
            &|from, to| tcp(from, to, SYN, b""),
            &|from, to| tcp(from, to, ACK | FIN, &[3; 999]),
            &|from, to| udp(from, to, b""),
            &|from, to| udp(from, to, b"odd number of bytes"),
            &|from, to| echo(from, to, 9),
            &|from, to| {
                icmp(
                    from,
                    to,
                    if ip(from).is_ipv4() { 13 } else { 200 },
                    0,
                    [1, 2, 3, 4],
                    b"other",
                )
            },
            &|from, to| around(from, to, 132, b"sctp has no pseudo-header"),
            &|from, to| around(from, to, 6, b"cut short"),
            &|from, to| around(from, to, 59, b""),
        ];
        for (number, kind) in kinds.iter().enumerate() {
            // What is too short for its checksum can't be corrected, and does not pass half corrected.
            if number == 7 {
                assert_eq!(bench.steer(&kind(machine, used)).verdict, Verdict::Drop);
                assert_eq!(bench.returning(&kind(real, machine)).verdict, Verdict::Drop);
                continue;
            }
            goes_out_as(&bench, &kind(machine, used), &kind(machine, real));
            comes_in_as(&bench, &kind(real, machine), &kind(used, machine));
            // Of these smoltcp has an opinion.
            if number < 5 {
                seen(&bench.steer(&kind(machine, used)).bytes);
            }
        }
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without_and_one_that_becomes_zero_does_not() {
    need_root!();
    let bench = bench();
    let mut without = udp("10.8.0.2", "240.0.0.7", b"data");
    without[26..28].copy_from_slice(&[0, 0]);
    assert_eq!(bench.steer(&without).bytes[26..28], [0, 0]);
    // Data that bring the sum, with the real address, to zero, which stands for 0xffff (RFC 768).
    let rest = udp("10.8.0.2", "10.96.0.10", &[0, 0]);
    let data = rest[26..28].to_vec();
    assert_eq!(udp("10.8.0.2", "10.96.0.10", &data)[26..28], [0, 0]);
    assert_eq!(
        bench.steer(&udp("10.8.0.2", "240.0.0.7", &data)).bytes[26..28],
        [0xff, 0xff]
    );
}

#[test]
fn of_fragments_only_the_first_has_a_checksum() {
    need_root!();
    let bench = bench();
    for (machine, used, real) in FAMILIES {
        let cut = |packet: &[u8], offset: u16, more: bool| {
            if packet[0] >> 4 == 4 {
                v4_fragment(packet, offset, more)
            } else {
                v6_fragment(packet, offset, more)
            }
        };
        let data = b"datagram that comes in pieces";
        let (out, expected) = (udp(machine, used, data), udp(machine, real, data));
        goes_out_as(&bench, &cut(&out, 0, true), &cut(&expected, 0, true));
        // What stands where a header would is data, and must not change.
        let piece = |to: &str, offset, more| {
            cut(
                &around(machine, to, 17, b"this is not a header"),
                offset,
                more,
            )
        };
        goes_out_as(&bench, &piece(used, 3, true), &piece(real, 3, true));
        goes_out_as(&bench, &piece(used, 6, false), &piece(real, 6, false));
        let back = |from: &str, offset, more| {
            cut(
                &around(from, machine, 17, b"this is not a header"),
                offset,
                more,
            )
        };
        comes_in_as(&bench, &back(real, 6, false), &back(used, 6, false));
    }
}

#[test]
fn a_transport_behind_extension_headers_is_found() {
    need_root!();
    let bench = bench();
    let (machine, used, real) = FAMILIES[1];
    let long = |packet: &[u8]| {
        let mut options = vec![1, 1, 12];
        options.extend([0; 12]);
        with_hop_by_hop(&extended(packet, 60, &options))
    };
    goes_out_as(
        &bench,
        &long(&tcp(machine, used, ACK, b"data")),
        &long(&tcp(machine, real, ACK, b"data")),
    );
    let routed = |packet: &[u8]| extended(packet, 43, &[0, 0, 0, 0, 0, 0, 0]);
    comes_in_as(
        &bench,
        &routed(&udp(real, machine, b"data")),
        &routed(&udp(used, machine, b"data")),
    );
}

/// The packet in an error, and that what it quotes has a right header checksum.
fn quotation(packet: &[u8]) -> &[u8] {
    let quoted = &seen(packet).transport[8..];
    if quoted[0] >> 4 == 4 {
        assert_eq!(checksum(&[&quoted[..20]]), 0);
    }
    quoted
}

#[test]
fn an_error_about_a_packet_of_the_machine_quotes_what_the_machine_has_sent() {
    need_root!();
    let bench = bench();
    for (machine, used, real) in FAMILIES {
        let header = if ip(machine).is_ipv4() { 20 } else { 40 };
        let router = if ip(machine).is_ipv4() {
            "172.16.0.1"
        } else {
            "fd00:1::1"
        };
        for data in [&b""[..], &[9; 200]] {
            let quoted = udp(machine, real, data);
            for source in [real, router] {
                let outcome = bench.returning(&port_unreachable(source, machine, &quoted));
                assert_eq!(outcome.verdict, Verdict::Pass);
                let expected = udp(machine, used, data);
                let inner = quotation(&outcome.bytes);
                assert_eq!(inner[..header], expected[..header]);
                // Ports and length; the checksum stays that of the packet in the cluster.
                assert_eq!(inner[header..], quoted[header..]);
                assert_eq!(
                    seen(&outcome.bytes).source,
                    ip(if source == real { used } else { router })
                );
            }
        }
    }
}

#[test]
fn an_error_about_a_packet_of_the_cluster_quotes_what_the_cluster_has_sent() {
    need_root!();
    let bench = bench();
    for (machine, used, real) in FAMILIES {
        let header = if ip(machine).is_ipv4() { 20 } else { 40 };
        let outcome = bench.steer(&port_unreachable(
            machine,
            used,
            &udp(used, machine, b"late"),
        ));
        assert_eq!(outcome.verdict, Verdict::Pass);
        assert_eq!(seen(&outcome.bytes).destination, ip(real));
        assert_eq!(
            quotation(&outcome.bytes)[..header],
            udp(real, machine, b"late")[..header]
        );
    }
}

#[test]
fn an_error_with_a_quotation_that_is_cut_short_passes_as_it_is() {
    need_root!();
    let bench = bench();
    for (machine, used, real) in FAMILIES {
        for length in [0, 4, 19] {
            let quoted = udp(machine, real, b"data");
            comes_in_as(
                &bench,
                &port_unreachable(real, machine, &quoted[..length]),
                &port_unreachable(used, machine, &quoted[..length]),
            );
        }
        // A quotation of the other family, or of nothing known, is nobody's business.
        let strange = [0x55; 60];
        comes_in_as(
            &bench,
            &port_unreachable(real, machine, &strange),
            &port_unreachable(used, machine, &strange),
        );
    }
}

#[test]
fn a_service_without_endpoints_is_refused_by_its_stand_in() {
    need_root!();
    let mut bench = bench();
    bench.put("240.0.0.9", Some("10.96.0.9"), true);
    let answer = bench.answer(&tcp("10.8.0.2", "240.0.0.9", SYN, b""));
    assert_eq!(seen(&answer).source, ip("240.0.0.9"));
}

#[test]
fn traffic_is_counted_by_the_address_that_the_machine_uses() {
    need_root!();
    let mut bench = bench();
    for (machine, used, real) in FAMILIES {
        bench.steer(&udp(machine, used, b"out"));
        bench.returning(&udp(real, machine, b"back"));
        let traffic = bench.traffic(used).unwrap();
        assert_eq!((traffic.sent.packets, traffic.received.packets), (1, 1));
        assert_eq!(bench.traffic(real), None);
    }
    let report = bench.report();
    assert!(
        report
            .prefixes
            .iter()
            .all(|prefix| prefix.sent.packets == 1 && prefix.received.packets == 1)
    );
}

#[test]
fn a_stand_in_that_is_taken_away_is_an_address_like_any_other() {
    need_root!();
    let mut bench = bench();
    let gone = [pmz_net::steer::TargetChange::Remove(ip("240.0.0.7"))];
    bench.trial().maps().apply(&gone).unwrap();
    let out = udp("10.8.0.2", "240.0.0.7", b"x");
    goes_out_as(&bench, &out, &out);
    let back = udp("10.96.0.10", "10.8.0.2", b"x");
    comes_in_as(&bench, &back, &back);
}
