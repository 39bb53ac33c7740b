//! What passes, what does not, and what is counted.

use pmz_net::steer::{PrefixKind, SteerError, Target, TargetChange, TrialPacket, Verdict, Volume};

use crate::common::skip::need_root;
use crate::packets::{ACK, SYN, around, echo, extended, tcp, udp, v4_fragment};
use crate::trial::{Bench, ip, steered};

const LAPTOP: &str = "10.8.0.2";
const LAPTOP6: &str = "fd00:8::2";

#[test]
fn what_a_steered_prefix_holds_passes_as_it_is() {
    need_root!();
    let mut bench = Bench::cluster();
    bench.put("10.96.0.10", None, false);
    bench.put("fd00:96::10", None, false);
    for (source, destination) in [
        (LAPTOP, "10.96.0.10"),
        (LAPTOP6, "fd00:96::10"),
        (LAPTOP, "10.244.7.7"),
        (LAPTOP6, "fd00:244::7"),
    ] {
        bench.passes(&tcp(source, destination, SYN, b""));
        bench.passes(&udp(source, destination, b"data"));
        bench.passes(&echo(source, destination, 1));
        bench.passes(&around(source, destination, 132, b"some sctp"));
    }
}

#[test]
fn what_no_prefix_holds_is_dropped_and_counted() {
    need_root!();
    let mut bench = Bench::cluster();
    for (source, destination) in [
        (LAPTOP, "192.168.1.1"),
        (LAPTOP6, "2001:db8::1"),
        (LAPTOP6, "ff02::16"),
    ] {
        assert_eq!(
            bench.steer(&udp(source, destination, b"x")).verdict,
            Verdict::Drop
        );
    }
    assert_eq!(bench.report().drops.no_prefix, 3);
}

#[test]
fn the_longest_prefix_decides_also_in_a_hole_within_a_hole() {
    need_root!();
    let mut bench = Bench::new(&[
        ("10.0.0.0/8", PrefixKind::Other),
        ("10.1.0.0/16", PrefixKind::Excluded),
        ("10.1.2.0/24", PrefixKind::Other),
        ("10.1.2.3/32", PrefixKind::Excluded),
    ]);
    bench.passes(&udp(LAPTOP, "10.9.9.9", b"x"));
    bench.passes(&udp(LAPTOP, "10.1.2.4", b"x"));
    for out in ["10.1.9.9", "10.1.2.3"] {
        assert_eq!(bench.steer(&udp(LAPTOP, out, b"x")).verdict, Verdict::Drop);
    }
    assert_eq!(bench.report().drops.excluded, 2);
}

#[test]
fn a_short_ipv6_prefix_does_not_hold_ipv4_addresses_unless_they_are_steered_by_too() {
    need_root!();
    let mut bench = Bench::new(&[("::/0", PrefixKind::Other)]);
    bench.passes(&udp(LAPTOP6, "2001:db8::1", b"x"));
    assert_eq!(
        bench.steer(&udp(LAPTOP, "10.96.0.1", b"x")).verdict,
        Verdict::Drop
    );
    let both = steered(&[
        ("::/0", PrefixKind::Other),
        ("0.0.0.0/0", PrefixKind::Other),
    ]);
    bench.trial().maps().set_prefixes(&both).unwrap();
    bench.passes(&udp(LAPTOP, "10.96.0.1", b"x"));
    bench.trial().maps().set_prefixes(&both[..1]).unwrap();
    assert_eq!(
        bench.steer(&udp(LAPTOP, "10.96.0.1", b"x")).verdict,
        Verdict::Drop
    );
}

#[test]
fn what_is_no_packet_is_dropped_both_ways_and_counted_by_reason() {
    need_root!();
    let mut bench = Bench::cluster();
    let good = udp(LAPTOP, "10.244.0.1", b"data");
    let good6 = udp(LAPTOP6, "fd00:244::1", b"data");

    let mut short_header = good.clone();
    short_header[0] = 0x44;
    let mut long_header = good[..24].to_vec();
    long_header[0] = 0x4f;
    let malformed = [
        short_header,
        long_header,
        udp("::ffff:10.8.0.2", "fd00:244::1", b"forged"),
        udp(LAPTOP6, "::ffff:10.244.0.1", b"forged"),
        extended(&good6, 43, &[0, 4, 1, 0, 0, 0, 0]),
        // An extension header that begins where the packet ends.
        [&good6[..4], &[0, 0, 0, 63], &good6[8..40]].concat(),
    ];
    // The kernel makes no trial of a packet that is shorter than its IP header.
    for (number, packet) in malformed.iter().enumerate() {
        assert_eq!(bench.steer(packet).verdict, Verdict::Drop, "out, {number}");
        assert_eq!(
            bench.returning(packet).verdict,
            Verdict::Drop,
            "in, {number}"
        );
    }
    assert_eq!(bench.report().drops.malformed, 12);
    let arp = [
        0_u8, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0, 0, 0, 0, 10, 8, 0, 2, 0, 0, 0, 0, 0, 0, 10, 96, 0, 1,
    ];
    assert_eq!(bench.steer(&arp).verdict, Verdict::Drop);
    assert_eq!(bench.returning(&arp).verdict, Verdict::Drop);
    assert_eq!(bench.report().drops.not_ip, 2);
}

#[test]
fn packets_and_bytes_are_counted_by_prefix_and_by_address_both_ways() {
    need_root!();
    let mut bench = Bench::cluster();
    bench.put("10.96.0.10", None, false);
    let out = udp(LAPTOP, "10.96.0.10", b"twelve bytes");
    let back = udp("10.96.0.10", LAPTOP, b"twenty bytes of data");
    for _ in 0..3 {
        bench.passes(&out);
    }
    for _ in 0..2 {
        assert_eq!(bench.returning(&back).bytes, back);
    }
    let sent = Volume {
        packets: 3,
        bytes: 3 * 40,
    };
    let received = Volume {
        packets: 2,
        bytes: 2 * 48,
    };
    let traffic = bench.traffic("10.96.0.10").unwrap();
    assert_eq!(
        (traffic.sent, traffic.received, traffic.flows),
        (sent, received, 1)
    );
    assert!(traffic.idle_ns < 10_000_000_000, "{}", traffic.idle_ns);
    let report = bench.report();
    assert_eq!(
        (report.prefixes[0].sent, report.prefixes[0].received),
        (sent, received)
    );
    assert!(
        report.prefixes[1..]
            .iter()
            .all(|prefix| prefix.sent.packets + prefix.received.packets == 0)
    );

    bench
        .trial()
        .maps()
        .apply(&[TargetChange::Remove(ip("10.96.0.10"))])
        .unwrap();
    assert_eq!(bench.traffic("10.96.0.10"), None);
}

#[test]
fn a_super_packet_counts_as_the_packets_it_stands_for() {
    need_root!();
    let mut bench = Bench::cluster();
    let packet = tcp(LAPTOP, "10.244.0.1", ACK, &[7; 1000]);
    let counted = TrialPacket {
        bytes: &packet,
        gso: Some((5, 200)),
    };
    bench.trial().steer(counted, 1).unwrap();
    assert_eq!(
        bench.traffic("10.244.0.1").unwrap().sent,
        Volume {
            packets: 5,
            bytes: 1044
        }
    );
    // From a TUN they come without the number, and the program works it out.
    for (size, packets) in [(200, 5), (300, 4), (999, 2), (1000, 1)] {
        let before = bench
            .traffic("10.244.0.2")
            .map_or(0, |traffic| traffic.received.packets);
        let packet = tcp("10.244.0.2", LAPTOP, ACK, &[7; 1000]);
        bench
            .trial()
            .returning(
                TrialPacket {
                    bytes: &packet,
                    gso: Some((0, size)),
                },
                1,
            )
            .unwrap();
        let after = bench.traffic("10.244.0.2").unwrap().received.packets;
        assert_eq!(after - before, packets, "{size}");
    }
}

#[test]
fn flows_are_counted_once_each() {
    need_root!();
    let mut bench = Bench::cluster();
    let flows = |bench: &mut Bench| bench.traffic("10.244.0.1").unwrap().flows;
    let syn = tcp(LAPTOP, "10.244.0.1", SYN, b"");
    bench.passes(&syn);
    bench.passes(&syn);
    assert_eq!(flows(&mut bench), 1, "a SYN that is sent again");
    bench.passes(&tcp(LAPTOP, "10.244.0.1", ACK, b"data"));
    bench.passes(&tcp(LAPTOP, "10.244.0.1", SYN | ACK, b""));
    assert_eq!(flows(&mut bench), 1);
    let mut again = syn.clone();
    again[24] ^= 1;
    bench.steer(&again);
    assert_eq!(
        flows(&mut bench),
        2,
        "the same port with another sequence number"
    );
    let datagram = udp(LAPTOP, "10.244.0.1", b"a");
    bench.passes(&datagram);
    bench.passes(&udp(LAPTOP, "10.244.0.1", b"b"));
    bench.passes(&v4_fragment(&datagram, 100, true));
    assert_eq!(flows(&mut bench), 3, "one 5-tuple of UDP");
    bench.passes(&echo(LAPTOP, "10.244.0.1", 7));
    bench.passes(&echo(LAPTOP, "10.244.0.1", 7));
    bench.passes(&echo(LAPTOP, "10.244.0.1", 8));
    assert_eq!(flows(&mut bench), 5, "two runs of pings");
    bench.returning(&tcp("10.244.0.1", LAPTOP, SYN, b""));
    assert_eq!(flows(&mut bench), 5, "the machine did not begin this one");
}

#[test]
fn what_comes_from_outside_of_the_prefixes_passes_and_is_not_counted() {
    need_root!();
    let mut bench = Bench::cluster();
    let packet = udp("192.0.2.1", LAPTOP, b"x");
    let outcome = bench.returning(&packet);
    assert_eq!((outcome.verdict, outcome.bytes), (Verdict::Pass, packet));
    assert_eq!(bench.traffic("192.0.2.1"), None);
}

#[test]
fn prefixes_are_replaced_and_those_that_stay_count_on() {
    need_root!();
    let mut bench = Bench::new(&[
        ("10.244.0.0/16", PrefixKind::Other),
        ("10.245.0.0/16", PrefixKind::Other),
    ]);
    bench.passes(&udp(LAPTOP, "10.244.0.1", b"x"));
    bench.passes(&udp(LAPTOP, "10.245.0.1", b"x"));
    let next = steered(&[
        ("10.246.0.0/16", PrefixKind::Other),
        ("10.244.0.0/16", PrefixKind::Other),
    ]);
    bench.trial().maps().set_prefixes(&next).unwrap();
    bench.passes(&udp(LAPTOP, "10.244.0.1", b"x"));
    bench.passes(&udp(LAPTOP, "10.246.0.1", b"x"));
    assert_eq!(
        bench.steer(&udp(LAPTOP, "10.245.0.1", b"x")).verdict,
        Verdict::Drop
    );
    let sent: Vec<u64> = bench
        .report()
        .prefixes
        .iter()
        .map(|prefix| prefix.sent.packets)
        .collect();
    assert_eq!(sent, [1, 2]);
    // A place that was another prefix's begins at zero.
    let back = steered(&[
        ("10.245.0.0/16", PrefixKind::Other),
        ("10.247.0.0/16", PrefixKind::Other),
    ]);
    bench.trial().maps().set_prefixes(&back).unwrap();
    assert!(
        bench
            .report()
            .prefixes
            .iter()
            .all(|prefix| prefix.sent.packets == 0)
    );
}

#[test]
fn targets_that_contradict_each_other_are_refused_by_name() {
    need_root!();
    let mut bench = Bench::remapped(&[("240.0.0.1", "10.96.0.1")]);
    let put = |address: &str, real: &str| {
        [TargetChange::Put(Target {
            address: ip(address),
            real: Some(ip(real)),
            reject: false,
            service: true,
        })]
    };
    let maps = bench.trial().maps();
    assert!(matches!(
        maps.apply(&put("240.0.0.2", "10.96.0.1")),
        Err(SteerError::Taken { by, .. }) if by == ip("240.0.0.1")
    ));
    assert!(matches!(
        maps.apply(&put("240.0.0.2", "fd00::1")),
        Err(SteerError::Families { .. })
    ));
    assert!(matches!(
        maps.apply(&put("::ffff:1.2.3.4", "fd00::1")),
        Err(SteerError::Mapped(_))
    ));
    // Its own real address may be told again, changed, and then taken by another.
    maps.apply(&put("240.0.0.1", "10.96.0.1")).unwrap();
    maps.apply(&put("240.0.0.1", "10.96.0.9")).unwrap();
    maps.apply(&put("240.0.0.2", "10.96.0.1")).unwrap();
    maps.apply(&[
        TargetChange::Remove(ip("240.0.0.2")),
        TargetChange::Remove(ip("240.0.0.2")),
    ])
    .unwrap();
    maps.apply(&put("240.0.0.3", "10.96.0.1")).unwrap();
}
