//! Limits, back-pressure, peers that go, and hostile input.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use pmz_net::nat::TcpStack;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use smoltcp::socket::tcp::State;
use smoltcp::wire::IpProtocol;

use crate::client::{Client, PEER};
use crate::datagrams::{ip, udp};
use crate::services::{echo, listener, one, verify};

#[test]
fn five_hundred_connections_at_once_each_get_their_own_bytes() {
    const FLOWS: usize = 500;
    const EACH: usize = 20_000;
    let mut client = Client::new();
    let service = echo(false);
    let handles: Vec<_> = (0..FLOWS).map(|_| client.connect(service, 8192)).collect();
    let mut sent = [0; FLOWS];
    let mut got = [0; FLOWS];
    let mut scratch = vec![0; 8192];
    client.until("all echoes", |c| {
        for (i, handle) in handles.iter().enumerate() {
            let socket = c.tcp(*handle);
            let left = (EACH - sent[i]).min(scratch.len());
            if socket.can_send() && left > 0 {
                crate::services::fill(i as u64, sent[i] as u64, &mut scratch[..left]);
                sent[i] += socket.send_slice(&scratch[..left]).unwrap();
            }
            while socket.can_recv() {
                let n = socket.recv_slice(&mut scratch).unwrap();
                verify(i as u64, got[i] as u64, &scratch[..n]);
                got[i] += n;
            }
        }
        got.iter().all(|n| *n == EACH)
    });
    let counters = client.counters();
    assert_eq!(counters.tcp_flows, FLOWS as u64);
    assert!(counters.buffer_bytes <= 128 << 20);
}

#[test]
fn a_service_that_never_reads_stops_the_client_and_hurts_nobody_else() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 1 << 20);
    let stream = accepted.recv().unwrap();
    let mut sent = 0u64;
    let mut quiet = 0;
    client.until("the client can send no more", |c| {
        let socket = c.tcp(handle);
        let n = socket.send(|room| (room.len(), room.len())).unwrap();
        sent += n as u64;
        quiet = if n == 0 { quiet + 1 } else { 0 };
        quiet > 100
    });
    // The client's ring, the NAT's, and what the kernel takes for both ends of a loopback socket.
    assert!(sent < 32 << 20, "{sent} bytes went somewhere");
    assert!(client.counters().buffer_bytes <= 9 << 20);

    let other = client.connected(echo(false), 4096);
    client.tcp(other).send_slice(b"alive?").unwrap();
    client.until("the other's echo", |c| c.tcp(other).recv_queue() == 6);
    drop(stream);
    client.until("the reset", |c| c.state(handle) == State::Closed);
}

#[test]
fn a_client_that_never_reads_stops_the_service() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 16 << 10);
    let mut stream = accepted.recv().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut quiet = 0;
    client.until("the service can send no more", |_| {
        let n = stream.write(&[1; 64 << 10]).unwrap_or(0);
        sent += n;
        quiet = if n == 0 { quiet + 1 } else { 0 };
        quiet > 100
    });
    assert!(sent < 32 << 20, "{sent} bytes went somewhere");
    assert_eq!(client.tcp(handle).recv_queue(), 16 << 10);
}

/// A service writes to a client that never reads, until it can no more.
fn fill(client: &mut Client) {
    let (service, accepted) = one(false);
    client.connected(service, 16 << 10);
    let mut stream = accepted.recv().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut quiet = 0;
    client.until("the service can send no more", |_| {
        let n = stream.write(&[1; 64 << 10]).unwrap_or(0);
        quiet = if n == 0 { quiet + 1 } else { 0 };
        quiet > 100
    });
}

#[test]
fn a_flows_bound_and_a_peers_are_counted_apart() {
    let mut client = Client::with(|config| config.max_flow_bytes = 64 << 10);
    fill(&mut client);
    let counters = client.counters();
    assert!(counters.tcp_buffer_limit_hits > 0, "{counters:?}");
    assert!(counters.buffer_bytes <= 128 << 10, "{counters:?}");

    let mut client = Client::with(|config| config.peer_buffer_bytes = 128 << 10);
    fill(&mut client);
    let counters = client.counters();
    assert!(counters.peer_buffer_refusals > 0, "{counters:?}");
    assert_eq!(counters.buffer_refusals, 0);
    assert!(counters.buffer_bytes <= 128 << 10, "{counters:?}");

    let mut client = Client::with(|config| config.buffer_bytes = 128 << 10);
    fill(&mut client);
    let counters = client.counters();
    assert!(counters.buffer_refusals > 0, "{counters:?}");
    assert_eq!(counters.peer_buffer_refusals, 0);
}

#[test]
fn no_more_is_in_flight_with_smoltcp_than_the_egress_allows() {
    let mut client = Client::with(|config| config.tcp = TcpStack::Smoltcp);
    client.link.in_flight.store(10_000, Ordering::SeqCst);
    let (service, accepted) = one(false);
    let handle = client.connected(service, 1 << 20);
    let mut stream = accepted.recv().unwrap();
    let before = client.counters().bytes_out;
    stream.write_all(&[1; 100_000]).unwrap();
    // Nothing is acknowledged while the client stands still.
    std::thread::sleep(Duration::from_millis(100));
    let sent = client.counters().bytes_out - before;
    assert!((10_000..11_000).contains(&sent), "{sent} bytes in flight");
    client.until("the rest", |c| c.tcp(handle).recv_queue() == 100_000);
}

#[test]
fn a_carrier_without_room_stops_the_download_until_it_has_some() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 1 << 20);
    let mut stream = accepted.recv().unwrap();
    client.link.closed.store(true, Ordering::SeqCst);
    stream.write_all(&[1; 100_000]).unwrap();
    assert!(client.is_quiet());
    client.link.closed.store(false, Ordering::SeqCst);
    client.waker.room(PEER);
    client.until("the download", |c| c.tcp(handle).recv_queue() == 100_000);
}

#[test]
fn connections_beyond_the_limit_are_reset_and_counted() {
    let mut client = Client::with(|config| config.max_flows_per_peer = 3);
    let service = echo(false);
    let handles: Vec<_> = (0..5).map(|_| client.connect(service, 4096)).collect();
    client.until("all are decided", |c| {
        let open = |s| s != State::SynSent;
        handles.iter().all(|h| open(c.state(*h)))
    });
    let states: Vec<_> = handles.iter().map(|h| client.state(*h)).collect();
    let standing = states.iter().filter(|s| **s == State::Established).count();
    assert_eq!(standing, 3, "{states:?}");
    assert_eq!(client.counters().flow_limit_hits, 2);
}

#[test]
fn connections_beyond_the_peers_rings_are_reset_and_counted() {
    let mut client = Client::with(|config| {
        config.tcp = TcpStack::Smoltcp;
        config.peer_buffer_bytes = 16 << 10;
        config.max_flows_per_peer = 100;
    });
    let service = echo(false);
    let handles: Vec<_> = (0..3).map(|_| client.connect(service, 4096)).collect();
    client.until("all are decided", |c| {
        handles.iter().all(|h| c.state(*h) != State::SynSent)
    });
    let counters = client.counters();
    assert_eq!((counters.buffer_limit_hits, counters.tcp_flows), (1, 2));
    assert_eq!(counters.buffer_bytes, 16 << 10);
}

#[test]
fn a_peer_that_is_gone_leaves_nothing_behind() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 4096);
    let mut stream = accepted.recv().unwrap();
    let udp_service = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send(&udp(4000, udp_service.local_addr().unwrap(), b"x"));
    udp_service.recv(&mut [0; 4]).unwrap();
    assert_eq!(client.counters().flows, 2);

    client.inbox.peer_gone(PEER);
    let error = stream.read(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    client.until("nothing is left", |c| c.counters().flows == 0);
    assert_eq!(client.counters().buffer_bytes, 0);
    client.tcp(handle).abort();
}

#[test]
fn a_connection_with_a_silent_client_is_given_up() {
    let mut client = Client::with(|config| config.tcp_unacked = Duration::from_millis(200));
    let (service, accepted) = one(false);
    client.connected(service, 4096);
    let mut stream = accepted.recv().unwrap();
    stream.write_all(b"nobody takes this").unwrap();
    // The client stands still, as one that has lost its network does.
    let error = stream.read(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_dial_without_an_answer_is_unreachable_after_its_time() {
    // A listener whose queue is full drops SYNs.
    let (listener, address) = listener(false);
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _fill: Vec<_> = (0..2)
        .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)))
        .collect();
    let mut client = Client::with(|config| config.dial_timeout = Duration::from_millis(100));
    client.connect(address, 4096);
    client.until("it is given up", |c| c.counters().dials_unreachable == 1);
    assert_eq!(client.counters().flows, 0);
}

#[test]
fn a_segment_of_no_connection_is_reset() {
    let mut client = Client::new();
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&4000u16.to_be_bytes());
    segment[2..4].copy_from_slice(&80u16.to_be_bytes());
    segment[8..12].copy_from_slice(&77u32.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = 0x10;
    client.send(&ip("127.0.0.1".parse().unwrap(), IpProtocol::Tcp, &segment));
    let answer = client.receive();
    assert_eq!(answer[33] & 0x04, 0x04, "RST");
    assert_eq!(
        answer[24..28],
        77u32.to_be_bytes(),
        "at the acknowledged place"
    );
    assert_eq!(client.counters().stray_segments, 1);
}

#[test]
fn garbage_of_all_kinds_disturbs_nothing() {
    let mut client = Client::with(|config| {
        // Whatever address garbage names, nothing but loopback is dialled.
        config.deny = vec!["0.0.0.0/1".parse().unwrap(), "128.0.0.0/1".parse().unwrap()];
        config.deny.push("::/1".parse().unwrap());
        config.deny.push("8000::/1".parse().unwrap());
    });
    let mut rng = StdRng::seed_from_u64(11);
    let to = ["127.0.0.1", "::1"].map(|a| a.parse().unwrap());
    for _ in 0..30_000 {
        let mut bytes = vec![0; rng.random_range(0..200)];
        rng.fill(&mut bytes[..]);
        let packet = match rng.random_range(0..4) {
            0 => bytes,
            n => {
                let to: std::net::IpAddr = to[usize::from(rng.random_bool(0.5))];
                let protocols = [
                    IpProtocol::Tcp,
                    IpProtocol::Udp,
                    IpProtocol::Icmp,
                    IpProtocol::Icmpv6,
                ];
                let protocol = protocols[rng.random_range(0..protocols.len())];
                let mut packet = ip(to, protocol, &bytes);
                // Some with a header that is a little wrong.
                if n == 1 {
                    let at = rng.random_range(0..packet.len());
                    packet[at] = rng.random();
                }
                packet
            }
        };
        let mut frame = client.inbox.frames().take(packet.len() + 10);
        let mut header = [0; 10];
        if rng.random_bool(0.3) {
            rng.fill(&mut header[..]);
        }
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&packet);
        let _ = client.inbox.try_push(PEER, frame);
    }
    client.inbox.settle();
    let before = client.counters();
    assert!(before.malformed > 0 && before.denied > 0);
    client.until("the NAT answers", |c| {
        c.send(&ip(
            "10.1.0.1".parse().unwrap(),
            IpProtocol::Icmp,
            &[8, 0, 0, 0, 0, 1, 0, 1],
        ));
        c.receive()[12..16] == [10, 1, 0, 1]
    });
    assert!(!client.nat.is_finished());
}

#[test]
fn a_nat_that_stops_resets_its_connections_and_takes_no_more() {
    let mut client = Client::new();
    let (service, accepted) = one(false);
    let handle = client.connected(service, 4096);
    let mut stream = accepted.recv().unwrap();
    let other = Client::new();
    std::mem::replace(&mut client.nat, other.nat).stop();
    assert!(client.inbox.try_push(PEER, vec![0; 30].into()).is_err());
    let error = stream.read(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let reset = client.receive();
    assert_eq!(reset[33] & 0x04, 0x04, "RST");
    let _ = handle;
}
