//! What is not caught.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

use pmz_net::capture::{Capture, Slots};

use crate::cgroup;
use crate::common::skip::need_root;
use crate::machine::{Machine, next};
use crate::owner::{need_python, python};

/// A server of the machine's own. The tests' process is a name server by it: others have to ask.
fn server(machine: &Machine, at: &str) -> UdpSocket {
    let server = machine.udp(at);
    server
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    server
}

/// Whether what this process sends to a server gets there.
fn reaches(client: &UdpSocket, server: &UdpSocket) -> bool {
    client
        .send_to(b"question", server.local_addr().unwrap())
        .unwrap();
    server.recv_from(&mut [0; 64]).is_ok()
}

/// Whether what another process sends to a server gets there.
fn others_reach(machine: &Machine, server: &UdpSocket, options: &str) -> bool {
    let at = server.local_addr().unwrap();
    let family = if at.is_ipv4() { "AF_INET" } else { "AF_INET6" };
    let script = format!(
        "import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM); {options}; \
         s.sendto(b'question', ('{}', {}))",
        at.ip(),
        at.port()
    );
    assert!(python(machine, &script).unwrap().success());
    server.recv_from(&mut [0; 64]).is_ok()
}

#[test]
fn other_ports_other_network_namespaces_and_multicast_are_left_alone() {
    need_root!();
    let (machine, other) = (Machine::new(), Machine::new());
    let at_home = server(&machine, "127.0.0.1:5353");
    let (_capture, sockets) = machine.capture();
    let stranger = server(&other, "127.0.0.1:53");
    assert!(reaches(&machine.udp("0.0.0.0:0"), &at_home));
    assert!(reaches(&other.udp("0.0.0.0:0"), &stranger));
    let client = machine.udp("0.0.0.0:0");
    // There may be no way to it at all.
    let _ = client.send_to(b"question", "224.0.0.251:53");
    assert!(pmz_net::capture::receive(&sockets.v4.0, &mut [0; 64]).is_err());
}

#[test]
fn a_socket_bound_to_a_device_is_left_alone() {
    need_root!();
    need_python!();
    let machine = Machine::new();
    let (_capture, _sockets) = machine.capture();
    let server = server(&machine, "127.0.0.1:53");
    assert!(!others_reach(&machine, &server, "pass"));
    let bound = "s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo')";
    assert!(others_reach(&machine, &server, bound));
}

#[test]
fn who_has_announced_itself_is_left_alone_and_nobody_else_is_by_then() {
    need_root!();
    need_python!();
    let machine = Machine::new();
    let (capture, sockets) = machine.capture();
    let client = machine.udp("0.0.0.0:0");
    client.send_to(b"question", "127.0.0.1:53").unwrap();
    next(&sockets.v4.0);
    machine.run(|| capture.knock().announce()).unwrap();
    // Not to a socket of this process, whose binding would be an announcement as well.
    client.send_to(b"question", "127.0.0.1:53").unwrap();
    assert!(pmz_net::capture::receive(&sockets.v4.0, &mut [0; 64]).is_err());
    let script = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
        s.sendto(b'question', ('127.0.0.1', 53))";
    assert!(python(&machine, script).unwrap().success());
    next(&sockets.v4.0);
}

#[test]
fn who_serves_names_is_left_alone_whether_he_did_before_or_does_now() {
    need_root!();
    need_python!();
    let machine = Machine::new();
    let (_capture, _sockets) = machine.capture();
    // This process: the socket that it binds makes a name server of it.
    let first = server(&machine, "127.0.0.1:53");
    assert!(reaches(&machine.udp("0.0.0.0:0"), &first));
    assert!(!others_reach(&machine, &first, "pass"));
    let another = Machine::new();
    let before = server(&another, "[::1]:53");
    let (_capture, _sockets) = another.capture();
    assert!(reaches(&another.udp("[::]:0"), &before));
    assert!(!others_reach(&another, &before, "pass"));
}

#[test]
fn without_a_network_for_ipv6_servers_queries_to_them_are_left_alone() {
    need_root!();
    need_python!();
    let machine = Machine::new();
    let (v4, v6) = (
        server(&machine, "127.0.0.1:53"),
        server(&machine, "[::1]:53"),
    );
    let attach = || Capture::attach(cgroup::own().as_fd(), Slots::new(None)).unwrap();
    let (_capture, sockets) = machine.run(attach);
    assert!(sockets.v6.is_none());
    assert!(others_reach(&machine, &v6, "pass"));
    assert!(!others_reach(&machine, &v4, "pass"));
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
    let (datagram, _) = next(&sockets.v4.0);
    assert_eq!(
        datagram.at,
        "192.0.2.1".parse::<std::net::IpAddr>().unwrap()
    );
    crate::machine::from_a_neighbour(&machine, port);
    assert!(pmz_net::capture::receive(&sockets.v4.0, &mut [0; 64]).is_err());
}
