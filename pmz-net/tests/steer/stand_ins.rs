//! Stand-ins, by sockets that know nothing of it, with a whole network stack as the other end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::common::skip::need_root;
use crate::scene::{MACHINE, Side, Wire};
use crate::sockets::{
    FAMILIES, SOON, TEN_MEGABYTES, at, cluster, error_after_sending, pattern, put, remapped, within,
};
use crate::trial::ip;

#[test]
fn a_connection_by_a_stand_in_moves_megabytes_both_ways_in_super_packets() {
    need_root!();
    for (used, real) in FAMILIES {
        let (machine, cluster) = (Side::machine(), cluster());
        let steering = remapped(&machine);
        let wire = Wire::between(&machine, &cluster, true, Some(real));
        let listener = cluster.run(|| TcpListener::bind(at(real, 80))).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            stream.write_all(&received).unwrap();
            (peer, stream.local_addr().unwrap(), received.len())
        });
        let mut stream = machine
            .run(|| TcpStream::connect_timeout(&at(used, 80), Duration::from_secs(5)))
            .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), at(used, 80));
        let data = pattern();
        stream.write_all(&data).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == data, "other bytes came back");
        let local = stream.local_addr().unwrap();
        drop(stream);
        let (peer, seen, length) = server.join().unwrap();
        assert_eq!((peer, seen, length), (local, at(real, 80), TEN_MEGABYTES));

        let counted = || {
            let traffic = steering.traffic().unwrap();
            let [of_used] = traffic.as_slice() else {
                panic!("{traffic:?}")
            };
            assert_eq!((of_used.address, of_used.flows), (ip(used), 1));
            (
                (of_used.sent.packets, of_used.sent.bytes),
                (of_used.received.packets, of_used.received.bytes),
            )
        };
        let passed = || (wire.out.volume(), wire.back.volume());
        // What had no room in the device's queue is counted, and was sent again.
        let agree = || {
            let (counted, passed) = (counted(), passed());
            let sent = counted.0 == passed.0 || counted.0 > passed.0 && !machine.lost_nothing();
            sent && counted.1 == passed.1
        };
        assert!(
            within(SOON, agree),
            "{:?} counted, {:?} passed",
            counted(),
            passed()
        );
        for way in [&wire.out, &wire.back] {
            assert_eq!(way.wrong.load(Ordering::Relaxed), 0, "wrong checksums");
            assert!(
                way.super_packets.load(Ordering::Relaxed) > 10,
                "hardly a super-packet"
            );
        }
    }
}

#[test]
fn datagrams_by_a_stand_in_arrive_and_are_answered_fragments_too() {
    need_root!();
    let (machine, cluster) = (Side::machine(), cluster());
    let steering = remapped(&machine);
    let wire = Wire::between(&machine, &cluster, true, None);
    for (used, real) in FAMILIES {
        let server = cluster.run(|| UdpSocket::bind(at(real, 53))).unwrap();
        let any = if ip(used).is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = machine.run(|| {
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(at(used, 53)).unwrap();
            socket
        });
        for side in [&server, &socket] {
            side.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        }
        // The last ones are longer than the device's MTU.
        for length in [0, 1, 1000, 5000, 20_001] {
            let data = &pattern()[..length];
            socket.send(data).unwrap();
            let mut buffer = vec![0; 30_000];
            let (received, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..received], data);
            server.send_to(data, from).unwrap();
            let received = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..received], data);
        }
    }
    assert_eq!(
        wire.out.wrong.load(Ordering::Relaxed) + wire.back.wrong.load(Ordering::Relaxed),
        0
    );
    let drops = steering.report().unwrap().drops;
    assert_eq!(drops.failed + drops.malformed, 0);
}

#[test]
fn a_closed_port_behind_a_stand_in_refuses_datagrams_both_ways() {
    need_root!();
    let (machine, cluster) = (Side::machine(), cluster());
    let _steering = remapped(&machine);
    let _wire = Wire::between(&machine, &cluster, true, None);
    for ((used, real), own) in FAMILIES.into_iter().zip(MACHINE) {
        let begun = Instant::now();
        let error = error_after_sending(&machine, used, b"anybody there?");
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "{used}: {error}"
        );
        // And from the cluster to the machine: the error quotes the stand-in where the cluster sent its own.
        let error = cluster.run(|| {
            let socket = UdpSocket::bind(at(real, 0)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket.connect(at(own, 9)).unwrap();
            socket.send(b"anybody there?").unwrap();
            socket.recv(&mut [0; 16]).unwrap_err()
        });
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "{real}: {error}"
        );
        assert!(begun.elapsed() < 2 * SOON);
    }
}

#[test]
fn a_connection_is_reset_when_its_service_loses_its_last_endpoint() {
    need_root!();
    for (used, real) in FAMILIES {
        let (machine, cluster) = (Side::machine(), cluster());
        let mut steering = remapped(&machine);
        let _wire = Wire::between(&machine, &cluster, false, None);
        let listener = cluster.run(|| TcpListener::bind(at(real, 80))).unwrap();
        let mut stream = machine
            .run(|| TcpStream::connect_timeout(&at(used, 80), Duration::from_secs(5)))
            .unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        put(&mut steering, used, Some(real), true);
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let error = stream
            .write_all(&pattern()[..100_000])
            .and_then(|()| stream.read(&mut [0; 1]))
            .unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionReset,
            "{used}: {error}"
        );
    }
}
