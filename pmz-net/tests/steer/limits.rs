//! What happens when there is no more room.

use std::net::{IpAddr, Ipv4Addr};

use pmz_net::steer::{
    MAX_TARGETS, PrefixKind, SteerError, Target, TargetChange, TrialPacket, Verdict,
};

use crate::common::skip::need_root;
use crate::packets::udp;
use crate::trial::Bench;

fn address(first: u8, number: usize) -> IpAddr {
    let [.., a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
    Ipv4Addr::new(first, a, b, c).into()
}

#[test]
fn the_first_address_without_room_is_named_and_room_comes_back() {
    need_root!();
    let mut bench = Bench::remapped(&[]);
    let put = |number| {
        TargetChange::Put(Target {
            address: address(240, number),
            real: Some(address(10, number)),
            reject: false,
            service: true,
        })
    };
    let all: Vec<_> = (0..=MAX_TARGETS).map(put).collect();
    let maps = bench.trial().maps();
    match maps.apply(&all) {
        Err(SteerError::Full { address: without }) => {
            assert_eq!(without, address(240, MAX_TARGETS))
        }
        other => panic!("{other:?}"),
    }
    // What is there can still be changed.
    maps.apply(&all[..1]).unwrap();
    maps.apply(&[TargetChange::Remove(address(240, 7)), put(MAX_TARGETS)])
        .unwrap();
}

#[test]
fn a_scan_of_many_addresses_leaves_room_to_count_services() {
    need_root!();
    let mut bench = Bench::new(&[("10.0.0.0/8", PrefixKind::Other)]);
    let scanned = 40_000;
    let mut packet = udp("192.168.0.2", "10.0.0.0", b"scan");
    for number in 0..scanned {
        let IpAddr::V4(destination) = address(10, number) else {
            unreachable!()
        };
        packet[16..20].copy_from_slice(&destination.octets());
        let outcome = bench
            .trial()
            .steer(
                TrialPacket {
                    bytes: &packet,
                    gso: None,
                },
                1,
            )
            .unwrap();
        assert_eq!(outcome.verdict, Verdict::Pass);
    }
    let counted = bench.trial().maps().traffic().unwrap().len() as u64;
    let report = bench.report();
    assert_eq!(counted, 32_768);
    assert_eq!(report.untracked, scanned as u64 - counted);
    assert_eq!(
        report.prefixes[0].sent.packets, scanned as u64,
        "the prefix counts all"
    );
    bench.put("10.255.0.1", None, false);
    bench.passes(&udp("192.168.0.2", "10.255.0.1", b"x"));
    assert_eq!(bench.traffic("10.255.0.1").unwrap().sent.packets, 1);
}
