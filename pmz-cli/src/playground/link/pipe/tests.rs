use std::time::Duration;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn pipe(spec: &str) -> Pipe {
    Pipe::new(spec.parse().unwrap(), 1)
}

/// A packet with a number in it.
fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[..4].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Runs the clock until nothing is under way; gives number and arrival (since `start`) of each packet.
fn drain(pipe: &mut Pipe, start: Instant) -> Vec<(u32, Duration)> {
    let mut arrived = Vec::new();
    while let Some(now) = pipe.poll_timeout() {
        while let Some(packet) = pipe.poll_transmit(now) {
            arrived.push((
                u32::from_be_bytes(*packet.bytes.first_chunk().unwrap()),
                now - start,
            ));
        }
    }
    arrived
}

#[test]
fn a_packet_arrives_after_the_delay_and_not_before() {
    let mut pipe = pipe("delay=20ms");
    let start = Instant::now();
    pipe.handle_packet(start, packet(1, 100));
    assert_eq!(pipe.poll_timeout(), Some(start + 20 * MS));
    assert_eq!(
        pipe.poll_transmit(start + 20 * MS - Duration::from_nanos(1)),
        None
    );
    assert!(pipe.poll_transmit(start + 20 * MS).is_some());
    assert_eq!(pipe.poll_timeout(), None);
}

#[test]
fn jitter_spreads_the_delay_within_its_bounds_and_keeps_the_order() {
    let mut pipe = pipe("delay=20ms,jitter=5ms");
    let start = Instant::now();
    for i in 0..1000u32 {
        pipe.handle_packet(start + i * 20 * MS, packet(i, 100));
    }
    let delays: Vec<_> = drain(&mut pipe, start)
        .iter()
        .map(|(i, at)| *at - *i * 20 * MS)
        .collect();
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!((15 * MS..16 * MS).contains(least), "{least:?}");
    assert!((24 * MS..=25 * MS).contains(most), "{most:?}");

    for i in 0..1000 {
        pipe.handle_packet(start + i * MS / 10, packet(i, 100));
    }
    assert!(drain(&mut pipe, start).is_sorted_by_key(|(i, _)| *i));
}

#[test]
fn the_rate_spaces_packets_and_the_queue_bounds_their_wait() {
    // 1250 bytes take 1 ms each; one is being sent and ten may wait up to 10 ms.
    let mut pipe = pipe("rate=10mbit,queue=10ms,delay=5ms");
    let start = Instant::now();
    for i in 0..20 {
        pipe.handle_packet(start, packet(i, 1250));
    }
    let arrived = drain(&mut pipe, start);
    let expected: Vec<_> = (0..11).map(|i| (i, (i + 1 + 5) * MS)).collect();
    assert_eq!(arrived, expected);
    assert_eq!(
        pipe.counters(),
        PipeCounters {
            delivered: 11,
            dropped: 9,
            ..PipeCounters::default()
        }
    );
}

#[test]
fn a_link_that_was_idle_has_saved_nothing_up() {
    let mut pipe = pipe("rate=10mbit");
    let start = Instant::now();
    pipe.handle_packet(start, packet(0, 1250));
    pipe.handle_packet(start + 100 * MS, packet(1, 1250));
    pipe.handle_packet(start + 100 * MS, packet(2, 1250));
    assert_eq!(
        drain(&mut pipe, start),
        [(0, MS), (1, 101 * MS), (2, 102 * MS)]
    );
}

#[test]
fn the_share_that_is_lost_is_the_one_that_was_asked_for() {
    let mut pipe = pipe("loss=1%");
    let start = Instant::now();
    for i in 0..100_000 {
        pipe.handle_packet(start, packet(i, 64));
    }
    let lost = pipe.counters().lost;
    assert!((900..1100).contains(&lost), "{lost}");
    assert_eq!(drain(&mut pipe, start).len() as u64, 100_000 - lost);
}

#[test]
fn the_same_seed_loses_the_same_packets() {
    let run = |seed| {
        let mut pipe = Pipe::new("loss=10%".parse().unwrap(), seed);
        let start = Instant::now();
        (0..1000).for_each(|i| drop(pipe.handle_packet(start, packet(i, 64))));
        drain(&mut pipe, start)
            .into_iter()
            .map(|(i, _)| i)
            .collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn reordered_packets_overtake_those_under_way() {
    let mut pipe = pipe("delay=20ms,reorder=10%");
    let start = Instant::now();
    for i in 0..1000 {
        pipe.handle_packet(start + i * MS, packet(i, 64));
    }
    let arrived = drain(&mut pipe, start);
    assert_eq!(arrived.len(), 1000);
    let early = arrived.iter().filter(|(i, at)| *at == *i * MS).count();
    assert!((50..150).contains(&early), "{early}");
    assert!(!arrived.is_sorted_by_key(|(i, _)| *i));
}

#[test]
fn blocked_udp_is_lost_and_nothing_else() {
    let mut pipe = pipe("udp=off");
    let now = Instant::now();
    let v4 = |protocol| {
        let mut packet = vec![0; 40];
        (packet[0], packet[9]) = (0x45, protocol);
        packet
    };
    let mut v6 = vec![0; 60];
    (v6[0], v6[6]) = (0x60, 17);
    assert!(pipe.handle_packet(now, v4(17)).is_some());
    assert!(pipe.handle_packet(now, v6).is_some());
    assert!(pipe.handle_packet(now, v4(6)).is_none());
    assert!(pipe.handle_packet(now, vec![]).is_none());
}

#[test]
fn what_is_under_way_is_bounded_without_a_rate_too() {
    let mut pipe = pipe("delay=1000s");
    let now = Instant::now();
    let count = MAX_BYTES / 60_000;
    for _ in 0..count {
        assert!(pipe.handle_packet(now, vec![0; 60_000]).is_none());
    }
    assert!(pipe.handle_packet(now, vec![0; 60_000]).is_some());
    assert_eq!(pipe.counters().dropped, 1);
}

#[test]
fn a_queue_of_packets_counts_those_that_wait_and_not_the_one_that_is_sent() {
    let mut pipe = pipe("rate=10mbit,queue=10p");
    let start = Instant::now();
    for i in 0..20 {
        pipe.handle_packet(start, packet(i, 1250));
    }
    // Two have been sent and the third is being sent: there is room for two more, whatever their size.
    for i in 20..24 {
        pipe.handle_packet(start + 2 * MS, packet(i, 125));
    }
    let arrived: Vec<u32> = drain(&mut pipe, start).iter().map(|(i, _)| *i).collect();
    assert_eq!(arrived, (0..11).chain(20..22).collect::<Vec<_>>());
    assert_eq!(pipe.counters().dropped, 11);
}

#[test]
fn a_queue_of_no_packets_still_has_a_line() {
    let mut pipe = pipe("rate=10mbit,queue=0p");
    let start = Instant::now();
    for i in 0..3 {
        pipe.handle_packet(start, packet(i, 1250));
        pipe.handle_packet(start + MS, packet(i + 10, 1250));
    }
    assert_eq!(drain(&mut pipe, start), [(0, MS), (10, 2 * MS)]);
}

#[test]
fn a_policer_drops_what_exceeds_its_rate_and_delays_nothing() {
    // A bucket of 10 packets that gets one more each millisecond.
    let mut pipe = pipe("police=10mbit,burst=12.5kb");
    let start = Instant::now();
    for i in 0..20 {
        pipe.handle_packet(start, packet(i, 1250));
    }
    for ms in 1..=30 {
        for twice in 0..2 {
            pipe.handle_packet(start + ms * MS, packet(100 * ms + twice, 1250));
        }
    }
    // A pause fills the bucket and no more than that.
    for i in 0..20 {
        pipe.handle_packet(start + 1000 * MS, packet(10_000 + i, 1250));
    }
    let arrived = drain(&mut pipe, start);
    let expected = (0..10).map(|i| (i, Duration::ZERO));
    let expected = expected.chain((1..=30).map(|ms| (100 * ms, ms * MS)));
    let expected: Vec<_> = expected
        .chain((0..10).map(|i| (10_000 + i, 1000 * MS)))
        .collect();
    assert_eq!(arrived, expected);
    assert_eq!(pipe.counters().dropped, 10 + 30 + 10);
}

#[test]
fn a_policer_and_a_queue_stand_one_behind_the_other() {
    let mut pipe = pipe("police=20mbit,burst=2.5kb,rate=10mbit,queue=100ms");
    let start = Instant::now();
    for i in 0..4 {
        pipe.handle_packet(start, packet(i, 1250));
    }
    assert_eq!(drain(&mut pipe, start), [(0, MS), (1, 2 * MS)]);
}

#[test]
fn losses_come_in_bursts_of_the_length_that_was_asked_for() {
    let mut pipe = pipe("burst-loss=0.1%x50");
    let start = Instant::now();
    for i in 0..100_000 {
        pipe.handle_packet(start + i * MS / 10, packet(i, 64));
    }
    let arrived = drain(&mut pipe, start);
    let gaps: Vec<u32> = arrived
        .windows(2)
        .map(|pair| pair[1].0 - pair[0].0 - 1)
        .filter(|gap| *gap > 0)
        .collect();
    // One begins with the packet behind another one's last: rare, and still a multiple.
    assert!(gaps.iter().all(|gap| gap % 50 == 0), "{gaps:?}");
    // 100,000 packets of which each that is outside begins one: 95 are expected.
    assert!((65..125).contains(&gaps.len()), "{}", gaps.len());
    assert_eq!(pipe.counters().lost, 100_000 - arrived.len() as u64);
}

#[test]
fn a_burst_ends_with_the_description_that_began_it() {
    let mut pipe = pipe("burst-loss=100%x1000");
    let now = Instant::now();
    assert!(pipe.handle_packet(now, packet(0, 64)).is_some());
    pipe.set_spec(LinkSpec::default());
    assert!(pipe.handle_packet(now, packet(1, 64)).is_none());
}

#[test]
fn with_disorder_jitter_lets_packets_overtake_each_other() {
    let mut pipe = pipe("delay=20ms,jitter=5ms,disorder=on");
    let start = Instant::now();
    for i in 0..1000 {
        pipe.handle_packet(start + i * MS, packet(i, 64));
    }
    let arrived = drain(&mut pipe, start);
    assert_eq!(arrived.len(), 1000);
    assert!(arrived.is_sorted_by_key(|(_, at)| *at));
    let late = arrived
        .windows(2)
        .filter(|pair| pair[1].0 < pair[0].0)
        .count();
    assert!(late > 200, "{late}");
    for (i, at) in arrived {
        let delay = at - i * MS;
        assert!((15 * MS..=25 * MS).contains(&delay), "{delay:?}");
    }
}

#[test]
fn a_packet_that_is_there_twice_arrives_twice() {
    let mut pipe = pipe("delay=1ms,duplicate=10%");
    let start = Instant::now();
    for i in 0..1000 {
        pipe.handle_packet(start + i * MS, packet(i, 64));
    }
    let arrived = drain(&mut pipe, start);
    let twice = arrived.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((60..140).contains(&twice), "{twice}");
    assert_eq!(arrived.len(), 1000 + twice);
    let counters = pipe.counters();
    assert_eq!(counters.duplicated, twice as u64);
    assert_eq!(counters.delivered, 1000 + twice as u64);
}

#[test]
fn a_corrupt_packet_has_one_wrong_bit_wherever_it_is() {
    let mut pipe = pipe("corrupt=50%");
    let now = Instant::now();
    for _ in 0..4000 {
        pipe.handle_packet(now, vec![0; 40]);
    }
    pipe.handle_packet(now, Vec::new());
    let mut wrong = [0; 40];
    while let Some(packet) = pipe.poll_transmit(now) {
        let ones: u32 = packet.bytes.iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, u32::from(packet.corrupt && !packet.bytes.is_empty()));
        for (count, byte) in wrong.iter_mut().zip(&packet.bytes) {
            *count += byte.count_ones();
        }
    }
    assert!(wrong.iter().all(|count| *count > 10), "{wrong:?}");
    let all: u32 = wrong.iter().sum();
    assert!((1800..2200).contains(&all), "{all}");
    assert!(pipe.counters().corrupted.abs_diff(u64::from(all)) <= 1);
}

/// An IPv4 header, with a checksum that is right.
fn v4_header(ecn: u8) -> Vec<u8> {
    let mut packet = vec![0; 1250];
    (packet[0], packet[1]) = (0x45, ecn);
    packet[2..4].copy_from_slice(&1250_u16.to_be_bytes());
    let sum = !sum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[test]
fn packets_that_wait_too_long_are_marked_where_their_sender_understands_it() {
    let mut pipe = pipe("rate=10mbit,queue=20ms,ecn=5ms");
    let start = Instant::now();
    for i in 0..20 {
        let ecn = if i % 2 == 0 { 0b10 } else { 0 };
        assert!(pipe.handle_packet(start, v4_header(ecn)).is_none());
    }
    let mut marks = Vec::new();
    while let Some(now) = pipe.poll_timeout() {
        while let Some(packet) = pipe.poll_transmit(now) {
            assert_eq!(
                sum(&packet.bytes[..20]),
                0xffff,
                "its checksum is still right"
            );
            marks.push(packet.bytes[1]);
        }
    }
    // The sixth waits 5 ms, which is not longer.
    let expected: Vec<u8> = (0..20)
        .map(|i| match (i % 2, i) {
            (0, 0..6) => 0b10,
            (0, _) => 0b11,
            _ => 0,
        })
        .collect();
    assert_eq!(marks, expected);
    assert_eq!(pipe.counters().marked, 7);
}

#[test]
fn one_property_does_not_change_which_packets_another_one_hits() {
    let lost = |others: &str| {
        let mut pipe = pipe(&format!("loss=5%{others}"));
        let start = Instant::now();
        let lost = (0..2000).filter(|i| {
            let now = start + *i * MS;
            pipe.handle_packet(now, packet(*i, 1000)).is_some()
        });
        lost.collect::<Vec<_>>()
    };
    let alone = lost("");
    assert!(!alone.is_empty());
    for others in [
        ",jitter=2ms,disorder=on,delay=3ms",
        ",duplicate=50%,corrupt=50%,reorder=50%",
        ",rate=100mbit,ecn=1ms",
        ",police=100mbit",
    ] {
        assert_eq!(lost(others), alone, "{others}");
    }
    let with_bursts = lost(",burst-loss=1%x3");
    assert!(alone.iter().all(|i| with_bursts.contains(i)));
}

#[test]
fn an_outage_is_total_and_ends_when_it_is_told_to() {
    let mut pipe = pipe("delay=20ms");
    let start = Instant::now();
    pipe.handle_packet(start, packet(0, 64));
    pipe.set_spec("delay=20ms,loss=100%".parse().unwrap());
    for i in 1..10_000 {
        assert!(pipe.handle_packet(start + MS, packet(i, 64)).is_some());
    }
    pipe.set_spec("delay=20ms".parse().unwrap());
    pipe.handle_packet(start + 2 * MS, packet(10_000, 64));
    assert_eq!(
        drain(&mut pipe, start),
        [(0, 20 * MS), (10_000, 22 * MS)],
        "what was under way arrives"
    );
}
