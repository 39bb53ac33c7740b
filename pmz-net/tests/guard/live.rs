//! The guard between machines: what it lets through carries on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use pmz_net::guard::{Guard, GuardError};

use crate::common::cables::give;
use crate::common::skip::need_root;
use crate::ends::{AGENT, Ends, Place};
use crate::frames::{PORT, message, to_receiver};
use crate::net::{ETH, Lab};

const BYTES: usize = 8 << 20;

/// Of each kind that dies at the guard, so many.
const EACH: u64 = 50;

fn junk() -> [Vec<u8>; 5] {
    [
        vec![0xee; 64],
        message(1, 147),
        to_receiver(4, 20, 1 << 8),
        to_receiver(4, 1000, 0xdead_0000),
        to_receiver(2, 92, 0xdead_0000),
    ]
}

/// A TCP connection through the tunnel, from the client to the agent, with data in it.
fn transfer(lab: &Lab) {
    let at = SocketAddr::new(AGENT.into(), 80);
    let listener = lab.agent.run(|| TcpListener::bind(at)).unwrap();
    let mut near = lab.client.run(|| TcpStream::connect(at)).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        far.read_to_end(&mut received).unwrap();
        received
    });
    near.write_all(&sent).unwrap();
    drop(near);
    assert!(reader.join().unwrap() == sent);
}

fn carries_on(place: Place, v6: bool) {
    let lab = Lab::new();
    let of = |machine: &crate::net::Machine| if v6 { machine.v6() } else { machine.v4() };
    let agent = of(&lab.agent);
    let mut ends = Ends::new((&lab.client, of(&lab.client)), (&lab.agent, agent));
    let mut guard = ends.agent.guard(&lab.agent, place);
    // A peer that the guard does not know gets no answer but to its initiations.
    assert!(!ends.answers());
    assert!(guard.report().unwrap().receiver > 0);
    guard.add_peer(ends.client_id).unwrap();
    assert!(ends.answers());
    let before = (guard.report().unwrap(), ends.agent.engine.drops());

    let neighbour = lab
        .neighbour
        .run(|| UdpSocket::bind((of(&lab.neighbour), 0)))
        .unwrap();
    for _ in 0..EACH {
        for datagram in junk() {
            neighbour.send_to(&datagram, (agent, PORT)).unwrap();
        }
    }
    transfer(&lab);
    ends.renew();
    assert!(ends.answers());

    let report = guard.report().unwrap();
    assert_eq!(report.kind - before.0.kind, EACH);
    assert_eq!(report.length - before.0.length, 2 * EACH);
    assert_eq!(report.receiver - before.0.receiver, 2 * EACH);
    assert_eq!((report.source_rate, report.rate), (0, 0));
    assert_eq!(ends.agent.engine.drops(), before.1, "junk came through");
}

#[test]
fn a_session_carries_on_behind_a_guard_in_the_driver_while_junk_arrives() {
    need_root!();
    carries_on(Place::Driver, false);
    carries_on(Place::Driver, true);
}

#[test]
fn a_session_carries_on_behind_a_guard_at_the_socket_while_junk_arrives() {
    need_root!();
    carries_on(Place::Socket, false);
    carries_on(Place::Socket, true);
}

#[test]
fn without_a_guard_junk_comes_as_far_as_the_engine() {
    need_root!();
    let lab = Lab::new();
    let mut ends = Ends::new((&lab.client, lab.client.v4()), (&lab.agent, lab.agent.v4()));
    assert!(ends.answers());
    let before = ends.agent.engine.drops();
    let neighbour = lab
        .neighbour
        .run(|| UdpSocket::bind((lab.neighbour.v4(), 0)))
        .unwrap();
    for datagram in junk() {
        neighbour
            .send_to(&datagram, (lab.agent.v4(), PORT))
            .unwrap();
    }
    // What is answered came behind it.
    assert!(ends.answers());
    assert_ne!(ends.agent.engine.drops(), before);
}

#[test]
fn a_pods_interface_is_not_guarded_in_its_driver() {
    need_root!();
    let lab = Lab::new();
    let guard = lab.agent.run(|| Guard::in_driver(ETH, PORT)).unwrap();
    assert!(guard.is_none());
}

#[test]
fn an_interface_with_another_xdp_program_is_left_alone() {
    need_root!();
    let lab = Lab::new();
    lab.agent.run(|| {
        let _first = Guard::at_interface(ETH, PORT).unwrap();
        let error = Guard::at_interface(ETH, PORT).unwrap_err();
        assert!(matches!(error, GuardError::Occupied { .. }), "{error}");
    });
}

#[test]
fn a_socket_gets_everything_again_when_its_guard_is_dropped() {
    need_root!();
    let lab = Lab::new();
    let bind = || UdpSocket::bind(("127.0.0.1", 0));
    let (tunnel, sender) = lab.agent.run(|| (bind().unwrap(), bind().unwrap()));
    lab.agent.with_links(|handle| async move {
        give(&handle, "lo", &[]).await;
    });
    tunnel
        .set_read_timeout(Some(std::time::Duration::from_secs(5)))
        .unwrap();
    let (junk, initiation) = ([0xee; 64], message(1, 148));
    let send = |datagram: &[u8]| {
        let to = tunnel.local_addr().unwrap();
        sender.send_to(datagram, to).unwrap()
    };
    let mut buffer = [0; 256];
    let guard = Guard::at_socket(tunnel.as_fd()).unwrap();
    send(&junk);
    send(&initiation);
    assert_eq!(tunnel.recv(&mut buffer).unwrap(), initiation.len());
    let report = guard.report().unwrap();
    assert_eq!((report.kind, report.passed), (1, 1));
    drop(guard);
    send(&junk);
    assert_eq!(tunnel.recv(&mut buffer).unwrap(), junk.len());
}
