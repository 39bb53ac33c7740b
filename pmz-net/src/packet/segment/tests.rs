use rand::Rng;

use super::*;
use crate::packet::testing::{Sample, assert_sound, mangled, random_bytes, rng};

fn super_packet(gso: GsoKind, gso_size: u16) -> VnetHdr {
    VnetHdr {
        gso,
        gso_size,
        ..VnetHdr::default()
    }
}

fn tcp_kind(v4: bool) -> GsoKind {
    if v4 { GsoKind::TcpV4 } else { GsoKind::TcpV6 }
}

fn cut(frame: &[u8], mtu: u16) -> Vec<Vec<u8>> {
    let mut segmenter = Segmenter::new(frame, mtu).unwrap();
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let expected = segmenter.remaining();
    loop {
        let mut out = vec![0xaa; segmenter.max_len()];
        let left = segmenter.remaining();
        let Some(len) = segmenter.next_into(&mut out) else {
            assert_eq!(left, 0);
            break;
        };
        assert_eq!(left, expected - packets.len());
        assert_eq!(len, out.len());
        packets.push(out);
    }
    assert_eq!(packets.len(), expected);
    if let [longer @ .., last] = &packets[..] {
        assert!(longer.iter().all(|p| p.len() == packets[0].len()));
        assert!(last.len() <= packets[0].len());
    }
    packets
}

/// The payload of segments, each checked to stand where the last one ended.
fn stream(packets: &[Vec<u8>], first_seq: u32) -> Vec<u8> {
    let mut stream = Vec::new();
    for packet in packets {
        let view = IpView::parse(packet).unwrap();
        let header = tcp::Header::parse(view.transport()).unwrap();
        assert_eq!(header.seq(), first_seq.wrapping_add(stream.len() as u32));
        stream.extend(&view.transport()[header.len()..]);
    }
    stream
}

#[test]
fn tcp_segments_are_complete_and_carry_the_whole_stream() {
    let mut rng = rng(10);
    for round in 0..300 {
        let v4 = round % 2 == 0;
        let len = rng.random_range(0..60_000);
        let mut sample = Sample::tcp(v4).payload(&random_bytes(&mut rng, len));
        sample.seq = rng.random();
        sample.id = rng.random();
        sample.flags |= tcp::PSH | tcp::FIN | tcp::CWR;
        if rng.random() {
            sample.options.clear();
        }
        let gso_size = rng.random_range(300..9000);
        let mtu = rng.random_range(400..9100);
        let packets = cut(&sample.frame(super_packet(tcp_kind(v4), gso_size)), mtu);

        assert_eq!(stream(&packets, sample.seq), sample.payload);
        for (i, packet) in packets.iter().enumerate() {
            assert_sound(packet);
            assert!(packet.len() <= usize::from(mtu));
            let view = IpView::parse(packet).unwrap();
            let header = tcp::Header::parse(view.transport()).unwrap();
            let payload = view.transport().len() - header.len();
            assert!(payload <= usize::from(gso_size));
            let last = i + 1 == packets.len();
            assert_eq!(header.flags() & tcp::PSH != 0, last);
            assert_eq!(header.flags() & tcp::FIN != 0, last);
            assert_eq!(header.flags() & tcp::CWR != 0, i == 0);
            assert_eq!(header.ack(), sample.ack);
            if v4 {
                let id = u16::from_be_bytes([packet[4], packet[5]]);
                assert_eq!(id, sample.id.wrapping_add(i as u16));
            }
        }
    }
}

#[test]
fn segments_are_as_large_as_the_kernel_said() {
    let sample = Sample::tcp(true).payload(&[7; 3000]);
    let packets = cut(&sample.frame(super_packet(GsoKind::TcpV4, 1000)), 1500);
    let lengths: Vec<_> = packets.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1052, 1052, 1052]);
}

#[test]
fn datagrams_keep_their_borders() {
    let mut rng = rng(11);
    for round in 0..200 {
        let v4 = round % 2 == 0;
        let gso_size = rng.random_range(1..1400);
        let len = rng.random_range(1..=gso_size * 40);
        let sample = Sample::udp(v4).payload(&random_bytes(&mut rng, len));
        let frame = sample.frame(super_packet(GsoKind::UdpL4, gso_size as u16));
        // An MTU that is too small must not cut a datagram in two.
        let packets = cut(&frame, 600);
        let datagrams: Vec<_> = packets
            .iter()
            .map(|packet| {
                assert_sound(packet);
                IpView::parse(packet).unwrap().transport()[8..].to_vec()
            })
            .collect();
        let expected: Vec<_> = sample
            .payload
            .chunks(gso_size)
            .map(<[u8]>::to_vec)
            .collect();
        assert_eq!(datagrams, expected);
    }
}

#[test]
fn an_ordinary_packet_comes_once_with_its_checksum_finished() {
    for sample in [Sample::tcp(true), Sample::udp(true), Sample::udp(false)] {
        let sample = sample.payload(b"some payload");
        let packets = cut(&sample.frame(VnetHdr::default()), 1500);
        assert_eq!(packets, [sample.build()]);
    }
}

#[test]
fn a_packet_whose_checksum_is_there_is_not_touched() {
    let mut packet = Sample::tcp(true).payload(b"payload").build();
    packet[36] ^= 0x55;
    let mut frame = vec![0; VNET_HDR_LEN];
    frame.extend(&packet);
    assert_eq!(cut(&frame, 1500), [packet]);
}

#[test]
fn an_ordinary_tcp_packet_larger_than_the_mtu_is_cut() {
    for (v4, partial) in [(true, true), (true, false), (false, true), (false, false)] {
        let sample = Sample::tcp(v4).payload(&random_bytes(&mut rng(12), 1448));
        let frame = if partial {
            sample.frame(VnetHdr::default())
        } else {
            [vec![0; VNET_HDR_LEN], sample.build()].concat()
        };
        let packets = cut(&frame, 1280);
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[0].len(), 1280);
        assert_eq!(stream(&packets, sample.seq), sample.payload);
        packets.iter().for_each(|packet| assert_sound(packet));
    }
}

#[test]
fn a_damaged_packet_larger_than_the_mtu_is_not_made_to_look_sound() {
    let mut packet = Sample::tcp(true).payload(&[1; 1448]).build();
    packet[200] ^= 1;
    let frame = [vec![0; VNET_HDR_LEN], packet.clone()].concat();
    assert_eq!(cut(&frame, 1280), [packet]);
}

#[test]
fn what_is_too_large_and_can_not_be_cut_comes_as_it_is() {
    let mut syn = Sample::tcp(true).payload(&[1; 1448]);
    syn.flags = tcp::SYN;
    for sample in [syn, Sample::udp(true).payload(&[1; 1448])] {
        assert_eq!(
            cut(&sample.frame(VnetHdr::default()), 1280),
            [sample.build()]
        );
    }
}

#[test]
fn the_urgent_pointer_goes_with_its_segment() {
    let mut sample = Sample::tcp(true).payload(&[1; 3000]);
    sample.flags |= tcp::URG;
    let mut frame = sample.frame(super_packet(GsoKind::TcpV4, 1000));
    let at = VNET_HDR_LEN + 20 + 18;
    frame[at..at + 2].copy_from_slice(&1500u16.to_be_bytes());
    let urgent: Vec<_> = cut(&frame, 1500)
        .iter()
        .map(|packet| {
            assert_sound(packet);
            let pointer = u16::from_be_bytes([packet[38], packet[39]]);
            (packet[33] & tcp::URG != 0, pointer)
        })
        .collect();
    assert_eq!(urgent, [(true, 1500), (true, 500), (false, 0)]);
}

#[test]
fn too_short_a_buffer_loses_nothing() {
    let sample = Sample::tcp(false).payload(&[3; 2500]);
    let frame = sample.frame(super_packet(GsoKind::TcpV6, 1200));
    let mut segmenter = Segmenter::new(&frame, 1500).unwrap();
    let mut out = vec![0; 1500];
    let first = segmenter.next_into(&mut out).unwrap();
    assert_eq!(segmenter.next_into(&mut [0; 100]), None);
    assert_eq!(segmenter.next_into(&mut out), Some(first));
    assert_eq!(segmenter.remaining(), 1);
}

#[test]
fn frames_that_contradict_themselves_are_refused() {
    let tcp = Sample::tcp(true).payload(&[0; 4000]);
    let refused = [
        tcp.frame(super_packet(GsoKind::TcpV6, 1000)),
        tcp.frame(super_packet(GsoKind::UdpL4, 1000)),
        tcp.frame(super_packet(GsoKind::TcpV4, 0)),
        Sample::udp(true)
            .payload(&[0; 4000])
            .frame(super_packet(GsoKind::UdpL4, 1)),
    ];
    for frame in refused {
        assert!(Segmenter::new(&frame, 1500).is_none());
    }
    // The headers are 52 bytes.
    let frame = tcp.frame(super_packet(GsoKind::TcpV4, 1000));
    assert!(Segmenter::new(&frame, 52).is_none());
    assert!(Segmenter::new(&frame, 53).is_some());
}

#[test]
fn garbage_never_panics() {
    let mut rng = rng(13);
    let mut out = vec![0; 70_000];
    for _ in 0..20_000 {
        let mut frame = random_bytes(&mut rng, VNET_HDR_LEN);
        frame[0] &= 1;
        frame[1] = [0, 1, 4, 5, 0x81, 0x84][rng.random_range(0..6)];
        if rng.random() {
            frame[4..8].copy_from_slice(&[rng.random_range(0..40), 0, rng.random_range(0..80), 0]);
            frame[9] = 0;
        }
        frame.extend(mangled(&mut rng));
        if let Some(mut segmenter) = Segmenter::new(&frame, rng.random_range(0..400)) {
            let expected = segmenter.remaining();
            let mut got = 0;
            while segmenter.next_into(&mut out).is_some() {
                got += 1;
            }
            assert_eq!(got, expected);
        }
    }
}
