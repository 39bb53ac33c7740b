use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::*;
use crate::packet::testing::{Sample, assert_sound, mangled, random_bytes, rng};

fn fragments_of(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let mut fragments = Vec::new();
    assert!(fragment_v4(packet, mtu, &mut |f| fragments.push(f.to_vec())));
    fragments
}

fn v4_datagram(rng: &mut StdRng, len: usize) -> Vec<u8> {
    let mut sample = Sample::udp(true).payload(&random_bytes(rng, len));
    sample.dont_fragment = false;
    sample.id = rng.random();
    sample.build()
}

/// Cuts a plain IPv6 packet, as its sender would.
fn fragments_of_v6(packet: &[u8], per_fragment: usize, id: u32) -> Vec<Vec<u8>> {
    let payload = &packet[40..];
    let mut offset = 0;
    payload
        .chunks(per_fragment)
        .map(|part| {
            let more = offset + part.len() < payload.len();
            let mut out = packet[..40].to_vec();
            out[4..6].copy_from_slice(&((part.len() + 8) as u16).to_be_bytes());
            out[6] = 44;
            out.extend([packet[6], 0]);
            out.extend((offset as u16 | u16::from(more)).to_be_bytes());
            out.extend(id.to_be_bytes());
            out.extend(part);
            offset += part.len();
            out
        })
        .collect()
}

#[test]
fn datagrams_come_together_in_any_order() {
    let mut rng = rng(30);
    let now = Instant::now();
    let mut reassembler = Reassembler::new();
    for round in 0..200u32 {
        let len = rng.random_range(100..20_000);
        let (packet, mut fragments) = if round % 2 == 0 {
            let packet = v4_datagram(&mut rng, len);
            let fragments = fragments_of(&packet, rng.random_range(100..1500));
            (packet, fragments)
        } else {
            let packet = Sample::udp(false)
                .payload(&random_bytes(&mut rng, len))
                .build();
            let per_fragment = rng.random_range(20..180) * 8;
            let fragments = fragments_of_v6(&packet, per_fragment, round);
            (packet, fragments)
        };
        if fragments.len() > 100 {
            // Honest senders don't send that many in no order at all.
            fragments.reverse();
        } else {
            fragments.shuffle(&mut rng);
        }
        let Some((last, others)) = fragments.split_last() else {
            panic!("no fragments");
        };
        if others.is_empty() {
            continue;
        }
        for fragment in others {
            assert_eq!(reassembler.push(now, fragment), None);
        }
        let whole = reassembler.push(now, last).expect("complete");
        assert_sound(&whole);
        assert_eq!(whole, packet);
        assert_eq!(reassembler.bytes(), 0);
    }
}

#[test]
fn v4_fragments_are_sound_and_fit() {
    let mut rng = rng(31);
    let mut packet = v4_datagram(&mut rng, 4000);
    // A copied option, and one that stays on the first fragment.
    packet.splice(20..20, [0x94, 4, 0, 0, 0x07, 3, 4, 1]);
    packet[0] = 0x47;
    let len = packet.len() as u16;
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    fill_v4_header(&mut packet[..28]);

    let fragments = fragments_of(&packet, 1280);
    assert!(fragments.len() > 3);
    for (i, fragment) in fragments.iter().enumerate() {
        assert!(fragment.len() <= 1280);
        let view = IpView::parse(fragment).unwrap();
        assert_eq!(view.transport_offset(), if i == 0 { 28 } else { 24 });
        let header = &fragment[..view.transport_offset()];
        assert!(crate::packet::checksum::v4_header_ok(header));
        assert_eq!(fragment[20..24], [0x94, 4, 0, 0]);
    }
    let mut reassembler = Reassembler::new();
    let whole = fragments
        .iter()
        .find_map(|f| reassembler.push(Instant::now(), f));
    assert_eq!(whole, Some(packet));
}

#[test]
fn fragments_can_be_cut_further() {
    let packet = v4_datagram(&mut rng(32), 5000);
    let now = Instant::now();
    let mut reassembler = Reassembler::new();
    let whole = fragments_of(&packet, 1500)
        .iter()
        .flat_map(|fragment| fragments_of(fragment, 600))
        .find_map(|fragment| reassembler.push(now, &fragment));
    assert_eq!(whole, Some(packet));
}

#[test]
fn what_must_not_be_cut_is_not() {
    let mut emit = |_: &[u8]| panic!("emitted");
    let dont = Sample::udp(true).payload(&[0; 2000]).build();
    assert!(!fragment_v4(&dont, 1280, &mut emit));
    let v6 = Sample::udp(false).payload(&[0; 2000]).build();
    assert!(!fragment_v4(&v6, 1280, &mut emit));
    let packet = v4_datagram(&mut rng(33), 2000);
    assert!(!fragment_v4(&packet, 27, &mut emit));
    assert_eq!(fragments_of(&packet, u16::MAX), [packet]);
}

#[test]
fn a_whole_packet_is_complete_at_once() {
    let packet = Sample::tcp(true).payload(b"whole").build();
    let whole = Reassembler::new().push(Instant::now(), &packet);
    assert_eq!(whole, Some(packet));
}

#[test]
fn overlapping_fragments_give_up_the_datagram_for_good() {
    let packet = v4_datagram(&mut rng(34), 3000);
    let fragments = fragments_of(&packet, 1000);
    // Moved 8 bytes forward, into the second one.
    let mut overlapping = fragments[2].clone();
    let field = u16::from_be_bytes([overlapping[6], overlapping[7]]) - 1;
    overlapping[6..8].copy_from_slice(&field.to_be_bytes());

    let now = Instant::now();
    let mut reassembler = Reassembler::new();
    reassembler.push(now, &fragments[1]);
    reassembler.push(now, &overlapping);
    assert_eq!(reassembler.counters().damaged, 1);
    assert_eq!(reassembler.bytes(), 0);
    for fragment in &fragments {
        assert_eq!(reassembler.push(now, fragment), None);
    }
    assert_eq!(reassembler.counters().damaged, 1);
    // Its time over, the identification can be used again.
    let later = now + TIMEOUT;
    let whole = fragments.iter().find_map(|f| reassembler.push(later, f));
    assert_eq!(whole, Some(packet));
}

#[test]
fn a_fragment_that_came_twice_does_no_harm() {
    let packet = v4_datagram(&mut rng(35), 3000);
    let fragments = fragments_of(&packet, 1000);
    let now = Instant::now();
    let mut reassembler = Reassembler::new();
    let twice = fragments.iter().flat_map(|f| [f, f]);
    let whole = twice.into_iter().find_map(|f| reassembler.push(now, f));
    assert_eq!(whole, Some(packet));
    assert_eq!(reassembler.counters().damaged, 0);
}

#[test]
fn ends_that_contradict_each_other_give_up_the_datagram() {
    let packet = v4_datagram(&mut rng(36), 3000);
    let fragments = fragments_of(&packet, 1000);
    let mut early_end = fragments[1].clone();
    early_end[6] &= !0x20;
    for order in [[&early_end, &fragments[3]], [&fragments[3], &early_end]] {
        let mut reassembler = Reassembler::new();
        for fragment in order {
            reassembler.push(Instant::now(), fragment);
        }
        assert_eq!(reassembler.counters().damaged, 1);
    }
}

#[test]
fn fragments_of_different_datagrams_are_kept_apart() {
    let mut rng = rng(37);
    let one = v4_datagram(&mut rng, 2000);
    let mut two = one.clone();
    two[4] ^= 1;
    two[1000] ^= 1;
    let now = Instant::now();
    let mut reassembler = Reassembler::new();
    let (first, second) = (fragments_of(&one, 1000), fragments_of(&two, 1000));
    let mixed = first.iter().zip(&second).flat_map(|(a, b)| [a, b]);
    let whole: Vec<_> = mixed.filter_map(|f| reassembler.push(now, f)).collect();
    assert_eq!(whole.len(), 2);
    assert_eq!(whole[0], one);
    assert_eq!(whole[1][28..], two[28..]);
}

#[test]
fn what_does_not_come_together_in_time_is_forgotten() {
    let fragments = fragments_of(&v4_datagram(&mut rng(38), 3000), 1000);
    let start = Instant::now();
    let mut reassembler = Reassembler::new();
    assert_eq!(reassembler.poll_timeout(), None);
    reassembler.push(start, &fragments[0]);
    assert_eq!(reassembler.poll_timeout(), Some(start + TIMEOUT));
    reassembler.expire(start + TIMEOUT - Duration::from_millis(1));
    assert_eq!(reassembler.counters().timed_out, 0);
    reassembler.expire(start + TIMEOUT);
    assert_eq!(reassembler.counters().timed_out, 1);
    assert_eq!(reassembler.bytes(), 0);
    assert_eq!(reassembler.poll_timeout(), None);
}

#[test]
fn too_many_datagrams_push_out_the_oldest() {
    let mut rng = rng(39);
    let now = Instant::now();
    let mut reassembler = Reassembler::new();
    for id in 0..200u16 {
        let mut sample = Sample::udp(true).payload(&random_bytes(&mut rng, 3000));
        sample.dont_fragment = false;
        sample.id = id;
        reassembler.push(now, &fragments_of(&sample.build(), 1000)[0]);
    }
    assert_eq!(reassembler.counters().evicted, 200 - MAX_DATAGRAMS as u64);
}

#[test]
fn few_bytes_far_away_can_not_fill_the_memory() {
    let now = Instant::now();
    let mut reassembler = Reassembler::new();
    for id in 0..500u16 {
        let mut sample = Sample::udp(true).payload(&[0; 8]);
        sample.id = id;
        let mut packet = sample.build();
        // Offset 65,496.
        packet[6..8].copy_from_slice(&(0x2000u16 | 8187).to_be_bytes());
        reassembler.push(now, &packet);
        assert!(reassembler.bytes() <= MAX_BYTES);
    }
    assert!(reassembler.counters().evicted > 400);
}

#[test]
fn a_datagram_longer_than_a_packet_can_be_is_given_up() {
    let mut packet = Sample::udp(true).payload(&[0; 80]).build();
    packet[6..8].copy_from_slice(&8190u16.to_be_bytes());
    let mut reassembler = Reassembler::new();
    assert_eq!(reassembler.push(Instant::now(), &packet), None);
    assert_eq!(reassembler.counters().damaged, 1);
}

#[test]
fn garbage_never_panics() {
    let mut rng = rng(40);
    let mut now = Instant::now();
    let mut reassembler = Reassembler::new();
    for _ in 0..20_000 {
        let mut packet = mangled(&mut rng);
        if packet.len() > 44 {
            let at = if packet[0] >> 4 == 4 { 6 } else { 42 };
            packet[at] = rng.random_range(0..64);
            packet[at + 1] = rng.random_range(0..16);
        }
        now += Duration::from_millis(rng.random_range(0..100));
        if let Some(whole) = reassembler.push(now, &packet) {
            assert!(IpView::parse(&whole).is_some_and(|view| !view.is_fragment()));
        }
        fragment_v4(&packet, rng.random_range(0..200), &mut |f| {
            assert!(IpView::parse(f).is_some());
        });
        assert!(reassembler.bytes() <= MAX_BYTES);
    }
}
