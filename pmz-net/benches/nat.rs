//! Datagrams of 1200 bytes through an open flow of the NAT, from its inbox to a socket of the service on loopback; per datagram.

mod common;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pmz_net::nat::{Egress, Inbox, Nat, NatConfig, PeerId, Way};

use common::MTU;

const BATCH: usize = 64;
const PAYLOAD: usize = 1200;
const PEER: PeerId = PeerId(1);

/// The service doesn't answer, so that nothing goes back.
struct Nowhere;

impl Egress for Nowhere {
    fn has_room(&self, _: PeerId, _: u32) -> bool {
        true
    }

    fn transmit(&mut self, _: PeerId, _: u32, _: &mut [u8]) {}

    fn transmit_gathered(&mut self, _: PeerId, _: u32, _: &mut [u8], _: [&[u8]; 2]) {}

    fn flush(&mut self) {}

    fn way(&self, _: PeerId) -> Way {
        Way {
            mtu: MTU,
            lossless: false,
            in_flight_limit: usize::MAX,
        }
    }
}

fn push(inbox: &Inbox, datagram: &[u8], count: usize) {
    for _ in 0..count {
        let mut frame = inbox.frames().take(datagram.len());
        frame.extend_from_slice(datagram);
        assert!(inbox.try_push(PEER, frame).is_ok(), "the inbox is full");
    }
    inbox.settle();
}

fn nat(c: &mut Criterion) {
    let service = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let within = Some(Duration::from_secs(5));
    service.set_read_timeout(within).expect("a limit");
    let IpAddr::V4(address) = service.local_addr().expect("an address").ip() else {
        unreachable!("it was bound to IPv4");
    };
    let port = service.local_addr().expect("an address").port();
    let config = NatConfig {
        // The service is on the loopback device, which clients are kept from.
        deny: Vec::new(),
        ..NatConfig::default()
    };
    let nat = Nat::new(config).expect("a NAT");
    let inbox = nat.inbox();
    let _running = nat.start(Box::new(Nowhere)).expect("its thread");
    let datagram = common::datagram((address, port), PAYLOAD);
    let mut arrived = [0; PAYLOAD];
    let mut arrive = |count: usize| {
        for _ in 0..count {
            let len = service.recv(&mut arrived).expect("a datagram");
            assert_eq!(len, PAYLOAD);
        }
    };
    // Opens the flow.
    push(&inbox, &datagram, 1);
    arrive(1);

    let mut group = c.benchmark_group("nat");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("64 datagrams of an open flow", |b| {
        b.iter(|| {
            push(&inbox, &datagram, BATCH);
            arrive(BATCH);
        });
    });
    group.finish();
}

criterion_group!(benches, nat);
criterion_main!(benches);
