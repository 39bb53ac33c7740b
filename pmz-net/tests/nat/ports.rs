//! Source ports of the NAT's connections, in a network namespace of the test's own. Needs root; else it says
//! `skipped:`.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use nix::unistd::geteuid;
use rtnetlink::LinkUnspec;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use crate::client::Client;
use crate::namespace::Namespace;
use crate::skipped::skipped;

/// More than the even ports of the range, so that the kernel's own search finds none among those.
const CLOSED: usize = 14_500;
const AT_ONCE: usize = 100;

#[test]
fn a_connection_is_opened_at_once_when_half_of_all_ports_are_remembered_by_closed_ones() {
    let measured = in_a_namespace("32768 60999", || {
        let service = closing_last();
        for _ in 0..CLOSED {
            drop(TcpStream::connect(service).unwrap());
        }
        let begun = Instant::now();
        for _ in 0..AT_ONCE {
            drop(TcpStream::connect(service).unwrap());
        }
        let own = begun.elapsed();
        let mut client = Client::new();
        let begun = Instant::now();
        opened(&mut client, service);
        (own, begun.elapsed())
    });
    let Some((own, through)) = measured else {
        return;
    };
    let found =
        format!("{AT_ONCE} times connect(2) take {own:?}, connections through the NAT {through:?}");
    println!("{found}");
    assert!(through < own / 2, "{found}");
}

#[test]
fn more_connections_than_there_are_ports_can_be_opened_and_closed_in_a_minute() {
    in_a_namespace("40000 41999", || {
        let service = closing_last();
        let mut client = Client::new();
        for _ in 0..3000 / AT_ONCE {
            let handles = opened(&mut client, service);
            handles.iter().for_each(|h| client.tcp(*h).close());
            client.until("all have ended", |c| {
                handles.iter().all(|h| c.state(*h) == State::TimeWait)
            });
            for handle in handles {
                client.sockets.remove(handle);
            }
        }
        client.until("no flow is left", |c| c.counters().tcp_flows == 0);
        let counters = client.counters();
        assert_eq!((counters.dials, counters.resource_limit_hits), (3000, 0));
    });
}

/// So many connections.
fn opened(client: &mut Client, service: SocketAddr) -> Vec<SocketHandle> {
    let handles: Vec<_> = (0..AT_ONCE)
        .map(|_| client.connect(service, 4096))
        .collect();
    client.until("all stand", |c| {
        handles.iter().all(|h| c.tcp(*h).may_send())
    });
    handles
}

/// What `f` finds in a namespace with this range of ports; none without root.
fn in_a_namespace<T: Send>(ports: &str, f: impl FnOnce() -> T + Send) -> Option<T> {
    if !geteuid().is_root() {
        skipped("it needs root");
        return None;
    }
    let namespace = Namespace::new();
    namespace.with_links(|handle| async move {
        let loopback = LinkUnspec::new_with_name("lo").up().build();
        handle.link().set(loopback).execute().await.unwrap();
    });
    let found = namespace.run(|| {
        // As between machines: on loopback alone the kernel gives such a port again.
        fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "0").unwrap();
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", ports).unwrap();
        f()
    });
    Some(found)
}

/// A service that closes when its client has.
fn closing_last() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().read(&mut [0]);
        }
    });
    address
}
