//! What is not caught.

use std::net::UdpSocket;

use pmz_net::capture::{Capture, Slots};
use std::os::fd::AsFd;

use crate::cgroup;
use crate::machine::Machine;
use crate::skip::need_root;

/// Whether what a socket sends to this server gets there.
fn reaches(client: &UdpSocket, server: &UdpSocket) -> bool {
    client
        .send_to(b"question", server.local_addr().unwrap())
        .unwrap();
    server
        .set_read_timeout(Some(std::time::Duration::from_millis(300)))
        .unwrap();
    server.recv_from(&mut [0; 64]).is_ok()
}

#[test]
fn other_ports_other_network_namespaces_and_multicast_are_left_alone() {
    need_root!();
    let (machine, other) = (Machine::new(), Machine::new());
    let stranger = other.udp("127.0.0.1:53");
    let at_home = machine.udp("127.0.0.1:5353");
    let (_capture, sockets) = machine.capture();
    assert!(reaches(&machine.udp("0.0.0.0:0"), &at_home));
    assert!(reaches(&other.udp("0.0.0.0:0"), &stranger));
    let client = machine.udp("0.0.0.0:0");
    client.connect("224.0.0.251:53").unwrap_or_default();
    client.send(b"question").unwrap_or_default();
    assert!(pmz_net::capture::receive(&sockets.v4.0, &mut [0; 64]).is_err());
}

#[test]
fn a_socket_bound_to_a_device_is_left_alone() {
    need_root!();
    let machine = Machine::new();
    let server = machine.udp("127.0.0.1:53");
    let (_capture, _sockets) = machine.capture();
    let client = machine.udp("0.0.0.0:0");
    assert!(!reaches(&client, &server));
    nix::sys::socket::setsockopt(
        &client,
        nix::sys::socket::sockopt::BindToDevice,
        &"lo".into(),
    )
    .unwrap();
    assert!(reaches(&client, &server));
}

#[test]
fn who_has_announced_itself_is_left_alone_and_nobody_else_is_by_then() {
    need_root!();
    let machine = Machine::new();
    let server = machine.udp("127.0.0.1:53");
    let (capture, _sockets) = machine.capture();
    assert!(!reaches(&machine.udp("0.0.0.0:0"), &server));
    machine.run(|| capture.knock().announce()).unwrap();
    assert!(reaches(&machine.udp("0.0.0.0:0"), &server));
    let other = crate::owner::python(
        &machine,
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
         s.sendto(b'question', ('127.0.0.1', 53))",
    );
    let Some(other) = other else {
        return;
    };
    assert!(other.success());
    assert!(server.recv_from(&mut [0; 64]).is_err());
}

#[test]
fn who_serves_names_is_left_alone_from_then_on() {
    need_root!();
    let machine = Machine::new();
    let (_capture, _sockets) = machine.capture();
    // This process: the socket that it binds makes a name server of it.
    let server = machine.udp("127.0.0.1:53");
    assert!(reaches(&machine.udp("0.0.0.0:0"), &server));
}

#[test]
fn without_a_network_for_ipv6_servers_queries_to_them_are_left_alone() {
    need_root!();
    let machine = Machine::new();
    let (v4, v6) = (machine.udp("127.0.0.1:53"), machine.udp("[::1]:53"));
    let attach = || Capture::attach(cgroup::own().as_fd(), Slots::new(None)).unwrap();
    let (_capture, sockets) = machine.run(attach);
    assert!(sockets.v6.is_none());
    assert!(reaches(&machine.udp("[::]:0"), &v6));
    assert!(!reaches(&machine.udp("0.0.0.0:0"), &v4));
}

#[test]
fn what_comes_from_another_machine_does_not_get_to_our_sockets() {
    need_root!();
    let machine = Machine::new();
    let (_capture, sockets) = machine.capture();
    let port = sockets.v4.0.local_addr().unwrap().port();
    // From the machine itself, by its own address, it does: the filter looks at the device.
    let client = machine.udp("192.0.2.1:0");
    client.send_to(b"question", ("192.0.2.1", port)).unwrap();
    let (datagram, _) = crate::machine::next(&sockets.v4.0);
    assert_eq!(
        datagram.at,
        "192.0.2.1".parse::<std::net::IpAddr>().unwrap()
    );
    crate::machine::from_a_neighbour(&machine, port);
    assert!(pmz_net::capture::receive(&sockets.v4.0, &mut [0; 64]).is_err());
}
