//! The guard between machines: what it lets through carries on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use pmz_net::device::{Tun, open_tun};
use pmz_net::guard::{Guard, GuardError, GuardMode};
use pmz_net::packet::VNET_HDR_LEN;
use pmz_net::route::Netlink;

use crate::common::namespace::Namespace;
use crate::common::skip::need_root;
use crate::ends::{AGENT, Ends};
use crate::frames::{LAPTOP, PORT, message, packet, to_receiver};
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

fn carries_on(mode: GuardMode, v6: bool) {
    let lab = Lab::new();
    let of = |machine: &crate::net::Machine| if v6 { machine.v6() } else { machine.v4() };
    let agent = of(&lab.agent);
    let mut guard = lab.agent.run(|| Guard::attach_as(ETH, PORT, mode)).unwrap();
    let mut ends = Ends::new((&lab.client, of(&lab.client)), (&lab.agent, agent));
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
fn a_session_carries_on_behind_a_native_guard_while_junk_arrives() {
    need_root!();
    carries_on(GuardMode::Native, false);
    carries_on(GuardMode::Native, true);
}

#[test]
fn a_session_carries_on_behind_a_generic_guard_while_junk_arrives() {
    need_root!();
    carries_on(GuardMode::Generic, false);
    carries_on(GuardMode::Generic, true);
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
fn a_tun_is_guarded_too() {
    need_root!();
    let machine = Namespace::new();
    machine.block_on(async || {
        let opened = open_tun("tun0").unwrap();
        let netlink = Netlink::open().unwrap();
        netlink.bring_up(opened.index, 1500).await.unwrap();
        let tun = Tun::new(opened.fd).unwrap();
        let guard = Guard::attach("tun0", PORT).unwrap();
        assert_eq!(guard.mode(), GuardMode::Generic);
        for payload in [message(1, 148), vec![0xee; 64], to_receiver(4, 64, 1 << 8)] {
            let mut frame = vec![0; VNET_HDR_LEN];
            frame.extend(packet(LAPTOP, PORT, &payload));
            tun.send(&frame).unwrap();
        }
        let report = guard.report().unwrap();
        assert_eq!((report.passed, report.kind, report.receiver), (1, 1, 1));
    });
}

#[test]
fn a_pods_interface_is_guarded_behind_the_driver() {
    need_root!();
    let lab = Lab::new();
    let guard = lab.agent.run(|| Guard::attach(ETH, PORT)).unwrap();
    assert_eq!(guard.mode(), GuardMode::Generic);
}

#[test]
fn an_interface_with_another_xdp_program_is_left_alone() {
    need_root!();
    let lab = Lab::new();
    lab.agent.run(|| {
        let _first = Guard::attach(ETH, PORT).unwrap();
        let error = Guard::attach(ETH, PORT).unwrap_err();
        assert!(matches!(error, GuardError::Occupied { .. }), "{error}");
    });
}
