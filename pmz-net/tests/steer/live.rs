//! What is refused, and what does not pass, by sockets that know nothing of it.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use pmz_net::steer::{Attachment, PrefixKind, Steering};

use crate::common::skip::need_root;
use crate::scene::{DEVICE, Side, Wire};
use crate::sockets::{SOON, at, attached, cluster, error_after_sending, put, set_up};
use crate::trial::{ip, steered};

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
