//! Programs at a TUN, and sockets that know nothing of it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use pmz_net::steer::{Attachment, PrefixKind, Steering, Target, TargetChange};

use crate::scene::{DEVICE, MACHINE, Side, Wire};
use crate::skip::need_root;
use crate::trial::{ip, steered};

/// Long enough for anything that happens at once on a busy machine, and shorter than any retransmission's end.
const SOON: Duration = Duration::from_millis(900);

fn attached(side: &Side) -> Steering {
    set_up(side.run(|| Steering::attach(DEVICE)).unwrap())
}

fn set_up(mut steering: Steering) -> Steering {
    steering
        .set_prefixes(&steered(&[
            ("10.96.0.0/12", PrefixKind::Services),
            ("fd00:96::/64", PrefixKind::Services),
            ("240.0.0.0/16", PrefixKind::Services),
            ("fd00:5::/64", PrefixKind::Services),
            ("10.244.0.0/16", PrefixKind::Other),
            ("fd00:244::/64", PrefixKind::Other),
        ]))
        .unwrap();
    steering.set_complete(true).unwrap();
    steering
}

fn put(steering: &mut Steering, address: &str, real: Option<&str>, reject: bool) {
    let target = Target {
        address: ip(address),
        real: real.map(ip),
        reject,
        service: true,
    };
    steering.apply(&[TargetChange::Put(target)]).unwrap();
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// The error of a datagram socket that has sent to the address.
fn error_after_sending(side: &Side, to: &str, data: &[u8]) -> io::Error {
    side.run(|| {
        let any = if ip(to).is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket.connect(at(to, 53)).unwrap();
        socket.send(data).unwrap();
        socket.recv(&mut [0; 16]).unwrap_err()
    })
}

#[test]
fn connections_to_an_address_that_no_service_has_are_refused_at_once() {
    need_root!();
    let machine = Side::machine();
    let mut steering = attached(&machine);
    put(&mut steering, "10.96.0.10", None, true);
    put(&mut steering, "fd00:96::10", None, true);
    for address in ["10.96.7.7", "fd00:96::77", "10.96.0.10", "fd00:96::10"] {
        let begun = Instant::now();
        let error = machine
            .run(|| TcpStream::connect_timeout(&at(address, 80), Duration::from_secs(5)))
            .unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "{address}: {error}"
        );
        assert!(begun.elapsed() < SOON, "{address}: {:?}", begun.elapsed());
    }
    assert_eq!(
        machine.next(Duration::from_millis(50)),
        None,
        "something went into the tunnel"
    );
    let report = steering.report().unwrap();
    assert_eq!(
        (report.refusals.unknown, report.refusals.no_endpoints),
        (2, 2)
    );
    // An answer is no packet from the tunnel.
    assert_eq!(steering.traffic().unwrap(), []);
    assert!(
        report
            .prefixes
            .iter()
            .all(|prefix| prefix.received.packets == 0)
    );
    assert_eq!(
        report.drops.malformed + report.drops.failed + report.drops.not_ip,
        0
    );
}

#[test]
fn filters_of_an_older_kernel_do_the_same_as_links() {
    need_root!();
    let (machine, cluster) = (Side::machine(), cluster());
    let steering = machine.run(|| Steering::attach_as(DEVICE, Attachment::Clsact));
    let mut steering = set_up(steering.unwrap());
    put(&mut steering, "240.0.0.7", Some("10.96.0.10"), false);
    let _wire = Wire::between(&machine, &cluster, false, None);
    let connect = |address| {
        machine.run(|| TcpStream::connect_timeout(&at(address, 80), Duration::from_secs(5)))
    };
    let error = connect("10.96.7.7").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    let _listener = cluster
        .run(|| TcpListener::bind(at("10.96.0.10", 80)))
        .unwrap();
    connect("240.0.0.7").unwrap();
    machine.run(move || drop(steering));
}

#[test]
fn datagrams_to_an_address_that_no_service_has_are_refused_at_once() {
    need_root!();
    let machine = Side::machine();
    let _steering = attached(&machine);
    for address in ["10.96.7.7", "fd00:96::77"] {
        for data in [&b"a query"[..], &[7; 1300]] {
            let begun = Instant::now();
            let error = error_after_sending(&machine, address, data);
            assert_eq!(
                error.kind(),
                io::ErrorKind::ConnectionRefused,
                "{address}: {error}"
            );
            assert!(begun.elapsed() < SOON, "{address}: {:?}", begun.elapsed());
        }
    }
    assert_eq!(
        machine.next(Duration::from_millis(50)),
        None,
        "something went into the tunnel"
    );
}

#[test]
fn a_super_packet_of_datagrams_is_refused_like_one_datagram() {
    need_root!();
    let machine = Side::machine();
    let steering = attached(&machine);
    for address in ["10.96.7.7", "fd00:96::77"] {
        let error = machine.run(|| {
            let any = if ip(address).is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).unwrap();
            setsockopt(&socket, sockopt::UdpGsoSegment, &1000).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket.connect(at(address, 53)).unwrap();
            socket.send(&[3; 20_000]).unwrap();
            socket.recv(&mut [0; 16]).unwrap_err()
        });
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "{address}: {error}"
        );
    }
    let report = steering.report().unwrap();
    assert_eq!(report.drops.failed + report.drops.malformed, 0);
}

#[test]
fn what_is_not_steered_does_not_enter_the_tunnel() {
    need_root!();
    let machine = Side::machine();
    let mut steering = attached(&machine);
    steering
        .set_prefixes(&steered(&[("10.244.1.0/24", PrefixKind::Other)]))
        .unwrap();
    machine.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"stays", at("10.244.2.1", 9)).unwrap();
        socket.send_to(b"goes", at("10.244.1.1", 9)).unwrap();
    });
    let packet = machine.next(SOON).unwrap();
    assert_eq!(packet[28..], *b"goes");
    assert_eq!(machine.next(Duration::from_millis(50)), None);
    assert_eq!(steering.report().unwrap().drops.no_prefix, 1);
}

#[test]
fn what_a_raw_socket_sends_is_judged_by_its_bytes() {
    need_root!();
    let machine = Side::machine();
    let steering = attached(&machine);
    machine.run(|| {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Packet,
            nix::sys::socket::SockType::Datagram,
            nix::sys::socket::SockFlag::empty(),
            None,
        )
        .unwrap();
        let index = nix::net::if_::if_nametoindex(DEVICE).unwrap();
        for (protocol, bytes) in [
            (0x0800_u16, vec![0x45; 10]),
            (0x86dd, vec![0x60; 39]),
            (0x0800, vec![0x65; 40]),
            (0x0806, vec![1; 28]),
        ] {
            // SAFETY: all-zero bytes are a valid `sockaddr_ll`.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            address.sll_protocol = protocol.to_be();
            address.sll_ifindex = i32::try_from(index).unwrap();
            // SAFETY: the buffer and the address live through the call, and their lengths are theirs.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw const address).cast(),
                    libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap(),
                )
            };
            // A packet that the programs drop may be reported as one for which there was no room.
            assert!(sent > 0 || io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS));
        }
    });
    let drops = steering.report().unwrap().drops;
    assert_eq!((drops.malformed, drops.not_ip), (3, 1));
    assert_eq!(machine.next(Duration::from_millis(50)), None);
}

/// A cluster whose services have both their own addresses and the stand-ins of [`FAMILIES`].
const FAMILIES: [(&str, &str); 2] = [("240.0.0.7", "10.96.0.10"), ("fd00:5::7", "fd00:96::10")];

fn cluster() -> Side {
    Side::new(
        &["10.96.0.10", "fd00:96::10"],
        &["10.8.0.0/24", "fd00:8::/64"],
    )
}

fn remapped(machine: &Side) -> Steering {
    let mut steering = attached(machine);
    for (used, real) in FAMILIES {
        put(&mut steering, used, Some(real), false);
    }
    steering
}

const TEN_MEGABYTES: usize = 10_000_000;

/// Bytes of which every position differs from its neighbours, so that what is lost or doubled shows.
fn pattern() -> Vec<u8> {
    (0..TEN_MEGABYTES)
        .map(|n| (n * 31 + n / 251) as u8)
        .collect()
}

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
        assert!(
            within(SOON, || counted() == passed()),
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

/// Whether it becomes true within the time: the last packets of a closing connection are still on their way.
fn within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::yield_now();
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

#[test]
fn the_maps_outlive_the_device() {
    need_root!();
    let machine = Side::machine();
    let mut steering = attached(&machine);
    drop(machine);
    put(&mut steering, "10.96.0.10", None, false);
    steering.set_prefixes(&[]).unwrap();
    assert_eq!(steering.traffic().unwrap(), []);
}
