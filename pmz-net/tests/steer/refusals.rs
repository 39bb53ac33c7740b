//! What is answered at once, and how: the answers are read by smoltcp, which checks every sum in them.

use pmz_net::steer::{PrefixKind, Verdict};
use smoltcp::wire::{TcpPacket, TcpSeqNumber};

use crate::common::skip::need_root;
use crate::packets::{
    ACK, ACKNOWLEDGEMENT, FIN, RST, SEQUENCE, SOURCE_PORT, SYN, around, echo, icmp,
    port_unreachable, seen, tcp, udp, v4_fragment, v6_fragment, with_hop_by_hop,
};
use crate::trial::{Bench, ip};

/// A machine, a service without endpoints, and an address that no service has, in both families.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("10.8.0.2", "10.96.0.10", "10.96.7.7"),
    ("fd00:8::2", "fd00:96::10", "fd00:96::77"),
];

fn bench() -> Bench {
    let mut bench = Bench::cluster();
    bench.put("10.96.0.10", None, true);
    bench.put("fd00:96::10", None, true);
    bench
}

fn reset_of(answer: &[u8], machine: &str, service: &str) -> (u32, Option<u32>) {
    let seen = seen(answer);
    assert_eq!(
        (seen.source, seen.destination, seen.protocol),
        (ip(service), ip(machine), 6)
    );
    let tcp = TcpPacket::new_checked(seen.transport).unwrap();
    assert_eq!((tcp.src_port(), tcp.dst_port()), (80, SOURCE_PORT));
    assert!(tcp.rst() && !tcp.syn() && !tcp.fin());
    assert_eq!(seen.transport.len(), 20);
    let TcpSeqNumber(sequence) = tcp.seq_number();
    let TcpSeqNumber(acknowledged) = tcp.ack_number();
    (
        sequence.cast_unsigned(),
        tcp.ack().then_some(acknowledged.cast_unsigned()),
    )
}

#[test]
fn a_syn_is_reset_with_the_acknowledgement_that_its_sender_expects() {
    need_root!();
    let mut bench = bench();
    for (machine, empty, unknown) in FAMILIES {
        for service in [empty, unknown] {
            let answer = bench.answer(&tcp(machine, service, SYN, b""));
            assert_eq!(
                reset_of(&answer, machine, service),
                (0, Some(SEQUENCE.wrapping_add(1)))
            );
        }
    }
    let refusals = bench.report().refusals;
    assert_eq!((refusals.no_endpoints, refusals.unknown), (2, 2));
}

#[test]
fn a_segment_is_reset_by_rfc_9293_whatever_it_carries() {
    need_root!();
    let bench = bench();
    for (machine, _, service) in FAMILIES {
        let data = [5; 1200];
        // With an acknowledgement its number is the reset's sequence number.
        let answer = bench.answer(&tcp(machine, service, ACK, &data));
        assert_eq!(reset_of(&answer, machine, service), (ACKNOWLEDGEMENT, None));
        let answer = bench.answer(&tcp(machine, service, SYN | ACK, b""));
        assert_eq!(reset_of(&answer, machine, service), (ACKNOWLEDGEMENT, None));
        // Without one all of the segment is acknowledged: data, SYN and FIN, around the end of the numbers.
        let answer = bench.answer(&tcp(machine, service, SYN | FIN, &data));
        assert_eq!(
            reset_of(&answer, machine, service),
            (0, Some(SEQUENCE.wrapping_add(1202)))
        );
        let answer = bench.answer(&tcp(machine, service, 0, &data));
        assert_eq!(
            reset_of(&answer, machine, service),
            (0, Some(SEQUENCE.wrapping_add(1200)))
        );
    }
}

#[test]
fn a_reset_is_never_answered() {
    need_root!();
    let mut bench = bench();
    for (machine, _, service) in FAMILIES {
        for flags in [RST, RST | ACK] {
            assert_eq!(
                bench.steer(&tcp(machine, service, flags, b"")).verdict,
                Verdict::Drop
            );
        }
    }
    assert_eq!(bench.report().drops.unanswerable, 4);
}

/// The type, the code and the quotation of an ICMP error.
fn error_of<'a>(answer: &'a [u8], machine: &str, service: &str) -> (u8, u8, &'a [u8]) {
    let seen = seen(answer);
    assert_eq!((seen.source, seen.destination), (ip(service), ip(machine)));
    assert_eq!(seen.protocol, if ip(machine).is_ipv4() { 1 } else { 58 });
    assert_eq!(seen.transport[4..8], [0; 4]);
    (seen.transport[0], seen.transport[1], &seen.transport[8..])
}

#[test]
fn of_a_datagram_the_port_is_unreachable_and_of_all_else_the_host() {
    need_root!();
    let mut bench = bench();
    for (machine, empty, unknown) in FAMILIES {
        let (port, host) = if ip(machine).is_ipv4() {
            ((3, 3), (3, 1))
        } else {
            ((1, 4), (1, 3))
        };
        for service in [empty, unknown] {
            for (packet, expected) in [
                (udp(machine, service, b"short"), port),
                (udp(machine, service, b""), port),
                (udp(machine, service, &[1; 1400]), port),
                (echo(machine, service, 3), host),
                (around(machine, service, 132, b"twenty bytes of sctp"), host),
                (around(machine, service, 47, b"few"), host),
            ] {
                let answer = bench.answer(&packet);
                let (kind, code, quoted) = error_of(&answer, machine, service);
                assert_eq!((kind, code), expected);
                let header = if ip(machine).is_ipv4() { 20 } else { 40 };
                assert_eq!(quoted, &packet[..packet.len().min(header + 8)]);
            }
        }
    }
    assert_eq!(bench.report().refusals.unknown, 12);
}

#[test]
fn the_quotation_reaches_behind_options_and_extension_headers() {
    need_root!();
    let bench = bench();
    let (machine, service, _) = FAMILIES[1];
    let packet = with_hop_by_hop(&udp(machine, service, b"data behind"));
    let answer = bench.answer(&packet);
    let (_, _, quoted) = error_of(&answer, machine, service);
    assert_eq!(quoted, &packet[..56]);

    let (machine, service, _) = FAMILIES[0];
    let plain = udp(machine, service, b"data behind");
    let mut packet = plain[..20].to_vec();
    packet.extend([1; 8]);
    packet.extend(&plain[20..]);
    packet[0] = 0x47;
    packet[3] += 8;
    let answer = bench.answer(&packet);
    let (_, _, quoted) = error_of(&answer, machine, service);
    assert_eq!(quoted, &packet[..36]);
}

#[test]
fn what_must_not_be_answered_is_dropped() {
    need_root!();
    let mut bench = bench();
    for (machine, _, service) in FAMILIES {
        let about = tcp(service, machine, ACK, b"");
        let v4 = ip(machine).is_ipv4();
        let datagram = udp(machine, service, b"some data of a datagram");
        let later = if v4 {
            v4_fragment(&datagram, 10, false)
        } else {
            v6_fragment(&datagram, 10, false)
        };
        for packet in [port_unreachable(machine, service, &about), later] {
            assert_eq!(bench.steer(&packet).verdict, Verdict::Drop);
        }
        let first = if v4 {
            v4_fragment(&datagram, 0, true)
        } else {
            v6_fragment(&datagram, 0, true)
        };
        assert_eq!(
            bench.steer(&first).verdict,
            Verdict::TurnBack,
            "the first fragment is answered"
        );
    }
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255"] {
        assert_eq!(
            bench.steer(&udp(source, "10.96.7.7", b"x")).verdict,
            Verdict::Drop,
            "{source}"
        );
    }
    for source in ["::", "ff02::1"] {
        assert_eq!(
            bench.steer(&udp(source, "fd00:96::77", b"x")).verdict,
            Verdict::Drop,
            "{source}"
        );
    }
    assert_eq!(bench.report().drops.unanswerable, 10);

    let mut multicast = Bench::new(&[
        ("224.0.0.0/3", PrefixKind::Services),
        ("ff00::/8", PrefixKind::Services),
    ]);
    multicast.trial().maps().set_complete(true).unwrap();
    for (source, destination) in [
        ("10.8.0.2", "224.0.0.251"),
        ("10.8.0.2", "255.255.255.255"),
        ("fd00:8::2", "ff02::fb"),
    ] {
        assert_eq!(
            multicast.steer(&udp(source, destination, b"x")).verdict,
            Verdict::Drop
        );
    }
}

#[test]
fn the_tunnel_s_own_addresses_are_answered_like_any_other() {
    need_root!();
    let mut bench = bench();
    // Class E to others, and where the tunnel's addresses are from.
    bench.answer(&tcp("240.64.0.2", "10.96.7.7", SYN, b""));
    bench.answer(&udp("240.64.0.2", "10.96.7.7", b"x"));
    assert_eq!(bench.report().drops.unanswerable, 0);
}

#[test]
fn an_unknown_address_passes_while_not_all_services_are_known() {
    need_root!();
    let mut bench = bench();
    let packet = tcp("10.8.0.2", "10.96.7.7", SYN, b"");
    bench.trial().maps().set_complete(false).unwrap();
    bench.passes(&packet);
    // Without endpoints is known to be without.
    bench.answer(&tcp("10.8.0.2", "10.96.0.10", SYN, b""));
    bench.trial().maps().set_complete(true).unwrap();
    bench.answer(&packet);
    // Pods are not known one by one.
    bench.passes(&tcp("10.8.0.2", "10.244.0.1", SYN, b""));
}

#[test]
fn a_segment_that_lies_about_its_header_is_not_answered() {
    need_root!();
    let mut bench = bench();
    let mut packet = tcp("10.8.0.2", "10.96.7.7", SYN, b"");
    packet[32] = 4 << 4;
    assert_eq!(bench.steer(&packet).verdict, Verdict::Drop);
    packet[32] = 15 << 4;
    assert_eq!(bench.steer(&packet).verdict, Verdict::Drop);
    assert_eq!(bench.steer(&packet[..36]).verdict, Verdict::Drop);
    assert_eq!(bench.report().drops.malformed, 3);
}

#[test]
fn a_refused_packet_is_no_traffic() {
    need_root!();
    let mut bench = bench();
    bench.answer(&icmp("10.8.0.2", "10.96.0.10", 13, 0, [0; 4], b"timestamp"));
    bench.answer(&tcp("10.8.0.2", "10.96.0.10", SYN, b""));
    assert_eq!(bench.traffic("10.96.0.10"), None);
    assert_eq!(bench.report().prefixes[0].sent.packets, 0);
}
