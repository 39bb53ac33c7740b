//! One question for a service's address: what the mirror answers, and by way of the server's socket on loopback.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::RecordType;
use pmz_net::catalog::{Port, Protocol, Service, ServiceKey, ServiceKind, SharedMirror, Snapshot};
use pmz_net::dns::{Answer, Clients, DnsConfig, DnsServer, Name, Zone, resolve};

const DOMAIN: &str = "cluster.local";
const SERVICES: u32 = 10_000;
const ASKED: &str = "service-4711.default.svc.cluster.local.";

fn service(number: u32) -> Service {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + number);
    Service {
        key: ServiceKey {
            namespace: "default".into(),
            name: format!("service-{number}"),
        },
        kind: ServiceKind::ClusterIp {
            addresses: vec![IpAddr::V4(address)],
        },
        ports: vec![Port {
            name: None,
            protocol: Protocol::Tcp,
            port: 80,
        }],
        publish_not_ready: false,
        endpoints: Vec::new(),
    }
}

fn mirror() -> SharedMirror {
    let mirror = SharedMirror::new();
    let snapshot = Snapshot {
        version: 1,
        services: (0..SERVICES).map(service).collect(),
    };
    mirror.apply_snapshot(snapshot).expect("services");
    mirror
}

fn dns(c: &mut Criterion) {
    let zone = || Zone::new(DOMAIN).expect("a domain");
    let name = Name::from_ascii(ASKED).expect("a name");
    let mut group = c.benchmark_group("dns");
    group.throughput(Throughput::Elements(1));

    group.bench_function("resolve among 10,000 services", |b| {
        let (mirror, zone) = (mirror(), zone());
        b.iter(|| {
            let answer = resolve(&mirror.read(), &zone, black_box(&name), RecordType::A);
            assert!(matches!(answer, Answer::Records { .. }), "{answer:?}");
        });
    });

    group.bench_function("query and answer on loopback", |b| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let address = socket.local_addr().expect("an address");
        let config = DnsConfig {
            zone: zone(),
            upstream: Vec::new(),
            clients: Clients::Machine,
        };
        let handle = runtime
            .block_on(async { DnsServer::start(vec![socket], vec![], mirror(), config) })
            .expect("a server");
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        client.connect(address).expect("connect");
        let within = Some(Duration::from_secs(5));
        client.set_read_timeout(within).expect("a limit");
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name.clone(), RecordType::A));
        let query = message.to_vec().expect("a query");
        let mut answer = [0; 512];
        b.iter(|| {
            client.send(&query).expect("send");
            let len = client.recv(&mut answer).expect("an answer");
            assert!(len > query.len(), "it holds no record");
        });
        runtime.block_on(handle.stop());
    });
    group.finish();
}

criterion_group!(benches, dns);
criterion_main!(benches);
