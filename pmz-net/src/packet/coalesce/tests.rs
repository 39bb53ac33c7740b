use rand::Rng;
use rand::rngs::StdRng;

use super::*;
use crate::packet::ip::UDP;
use crate::packet::testing::{Sample, assert_sound, mangled, naive_pseudo_sum, random_bytes, rng};
use crate::packet::{GsoKind, Segmenter, tcp};

/// What a coalescer makes of a batch.
fn joined(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut out = |frame: &mut [u8]| frames.push(frame.to_vec());
    for packet in packets {
        coalescer.push(packet, &mut out);
    }
    coalescer.flush(&mut out);
    assert!(coalescer.is_empty());
    frames
}

fn join(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    joined(&mut Coalescer::new(true, true), packets)
}

/// Cuts frames again, as the kernel would.
fn cut(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for frame in frames {
        let mut segmenter = Segmenter::new(frame, u16::MAX).expect("a sound frame");
        let mut out = vec![0; segmenter.max_len()];
        while let Some(len) = segmenter.next_into(&mut out) {
            packets.push(out[..len].to_vec());
        }
    }
    packets
}

/// Segments of one stream, `size` bytes each.
fn segments(sample: &Sample, data: &[u8], size: usize) -> Vec<Vec<u8>> {
    let mut sample = sample.clone();
    data.chunks(size)
        .map(|chunk| {
            let packet = sample.clone().payload(chunk).build();
            sample.seq = sample.seq.wrapping_add(chunk.len() as u32);
            sample.id = sample.id.wrapping_add(1);
            packet
        })
        .collect()
}

#[track_caller]
fn assert_not_joined(packets: &[Vec<u8>]) {
    let frames = join(packets);
    let passed: Vec<_> = frames
        .iter()
        .map(|frame| {
            assert!(!VnetHdr::parse(frame).unwrap().needs_csum);
            frame[VNET_HDR_LEN..].to_vec()
        })
        .collect();
    assert_eq!(passed, packets);
}

#[test]
fn what_is_joined_and_cut_again_is_the_same_to_the_byte() {
    let mut rng = rng(20);
    for round in 0..200 {
        let v4 = round % 2 == 0;
        let mut sample = if round % 4 < 2 {
            Sample::tcp(v4)
        } else {
            Sample::udp(v4)
        };
        sample.seq = rng.random();
        sample.id = rng.random();
        sample.tos = rng.random();
        let size = rng.random_range(30..1400);
        let len = rng.random_range(1..60_000);
        let packets = segments(&sample, &random_bytes(&mut rng, len), size);
        let frames = join(&packets);
        assert_eq!(cut(&frames), packets);

        let per_frame = if sample.protocol == UDP {
            64
        } else {
            usize::MAX
        };
        let expected = packets.len().div_ceil(per_frame);
        // A single one is as before, and a short one behind a full super-packet stands alone.
        assert!(frames.len() <= expected + 1, "{} frames", frames.len());
    }
}

#[test]
fn a_super_packet_has_what_a_tun_wants() {
    for (v4, protocol) in [(true, 6), (false, 6), (true, 17), (false, 17)] {
        let sample = if protocol == 6 {
            Sample::tcp(v4)
        } else {
            Sample::udp(v4)
        };
        let frames = join(&segments(&sample, &[5; 3500], 1000));
        assert_eq!(frames.len(), 1);
        let ip = if v4 { 20 } else { 40 };
        let expected = VnetHdr {
            needs_csum: true,
            gso: match (protocol, v4) {
                (17, _) => GsoKind::UdpL4,
                (_, true) => GsoKind::TcpV4,
                (_, false) => GsoKind::TcpV6,
            },
            ecn: false,
            hdr_len: ip + if protocol == 17 { 8 } else { 32 },
            gso_size: 1000,
            csum_start: ip,
            csum_offset: if protocol == 17 { 6 } else { 16 },
        };
        assert_eq!(VnetHdr::parse(&frames[0]), Some(expected));
        let packet = &frames[0][VNET_HDR_LEN..];
        let at = usize::from(expected.csum_start + expected.csum_offset);
        let partial = u16::from_be_bytes([packet[at], packet[at + 1]]);
        assert_eq!(partial, naive_pseudo_sum(packet));

        let mut complete = frames[0].clone();
        assert!(crate::packet::checksum::complete(&mut complete));
        assert_sound(&complete[VNET_HDR_LEN..]);
    }
}

#[test]
fn a_single_packet_is_passed_on_untouched() {
    for sample in [Sample::tcp(true), Sample::udp(false)] {
        assert_not_joined(&[sample.payload(b"alone").build()]);
    }
}

#[test]
fn a_gap_in_the_sequence_is_not_closed() {
    let mut packets = segments(&Sample::tcp(true), &[1; 3000], 1000);
    packets.remove(1);
    assert_not_joined(&packets);
}

#[test]
fn segments_in_the_wrong_order_stay_so() {
    let mut packets = segments(&Sample::tcp(true), &[1; 2000], 1000);
    packets.swap(0, 1);
    assert_not_joined(&packets);
}

#[test]
fn segments_that_differ_in_a_header_are_not_joined() {
    type Change = (&'static str, fn(&mut Sample));
    let changes: [Change; 10] = [
        ("ack", |s| s.ack += 1),
        ("timestamp", |s| s.options[7] += 1),
        ("no options", |s| s.options.clear()),
        ("ttl", |s| s.ttl -= 1),
        ("tos", |s| s.tos = 4),
        ("ce", |s| s.tos = 3),
        ("cwr", |s| s.flags |= tcp::CWR),
        ("ece", |s| s.flags |= 0x40),
        ("rst", |s| s.flags |= tcp::RST),
        ("port", |s| s.ports.0 += 1),
    ];
    for v4 in [true, false] {
        for (what, change) in changes {
            let first = Sample::tcp(v4).payload(&[1; 100]);
            let mut second = first.clone();
            second.seq += 100;
            second.id += 1;
            assert_eq!(join(&[first.build(), second.build()]).len(), 1);
            change(&mut second);
            let frames = join(&[first.build(), second.build()]);
            assert_eq!(frames.len(), 2, "{what}");
        }
    }
}

#[test]
fn identifications_count_up_or_stay_where_fragments_are_forbidden() {
    let with_ids = |ids: [u16; 3], dont_fragment: bool| {
        let mut sample = Sample::tcp(true).payload(&[1; 100]);
        sample.dont_fragment = dont_fragment;
        let packets = ids.map(|id| {
            sample.id = id;
            let packet = sample.build();
            sample.seq += 100;
            packet
        });
        join(&packets).len()
    };
    assert_eq!(with_ids([9, 10, 11], false), 1);
    assert_eq!(with_ids([65_535, 0, 1], true), 1);
    assert_eq!(with_ids([0, 0, 0], true), 1);
    assert_eq!(with_ids([0, 0, 0], false), 3);
    assert_eq!(with_ids([9, 10, 12], true), 2);
    assert_eq!(with_ids([9, 9, 10], true), 2);
    assert_eq!(with_ids([9, 10, 10], true), 2);
}

#[test]
fn push_ends_a_super_packet_and_stays_on_it() {
    let mut packets = segments(&Sample::tcp(true), &[1; 4000], 1000);
    let mut sample = Sample::tcp(true).payload(&[1; 1000]);
    sample.seq += 1000;
    sample.id += 1;
    sample.flags |= tcp::PSH;
    packets[1] = sample.build();
    let frames = join(&packets);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0].len(), VNET_HDR_LEN + 52 + 2000);
    assert_ne!(frames[0][VNET_HDR_LEN + 33] & tcp::PSH, 0);
    assert_eq!(cut(&frames), packets);
}

#[test]
fn a_pure_acknowledgement_comes_behind_the_data_that_was_before_it() {
    let mut packets = segments(&Sample::tcp(true), &[1; 2000], 1000);
    let mut ack = Sample::tcp(true);
    ack.seq += 2000;
    ack.id = 0;
    packets.push(ack.build());
    let frames = join(&packets);
    assert_eq!(frames.len(), 2);
    assert_eq!(cut(&frames), packets);
}

#[test]
fn a_fragment_comes_behind_the_open_super_packets_of_its_hosts() {
    let mut packets = segments(&Sample::udp(true), &[1; 2000], 1000);
    let mut fragment = Sample::udp(true).payload(&[1; 64]).build();
    fragment[6] = 0x20;
    packets.push(fragment.clone());
    let frames = join(&packets);
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[1][VNET_HDR_LEN..], fragment);
}

#[test]
fn datagrams_are_joined_only_where_that_was_asked_for() {
    let packets = segments(&Sample::udp(true), &[1; 3000], 1000);
    assert_eq!(join(&packets).len(), 1);
    assert_eq!(joined(&mut Coalescer::new(false, true), &packets).len(), 3);
}

#[test]
fn datagrams_without_a_checksum_are_not_joined() {
    let mut packets = segments(&Sample::udp(true), &[1; 3000], 1000);
    packets.iter_mut().for_each(|packet| packet[26..28].fill(0));
    assert_not_joined(&packets);
}

#[test]
fn a_longer_datagram_begins_a_super_packet_of_its_own() {
    let sample = Sample::udp(true);
    let mut packets = segments(&sample, &[1; 200], 100);
    packets.extend(segments(&sample, &[2; 900], 300));
    let frames = join(&packets);
    assert_eq!(frames.len(), 2);
    assert_eq!(cut(&frames).len(), packets.len());
}

#[test]
fn a_damaged_segment_is_passed_on_as_it_is_where_nobody_is_trusted() {
    let mut packets = segments(&Sample::tcp(true), &[1; 5000], 1000);
    packets[2][500] ^= 1;
    let damaged = packets[2].clone();
    let frames = joined(&mut Coalescer::new(true, false), &packets);
    assert_eq!(frames.len(), 3);
    assert_eq!(frames[1][VNET_HDR_LEN..], damaged);
    // The others came through.
    assert_eq!(cut(&frames), packets);
}

#[test]
fn a_damaged_ip_header_is_never_repaired() {
    let mut packets = segments(&Sample::tcp(true), &[1; 2000], 1000);
    packets[1][10] ^= 1;
    assert_not_joined(&packets);
}

#[test]
fn a_super_packet_never_outgrows_its_buffer() {
    for sample in [Sample::tcp(true), Sample::tcp(false), Sample::udp(true)] {
        let data = random_bytes(&mut rng(21), 300_000);
        let packets = segments(&sample, &data, 1400);
        let frames = join(&packets);
        assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME));
        assert_eq!(cut(&frames), packets);
    }
}

#[test]
fn each_of_many_flows_keeps_its_order() {
    let mut rng = rng(22);
    // More flows than slots.
    let flows: Vec<Vec<Vec<u8>>> = (0..40)
        .map(|flow| {
            let mut sample = Sample::tcp(flow % 2 == 0);
            sample.ports.0 += flow;
            segments(&sample, &random_bytes(&mut rng, 20_000), 1000)
        })
        .collect();
    let mixed = interleave(&mut rng, &flows);
    let frames = join(&mixed);
    assert!(frames.len() < mixed.len());
    let out = cut(&frames);
    for flow in &flows {
        let ports = |packet: &[u8]| IpView::parse(packet).unwrap().ports();
        let of_flow: Vec<_> = out
            .iter()
            .filter(|packet| ports(packet) == ports(&flow[0]))
            .cloned()
            .collect();
        assert_eq!(&of_flow, flow);
    }
}

fn interleave(rng: &mut StdRng, flows: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
    let mut rest: Vec<_> = flows.iter().map(|flow| flow.iter()).collect();
    let mut mixed = Vec::new();
    while !rest.is_empty() {
        let at = rng.random_range(0..rest.len().min(20));
        let burst = rng.random_range(1..4);
        let taken: Vec<_> = rest[at].by_ref().take(burst).cloned().collect();
        if taken.is_empty() {
            drop(rest.remove(at));
        }
        mixed.extend(taken);
    }
    mixed
}

#[test]
fn in_place_gives_the_same_as_with_a_copy() {
    let mut rng = rng(23);
    let mut packets = Vec::new();
    for flow in 0..6 {
        let mut sample = if flow % 2 == 0 {
            Sample::tcp(true)
        } else {
            Sample::udp(false)
        };
        sample.ports.0 += flow;
        packets.extend(segments(&sample, &[flow as u8; 3000], 700));
        packets.push(sample.build());
        packets.push(mangled(&mut rng));
    }
    let mut frames = Vec::new();
    let mut out = |frame: &mut [u8]| frames.push(frame.to_vec());
    let mut coalescer = Coalescer::new(true, true);
    for packet in &packets {
        // Room in front, WireGuard's padding behind.
        let mut buffer = [&[0xee; VNET_HDR_LEN], &packet[..], &[0; 7]].concat();
        coalescer.push_in_place(&mut buffer, &mut out);
    }
    coalescer.flush(&mut out);
    assert_eq!(frames, join(&packets));
}

#[test]
fn garbage_never_panics_and_sound_frames_come_out() {
    let mut rng = rng(24);
    let mut coalescer = Coalescer::new(true, true);
    let mut out = |frame: &mut [u8]| {
        assert!(Segmenter::new(frame, u16::MAX).is_some());
    };
    for round in 0..20_000 {
        coalescer.push(&mangled(&mut rng), &mut out);
        if round % 50 == 0 {
            coalescer.flush(&mut out);
        }
    }
    // IPv6 can be longer than any buffer.
    let mut long = Sample::tcp(false).payload(&[0; 65_600 - 72 - 40]).build();
    long.resize(40 + 65_535, 0);
    long[4..6].fill(0xff);
    coalescer.push(&long, &mut out);
    coalescer.push_in_place(&mut [&[0; VNET_HDR_LEN], &long[..]].concat(), &mut |_| {});
}
