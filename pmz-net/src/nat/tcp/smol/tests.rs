use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smoltcp::wire::TcpOption;

use super::super::ring::RingPool;
use super::*;
use crate::packet::MAX_PACKET;

const ISN: u32 = 0xffff_ff00;

fn addresses(v6: bool) -> (SocketAddr, SocketAddr) {
    if v6 {
        (
            "[fd00:1::2]:4000".parse().unwrap(),
            "[fd00:96::1]:80".parse().unwrap(),
        )
    } else {
        (
            "10.1.0.2:4000".parse().unwrap(),
            "10.96.0.1:80".parse().unwrap(),
        )
    }
}

fn endpoint(now: Instant, v6: bool, ring: usize, mss: Option<u16>) -> SmolEndpoint {
    let (client, service) = addresses(v6);
    let pool = RingPool::default();
    let syn = Syn {
        isn: ISN,
        mss,
        window_len: 60_000,
        window_scale: Some(7),
        sack_permitted: true,
        timestamp: None,
        ecn: false,
    };
    let setup = Setup {
        client,
        service,
        syn,
        mtu: 1280,
        receive: pool.take(ring),
        send: pool.take(ring),
        seed: 42,
        keep_alive: Duration::from_secs(3600),
    };
    SmolEndpoint::open(now, setup).unwrap()
}

struct Sent {
    seq: u32,
    ack: u32,
    flags: &'static str,
    window: u16,
}

fn packet(v6: bool, sent: &Sent, payload: &[u8]) -> Vec<u8> {
    let (client, service) = addresses(v6);
    let ip = ip_header_len(service.ip());
    let mut packet = vec![0; ip + 20 + payload.len()];
    let len = 20 + payload.len();
    emit_ip(&mut packet, client.ip(), service.ip(), IpProtocol::Tcp, len).unwrap();
    let mut tcp = TcpPacket::new_unchecked(&mut packet[ip..]);
    tcp.set_src_port(client.port());
    tcp.set_dst_port(service.port());
    tcp.set_header_len(20);
    tcp.set_seq_number(TcpSeqNumber(sent.seq.cast_signed()));
    tcp.set_ack_number(TcpSeqNumber(sent.ack.cast_signed()));
    tcp.set_window_len(sent.window);
    tcp.set_syn(sent.flags.contains('S'));
    tcp.set_ack(sent.flags.contains('A'));
    tcp.set_fin(sent.flags.contains('F'));
    tcp.set_rst(sent.flags.contains('R'));
    tcp.set_psh(sent.flags.contains('P'));
    tcp.payload_mut().copy_from_slice(payload);
    packet
}

/// An endpoint whose handshake is over, and its sequence number.
fn established(now: Instant, v6: bool, ring: usize) -> (SmolEndpoint, u32) {
    let mut endpoint = endpoint(now, v6, ring, Some(1400));
    let mut out = vec![0; MAX_PACKET];
    let segment = endpoint.poll_transmit(now, &mut out).unwrap();
    let ip = endpoint.ip_header_len;
    let syn_ack = TcpPacket::new_checked(&out[ip..segment.header_len]).unwrap();
    assert!(syn_ack.syn() && syn_ack.ack());
    let ours = syn_ack.seq_number().0.cast_unsigned().wrapping_add(1);
    let sent = Sent {
        seq: ISN.wrapping_add(1),
        ack: ours,
        flags: "A",
        window: 60_000,
    };
    let mut ack = packet(v6, &sent, &[]);
    endpoint
        .handle_segment(now, &mut ack, &mut out, &mut |_| 0)
        .unwrap();
    assert!(endpoint.is_established());
    (endpoint, ours)
}

#[test]
fn the_syn_ack_offers_the_tunnels_mss_and_not_the_devices() {
    for (v6, offered) in [(false, 1240), (true, 1220)] {
        let now = Instant::now();
        let mut endpoint = endpoint(now, v6, 1 << 16, Some(9000));
        let mut out = vec![0; MAX_PACKET];
        let segment = endpoint.poll_transmit(now, &mut out).unwrap();
        let tcp = &out[endpoint.ip_header_len..segment.header_len];
        let tcp = TcpPacket::new_checked(tcp).unwrap();
        let (_, option) = TcpOption::parse(tcp.options()).unwrap();
        assert_eq!(option, TcpOption::MaxSegmentSize(offered));
        assert_eq!(endpoint.segment_size(), usize::from(offered));
    }
}

#[test]
fn a_client_with_a_small_mss_gets_small_segments() {
    let now = Instant::now();
    assert_eq!(endpoint(now, false, 1 << 16, Some(700)).segment_size(), 700);
    assert_eq!(endpoint(now, false, 1 << 16, Some(1)).segment_size(), 48);
    assert_eq!(endpoint(now, false, 1 << 16, None).segment_size(), 536);
    assert_eq!(endpoint(now, true, 1 << 16, Some(0)).segment_size(), 1220);
}

#[test]
fn bytes_leave_in_super_packets_of_whole_segments_over_both_families() {
    for v6 in [false, true] {
        let now = Instant::now();
        let (mut endpoint, _) = established(now, v6, 1 << 18);
        let room = endpoint.room();
        assert_eq!(room.len(), 1 << 18);
        room[..200_000].fill(1);
        endpoint.commit(200_000);
        let mut out = vec![0; MAX_PACKET];
        let mut left = 200_000;
        while left > 0 {
            let segment = endpoint.poll_transmit(now, &mut out).unwrap();
            left -= segment.payload_len;
            let whole = segment.payload_len.is_multiple_of(endpoint.segment_size());
            assert!(whole || left == 0);
            assert!(segment.payload_len > 60_000 || left == 0);
        }
        assert_eq!(endpoint.poll_transmit(now, &mut out), None);
        assert_eq!(endpoint.unacknowledged(), 200_000);
    }
}

#[test]
fn bytes_behind_the_fin_are_not_received() {
    let now = Instant::now();
    let (mut endpoint, ours) = established(now, false, 1 << 16);
    let mut reply = [0; 1500];
    let mut send = |endpoint: &mut SmolEndpoint, at: u32, flags, payload: &[u8]| {
        let sent = Sent {
            seq: ISN.wrapping_add(1 + at),
            ack: ours,
            flags,
            window: 60_000,
        };
        let result = endpoint.handle_segment(
            now,
            &mut packet(false, &sent, payload),
            &mut reply,
            &mut |_| 0,
        );
        result.map(|_| ())
    };
    send(&mut endpoint, 0, "AF", b"all").unwrap();
    assert_eq!(send(&mut endpoint, 4, "A", b"more"), Err(BadSegment));
    assert_eq!(endpoint.received(), b"all");
    assert!(!endpoint.is_receive_finished());
    endpoint.consume(now, 3);
    assert!(endpoint.is_receive_finished());
}

#[test]
fn received_bytes_outlive_time_wait() {
    let now = Instant::now();
    let (mut endpoint, ours) = established(now, false, 1 << 16);
    let mut out = vec![0; MAX_PACKET];
    endpoint.close();
    assert!(endpoint.poll_transmit(now, &mut out).is_some(), "our FIN");
    let sent = Sent {
        seq: ISN.wrapping_add(1),
        ack: ours.wrapping_add(1),
        flags: "AF",
        window: 60_000,
    };
    let mut last = packet(false, &sent, b"still to be read");
    endpoint
        .handle_segment(now, &mut last, &mut [], &mut |_| 0)
        .unwrap();
    assert!(endpoint.poll_transmit(now, &mut out).is_some(), "the ACK");
    assert_eq!(endpoint.end(), None);

    let later = now + Duration::from_secs(60);
    assert_eq!(endpoint.poll_timeout(later), None);
    assert_eq!(endpoint.poll_transmit(later, &mut out), None);
    assert_eq!(endpoint.received(), b"still to be read");
    endpoint.consume(now, 16);
    let (seq, ack) = (ours.wrapping_add(1), ISN.wrapping_add(1 + 16 + 1));
    assert_eq!(endpoint.end(), Some(End::TimeWait { seq, ack }));
}

#[test]
fn a_reset_is_told_from_a_close() {
    let now = Instant::now();
    let (mut endpoint, ours) = established(now, false, 1 << 16);
    let sent = Sent {
        seq: ISN.wrapping_add(1),
        ack: ours,
        flags: "RA",
        window: 0,
    };
    let mut rst = packet(false, &sent, &[]);
    endpoint
        .handle_segment(now, &mut rst, &mut [], &mut |_| 0)
        .unwrap();
    assert_eq!(endpoint.end(), Some(End::Reset));
}

/// A number that is mostly near something that matters.
fn near(rng: &mut StdRng, anchors: &[u32]) -> u32 {
    match rng.random_range(0..8) {
        0 => rng.random(),
        1 => anchors[0].wrapping_add(1 << 31),
        _ => {
            let anchor = anchors[rng.random_range(0..anchors.len())];
            let spread = [2, 100, 5000, 200_000][rng.random_range(0..4)];
            anchor.wrapping_add_signed(rng.random_range(-spread..=spread))
        }
    }
}

#[test]
fn no_sequence_of_segments_makes_it_panic_or_break_its_bounds() {
    const RINGS: [usize; 4] = [4 << 10, 8 << 10, 64 << 10, 256 << 10];
    let start = Instant::now();
    let payload = vec![9; 70_000];
    let mut out = vec![0; MAX_PACKET];
    let mut reply = vec![0; 1500];
    for seed in 0..600 {
        let mut rng = StdRng::seed_from_u64(seed);
        let v6 = rng.random_bool(0.5);
        let ring = RINGS[rng.random_range(0..RINGS.len())];
        let mut now = start;
        let (mut endpoint, ours) = if rng.random_bool(0.2) {
            (endpoint(now, v6, ring, Some(1000)), rng.random())
        } else {
            established(now, v6, ring)
        };
        for _ in 0..300 {
            match rng.random_range(0..12) {
                0..=5 => {
                    let Challenge { seq, ack, .. } = endpoint.challenge();
                    let right = ack.wrapping_add(u32::try_from(ring).unwrap());
                    let len = match rng.random_range(0..4) {
                        0 => 0,
                        1 => rng.random_range(0..3),
                        2 => rng.random_range(0..2000),
                        _ => rng.random_range(0..64_000),
                    };
                    // Few resets, or nothing would live long.
                    const FLAGS: [&str; 10] = ["A", "A", "A", "A", "AP", "AF", "S", "SA", "F", ""];
                    let flags = match rng.random_range(0..50) {
                        0 => ["R", "RA"][rng.random_range(0..2)],
                        n => FLAGS[n % FLAGS.len()],
                    };
                    let sent = Sent {
                        seq: near(&mut rng, &[ack, right, ISN]),
                        ack: near(&mut rng, &[seq, ours]),
                        flags,
                        window: [0, 1, 700, 60_000][rng.random_range(0..4)],
                    };
                    let mut packet = packet(v6, &sent, &payload[..len]);
                    // A few with options of no sense.
                    if rng.random_bool(0.1) && len > 40 {
                        let at = endpoint.ip_header_len;
                        let mut tcp = TcpPacket::new_unchecked(&mut packet[at..]);
                        tcp.set_header_len(20 + 4 * rng.random_range(0..10));
                        let end = at + 60;
                        rng.fill(&mut packet[at + 20..end]);
                    }
                    let _ = endpoint.handle_segment(now, &mut packet, &mut reply, &mut |_| 0);
                }
                6 => {
                    let n = endpoint.received().len();
                    assert!(n <= ring);
                    endpoint.consume(now, rng.random_range(0..=n));
                }
                7 => {
                    let n = endpoint.room().len();
                    assert!(n <= ring);
                    endpoint.commit(rng.random_range(0..=n));
                }
                8 | 9 => {
                    if let Some(segment) = endpoint.poll_transmit(now, &mut out) {
                        assert!(segment.header_len + segment.payload_len <= MAX_PACKET);
                    }
                }
                10 => now += Duration::from_millis(rng.random_range(0..20_000)),
                _ if rng.random_bool(0.05) => endpoint.close(),
                _ if rng.random_bool(0.02) => endpoint.abort(),
                _ => {
                    let _ = endpoint.poll_timeout(now);
                    let _ = endpoint.is_receive_finished();
                }
            }
            assert!(endpoint.unacknowledged() <= ring);
            if endpoint.end().is_some() {
                break;
            }
        }
    }
}
