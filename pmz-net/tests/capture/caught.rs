//! What comes of a query: where it arrives, and what its program sees.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::common::skip::need_root;
use crate::machine::{Machine, answer};

/// Nobody is at these: what is asked of them is not to get there.
const SERVERS: [&str; 4] = [
    "198.51.100.53:53",
    "127.0.0.53:53",
    "[2001:db8:1::53]:53",
    "[::1]:53",
];

fn any(server: &str) -> &'static str {
    if server.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    }
}

fn ip(server: &str) -> IpAddr {
    server.parse::<SocketAddr>().unwrap().ip()
}

#[test]
fn a_connected_datagram_socket_gets_its_answer_from_the_server_that_it_asked() {
    need_root!();
    let machine = Machine::new();
    let (capture, sockets) = machine.capture();
    for server in SERVERS {
        let ours = if ip(server).is_ipv4() {
            &sockets.v4.0
        } else {
            &sockets.v6.as_ref().unwrap().0
        };
        let client = machine.udp(any(server));
        client.connect(server).unwrap();
        assert_eq!(client.peer_addr().unwrap(), server.parse().unwrap());
        client.send(b"question").unwrap();
        assert_eq!(answer(&capture, ours, b"answer"), ip(server));
        let mut buffer = [0; 64];
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..length], from),
            (&b"answer"[..], server.parse().unwrap())
        );
        client.send(b"another").unwrap();
        assert_eq!(answer(&capture, ours, b"one more"), ip(server));
        let length = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"one more");
    }
}

#[test]
fn an_unconnected_datagram_socket_asks_several_servers_and_tells_their_answers_apart() {
    need_root!();
    let machine = Machine::new();
    let (capture, sockets) = machine.capture();
    let v6 = &sockets.v6.as_ref().unwrap().0;
    let clients = [
        ("0.0.0.0:0", &sockets.v4.0, &SERVERS[..2]),
        ("[::]:0", v6, &SERVERS[2..]),
    ];
    for (at, ours, servers) in clients {
        let client = machine.udp(at);
        for server in servers {
            client.send_to(b"question", server).unwrap();
            assert_eq!(answer(&capture, ours, server.as_bytes()), ip(server));
        }
        for server in servers {
            let mut buffer = [0; 64];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], server.as_bytes());
            assert_eq!(from, server.parse().unwrap());
        }
    }
}

#[test]
fn a_socket_that_is_bound_to_an_address_of_the_machine_is_answered_too() {
    need_root!();
    let machine = Machine::new();
    let (capture, sockets) = machine.capture();
    let v6 = &sockets.v6.as_ref().unwrap().0;
    for (at, ours, server) in [
        ("192.0.2.1:0", &sockets.v4.0, SERVERS[0]),
        ("127.0.0.1:0", &sockets.v4.0, SERVERS[1]),
        ("[2001:db8::1]:0", v6, SERVERS[2]),
        ("[::1]:0", v6, SERVERS[3]),
    ] {
        let client = machine.udp(at);
        client.send_to(b"question", server).unwrap();
        assert_eq!(answer(&capture, ours, b"answer"), ip(server));
        let (_, from) = client.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from, server.parse().unwrap(), "{at}");
    }
}

#[test]
fn an_ipv6_socket_that_asks_an_ipv4_server_sees_it_as_a_mapped_address() {
    need_root!();
    let machine = Machine::new();
    let (capture, sockets) = machine.capture();
    let mapped = "[::ffff:198.51.100.53]:53";
    let meant: IpAddr = "198.51.100.53".parse().unwrap();
    let both = |client: &UdpSocket| {
        assert_eq!(answer(&capture, &sockets.v4.0, b"answer"), meant);
        let (_, from) = client.recv_from(&mut [0; 64]).unwrap();
        assert_eq!(from, mapped.parse().unwrap());
    };
    let client = machine.udp("[::]:0");
    client.send_to(b"question", mapped).unwrap();
    both(&client);
    let client = machine.udp("[::]:0");
    client.connect(mapped).unwrap();
    assert_eq!(client.peer_addr().unwrap(), mapped.parse().unwrap());
    client.send(b"question").unwrap();
    both(&client);
}

#[test]
fn a_connection_is_led_to_us_and_shows_the_server_that_was_asked() {
    need_root!();
    let machine = Machine::new();
    let (capture, sockets) = machine.capture();
    let v6 = &sockets.v6.as_ref().unwrap().1;
    let servers = [
        (SERVERS[0], &sockets.v4.1),
        (SERVERS[1], &sockets.v4.1),
        (SERVERS[2], v6),
        (SERVERS[3], v6),
        ("[::ffff:198.51.100.53]:53", &sockets.v4.1),
    ];
    for (server, ours) in servers {
        let mut client = machine.connect(server).unwrap();
        assert_eq!(client.peer_addr().unwrap(), server.parse().unwrap());
        let (mut accepted, _) = ours.accept().unwrap();
        accepted.set_nonblocking(false).unwrap();
        client.write_all(b"question").unwrap();
        let mut buffer = [0; 8];
        accepted.read_exact(&mut buffer).unwrap();
        let slot = capture
            .slots()
            .slot(accepted.local_addr().unwrap().ip())
            .unwrap();
        assert_eq!(
            capture.server(slot).unwrap(),
            Some(ip(server).to_canonical())
        );
        accepted.write_all(b"response").unwrap();
        client.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"response");
    }
}

#[test]
fn a_server_keeps_its_slot_however_many_others_are_asked() {
    need_root!();
    let machine = Machine::new();
    let (capture, sockets) = machine.capture();
    let client = machine.udp("0.0.0.0:0");
    let ask = |server: String| {
        client.send_to(b"question", &server).unwrap();
        let (datagram, _) = crate::machine::next(&sockets.v4.0);
        let slot = capture.slots().slot(datagram.at).unwrap();
        assert_eq!(capture.server(slot).unwrap(), Some(ip(&server)));
        slot
    };
    let first = ask("198.51.100.1:53".to_owned());
    let mut slots: std::collections::HashSet<_> = (0..2000_u32)
        .map(|n| ask(format!("10.0.{}.{}:53", n / 200, n % 200 + 1)))
        .collect();
    assert_eq!(slots.len(), 2000);
    assert!(slots.insert(first));
    assert_eq!(ask("198.51.100.1:53".to_owned()), first);
}
