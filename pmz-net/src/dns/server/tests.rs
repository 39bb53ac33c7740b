//! The server on loopback sockets, asked as any client asks.

mod any_bytes;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::RData;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;
use crate::catalog::samples::{cluster_ip, endpoint, external, headless};
use crate::catalog::{MirrorState, Snapshot};

mod cluster;
mod wire;

const PATIENCE: Duration = Duration::from_secs(10);

struct Bench {
    handle: DnsHandle,
    mirror: SharedMirror,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Bench {
    fn start(upstream: Vec<SocketAddr>) -> Self {
        Self::with(upstream, Clients::Anybody)
    }

    fn with(upstream: Vec<SocketAddr>, clients: Clients) -> Self {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (udp_at, tcp_at) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let mirror = SharedMirror::new();
        let mut many = headless("default", "many", &[]);
        many.endpoints = (0..100)
            .map(|last| endpoint(&format!("10.244.1.{last}")))
            .collect();
        let services = vec![
            cluster_ip("default", "echo", &["10.96.0.7"], &[]),
            cluster_ip("default", "both", &["10.96.0.8", "fd00:96::8"], &[]),
            external("default", "outside", "www.example.org"),
            many,
        ];
        mirror
            .apply_snapshot(Snapshot {
                version: 1,
                services,
            })
            .unwrap();
        let zone = Zone::new("cluster.local").unwrap();
        let config = DnsConfig {
            zone,
            upstream,
            clients,
        };
        let handle = DnsServer::start(vec![udp], vec![tcp], mirror.clone(), config).unwrap();
        Self {
            handle,
            mirror,
            udp: udp_at,
            tcp: tcp_at,
        }
    }

    async fn udp(&self, query: &Message) -> Message {
        Message::from_vec(&exchange(self.udp, &query.to_vec().unwrap()).await).unwrap()
    }

    async fn connect(&self) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(self.tcp).await.unwrap()
    }

    async fn tcp(&self, query: &Message) -> Message {
        let mut stream = self.connect().await;
        send_tcp(&mut stream, query).await;
        timeout(PATIENCE, receive_tcp(&mut stream)).await.unwrap()
    }
}

async fn exchange(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    socket.connect(server).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    buffer.truncate(length);
    buffer
}

async fn send_tcp(stream: &mut tokio::net::TcpStream, message: &Message) {
    let bytes = message.to_vec().unwrap();
    stream
        .write_u16(u16::try_from(bytes.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&bytes).await.unwrap();
}

#[tokio::test]
async fn whoever_runs_the_server_hears_what_clients_are_told() {
    let bench = Bench::start(vec![]);
    let service: IpAddr = "10.96.0.7".parse().unwrap();
    let found = bench.handle.addresses("echo.default.svc.").await;
    assert_eq!(found, [service]);
    for name in ["www.example.org.", "nobody.default.svc.", "two..dots"] {
        assert!(bench.handle.addresses(name).await.is_empty(), "{name}");
    }
}

async fn receive_tcp(stream: &mut tokio::net::TcpStream) -> Message {
    let length = stream.read_u16().await.unwrap();
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await.unwrap();
    Message::from_vec(&bytes).unwrap()
}

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

fn addresses(message: &Message) -> Vec<String> {
    let records = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.to_string()),
            _ => None,
        });
    records.collect()
}

/// A name server that answers every A question: over UDP as told, over TCP with 192.0.2.2.
struct Upstream {
    address: SocketAddr,
    _tasks: tokio::task::JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answer,
    Truncate,
    Fail,
    Silent,
    /// An answer with another id first, and one to another question.
    Spoofed,
}

impl Upstream {
    async fn start(manner: Manner) -> Self {
        let tcp = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = tokio::net::UdpSocket::bind(address).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = answer(&asked, [192, 0, 2, 1]);
                match manner {
                    Manner::Answer => {}
                    Manner::Truncate => {
                        answer.metadata.truncation = true;
                        answer.answers.clear();
                    }
                    Manner::Fail => {
                        answer.metadata.response_code = ResponseCode::ServFail;
                        answer.answers.clear();
                    }
                    Manner::Silent => continue,
                    Manner::Spoofed => {
                        let mut wrong = self::answer(&asked, [192, 0, 2, 66]);
                        wrong.metadata.id ^= 1;
                        udp.send_to(&wrong.to_vec().unwrap(), from).await.unwrap();
                        let mut wrong = self::answer(&asked, [192, 0, 2, 66]);
                        wrong.queries[0].set_name(Name::from_ascii("other.test.").unwrap());
                        udp.send_to(&wrong.to_vec().unwrap(), from).await.unwrap();
                        udp.send_to(b"garbage", from).await.unwrap();
                    }
                }
                udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let asked = receive_tcp(&mut stream).await;
                send_tcp(&mut stream, &answer(&asked, [192, 0, 2, 2])).await;
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

fn answer(asked: &Message, address: [u8; 4]) -> Message {
    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
    answer.add_query(asked.queries[0].clone());
    let data = RData::A(Ipv4Addr::from(address).into());
    answer.add_answer(Record::from_rdata(
        asked.queries[0].name().clone(),
        300,
        data,
    ));
    answer
}

#[tokio::test]
async fn names_are_answered_over_udp_and_tcp() {
    let bench = Bench::start(vec![]);
    let question = query("Echo.Default.SVC.", RecordType::A);
    for reply in [bench.udp(&question).await, bench.tcp(&question).await] {
        assert_eq!(reply.metadata.id, question.metadata.id);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.metadata.authoritative && reply.metadata.recursion_desired);
        assert_eq!(addresses(&reply), ["10.96.0.7"]);
        assert_eq!(reply.queries[0].name().to_ascii(), "Echo.Default.SVC.");
        assert_eq!(reply.answers[0].name.to_ascii(), "Echo.Default.SVC.");
        assert_eq!(reply.answers[0].ttl, 5);
    }
    let reply = bench.udp(&query("nope.default.svc.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn a_stale_mirror_answers_servfail_at_once() {
    let upstream = Upstream::start(Manner::Answer).await;
    let bench = Bench::start(vec![upstream.address]);
    bench.mirror.mark_stale();
    assert_eq!(bench.mirror.state(), MirrorState::Stale);
    let reply = timeout(
        Duration::from_millis(500),
        bench.udp(&query("echo.default.svc.", RecordType::A)),
    )
    .await
    .unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let reply = bench.udp(&query("example.org.", RecordType::A)).await;
    assert_eq!(addresses(&reply), ["192.0.2.1"]);
}

#[tokio::test]
async fn what_is_not_ours_is_refused_or_forwarded() {
    let bench = Bench::start(vec![]);
    let question = with_edns(query("example.org.", RecordType::A), 1232);
    let reply = bench.udp(&question).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);

    let upstream = Upstream::start(Manner::Answer).await;
    bench.handle.set_upstream(vec![upstream.address]);
    for reply in [bench.udp(&question).await, bench.tcp(&question).await] {
        assert_eq!(reply.metadata.id, question.metadata.id);
        assert_eq!(addresses(&reply), ["192.0.2.1"]);
        assert!(!reply.metadata.authoritative && reply.metadata.recursion_desired);
    }
}

#[tokio::test]
async fn a_truncated_answer_is_fetched_by_tcp() {
    let upstream = Upstream::start(Manner::Truncate).await;
    let bench = Bench::start(vec![upstream.address]);
    let reply = bench.udp(&query("example.org.", RecordType::A)).await;
    assert_eq!(
        (addresses(&reply), reply.metadata.truncation),
        (vec!["192.0.2.2".into()], false)
    );
}

#[tokio::test]
async fn a_server_that_fails_or_is_silent_is_passed_over() {
    let failing = Upstream::start(Manner::Fail).await;
    let silent = Upstream::start(Manner::Silent).await;
    let good = Upstream::start(Manner::Answer).await;
    let bench = Bench::start(vec![failing.address, silent.address, good.address]);
    let reply = bench.udp(&query("example.org.", RecordType::A)).await;
    assert_eq!(addresses(&reply), ["192.0.2.1"]);
    bench.handle.set_upstream(vec![failing.address]);
    let reply = bench.udp(&query("example.org.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_not_taken() {
    let upstream = Upstream::start(Manner::Spoofed).await;
    let bench = Bench::start(vec![upstream.address]);
    let reply = bench.udp(&query("example.org.", RecordType::A)).await;
    assert_eq!(addresses(&reply), ["192.0.2.1"]);
}

#[tokio::test]
async fn external_names_are_followed_to_their_addresses() {
    let upstream = Upstream::start(Manner::Answer).await;
    let bench = Bench::start(vec![upstream.address]);
    let reply = bench
        .udp(&query("outside.default.svc.", RecordType::A))
        .await;
    assert_eq!(reply.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(reply.answers[1].name.to_ascii(), "www.example.org.");
    assert_eq!(addresses(&reply), ["192.0.2.1"]);
    bench.handle.set_upstream(vec![]);
    let reply = bench
        .udp(&query("outside.default.svc.", RecordType::A))
        .await;
    assert_eq!(
        (reply.answers.len(), reply.metadata.response_code),
        (1, ResponseCode::NoError)
    );
}

#[tokio::test]
async fn an_added_domain_is_answered_from_the_mirror_and_never_asked_outside() {
    let upstream = Upstream::start(Manner::Answer).await;
    let bench = Bench::start(vec![upstream.address]);
    let question = query("www.dns.com.", RecordType::A);
    assert_eq!(addresses(&bench.udp(&question).await), ["192.0.2.1"]);
    let domains = crate::dns::SharedDomains::default();
    let zone = Zone::new("cluster.local").unwrap();
    bench.handle.set_zone(zone.with_domains(domains.clone()));
    let custom = crate::dns::CustomDomain {
        domain: "www.dns.com".parse().unwrap(),
        service: crate::catalog::samples::key("default", "echo"),
        port: None,
    };
    domains.set(crate::dns::DomainTable::new(vec![custom], vec![]));
    let reply = bench.udp(&question).await;
    assert_eq!(addresses(&reply), ["10.96.0.7"]);
    assert!(reply.metadata.authoritative && reply.answers[0].ttl <= 5);
    for record_type in [RecordType::AAAA, RecordType::HTTPS, RecordType::TXT] {
        let reply = bench.udp(&query("www.dns.com.", record_type)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.answers.is_empty());
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    }
    domains.set(crate::dns::DomainTable::default());
    assert_eq!(addresses(&bench.udp(&question).await), ["192.0.2.1"]);
}

#[tokio::test]
async fn we_never_ask_ourselves() {
    let bench = Bench::start(vec![]);
    bench.handle.set_upstream(vec![bench.udp, bench.tcp]);
    let question = query("example.org.", RecordType::A);
    assert_eq!(
        bench.udp(&question).await.metadata.response_code,
        ResponseCode::Refused
    );

    // A forwarded question that something on the machine has turned round to us: its source is the
    // socket from which we sent it.
    let upstream = Upstream::start(Manner::Answer).await;
    bench.handle.set_upstream(vec![upstream.address]);
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let forwarder = bench.handle.shared.forwarder.clone();
    let mut own = Some(forwarder.register(socket.local_addr().unwrap()));
    let mut buffer = [0; 512];
    for expected in [ResponseCode::Refused, ResponseCode::NoError] {
        socket
            .send_to(&question.to_vec().unwrap(), bench.udp)
            .await
            .unwrap();
        let length = timeout(PATIENCE, socket.recv(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        let reply = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(reply.metadata.response_code, expected);
        own.take();
    }
}

#[tokio::test]
async fn a_circle_through_another_server_ends() {
    let bench = Bench::start(vec![]);
    let relay = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let relay = Arc::new(relay.unwrap());
    bench.handle.set_upstream(vec![relay.local_addr().unwrap()]);
    // It has nobody to ask but the one that asks it.
    let (circles, server) = (Arc::new(AtomicUsize::new(0)), bench.udp);
    let counter = circles.clone();
    let _relay = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = relay.recv_from(&mut buffer).await.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
            let (relay, query) = (relay.clone(), buffer[..length].to_vec());
            tokio::spawn(async move {
                let answer = exchange(server, &query).await;
                relay.send_to(&answer, from).await.unwrap();
            });
        }
    }));
    let reply = bench.udp(&query("example.org.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let circles = circles.load(Ordering::Relaxed);
    assert!((1..=256).contains(&circles), "{circles}");
    let reply = bench.udp(&query("echo.default.svc.", RecordType::A)).await;
    assert_eq!(addresses(&reply), ["10.96.0.7"]);
}

#[tokio::test]
async fn a_stopped_server_has_closed_its_sockets() {
    let bench = Bench::start(vec![]);
    let (udp, tcp) = (bench.udp, bench.tcp);
    assert!(bench.handle.is_running());
    bench.handle.stop().await;
    UdpSocket::bind(udp).unwrap();
    assert!(tokio::net::TcpStream::connect(tcp).await.is_err());
}
