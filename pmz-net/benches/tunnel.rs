//! Sealing and opening a batch of messages as UDP carries them: 64 inner packets of 1420 bytes; per packet.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pmz_net::packet::VNET_HDR_LEN;
use pmz_net::tunnel::{DATA_OVERHEAD, MAX_HANDSHAKE, Opened, Peer, Sealed, Tunnel};

use common::{CLIENT, MTU, SERVER};

const BATCH: usize = 64;
const MESSAGE: usize = MTU as usize + DATA_OVERHEAD;

/// Both ends of a session.
struct Ends {
    client: Tunnel<()>,
    server: Tunnel<()>,
    to_server: Arc<Peer<()>>,
}

impl Ends {
    fn new() -> Self {
        let (client, server) = (Tunnel::generate(), Tunnel::generate());
        let to_server = client
            .add_peer(server.public_key(), vec![SERVER.into_net()], ())
            .expect("the first peer");
        server
            .add_peer(client.public_key(), vec![CLIENT.into_net()], ())
            .expect("the first peer");
        let ends = Self {
            client,
            server,
            to_server,
        };
        ends.shake_hands();
        ends
    }

    /// Initiation, response, and the first message that confirms the session.
    fn shake_hands(&self) {
        let mut initiation = [0; MAX_HANDSHAKE];
        let len = self
            .to_server
            .initiate(&mut initiation)
            .expect("initiation");
        let response = replied(&self.server, &initiation[..len]);
        let confirmation = replied(&self.client, &response);
        let mut out = vec![0; MESSAGE];
        self.server.open(&confirmation, None, &mut out);
        assert!(self.to_server.has_session());
    }
}

trait IntoNet {
    fn into_net(self) -> ipnet::IpNet;
}

impl IntoNet for std::net::Ipv4Addr {
    fn into_net(self) -> ipnet::IpNet {
        std::net::IpAddr::from(self).into()
    }
}

fn replied(tunnel: &Tunnel<()>, message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; MESSAGE];
    match tunnel.open(message, None, &mut out) {
        Opened::Reply { len, .. } => out[..len].to_vec(),
        other => panic!("{other:?} in a handshake"),
    }
}

/// A packet that fills the MTU.
fn packet() -> Vec<u8> {
    let payload = usize::from(MTU) - 28;
    common::datagram((SERVER, 7), payload)[VNET_HDR_LEN..].to_vec()
}

fn seal(peer: &Peer<()>, packet: &[u8], out: &mut [u8]) -> usize {
    match peer.seal(packet, out) {
        Sealed::Data(len) => len,
        other => panic!("{other:?} where a session stands"),
    }
}

fn tunnel(c: &mut Criterion) {
    let ends = Ends::new();
    let packet = packet();
    let mut group = c.benchmark_group("tunnel");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("seal 64 × 1420 B", |b| {
        let mut messages = vec![[0; MESSAGE]; BATCH];
        b.iter(|| {
            for message in &mut messages {
                seal(&ends.to_server, black_box(&packet), message);
            }
            black_box(&messages);
        });
    });
    group.bench_function("open 64 × 1420 B", |b| {
        let mut out = vec![0; MESSAGE];
        // Each message opens once.
        let sealed = || {
            let mut messages = vec![[0; MESSAGE]; BATCH];
            for message in &mut messages {
                seal(&ends.to_server, &packet, message);
            }
            messages
        };
        b.iter_batched_ref(
            sealed,
            |messages| {
                for message in messages {
                    let opened = ends.server.open(message, None, &mut out);
                    assert!(matches!(opened, Opened::Packet { .. }), "{opened:?}");
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, tunnel);
criterion_main!(benches);
