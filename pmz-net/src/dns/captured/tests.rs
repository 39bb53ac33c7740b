//! Clients that ask at the addresses to which they would be led, and servers that they mean.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::DropGuard;

use super::*;
use crate::catalog::samples::{cluster_ip, endpoint, headless, key};
use crate::catalog::{SharedMirror, Snapshot};
use crate::dns::{Clients, CustomDomain, DnsConfig, DnsServer, DomainTable, SharedDomains, Zone};

mod wire;

const PATIENCE: Duration = Duration::from_secs(10);
const SHORTLY: Duration = Duration::from_millis(300);
const SLOT: Slot = Slot(0x0102);

struct One(SocketAddr);

#[async_trait::async_trait]
impl Servers for One {
    async fn server(&self, slot: Slot) -> Option<SocketAddr> {
        (slot == SLOT).then_some(self.0)
    }
}

struct Bench {
    serving: Option<DropGuard>,
    handle: DnsHandle,
    mirror: SharedMirror,
    udp: SocketAddr,
    tcp: SocketAddr,
}

impl Bench {
    /// Queries to [`SLOT`] mean this server.
    fn start(server: SocketAddr) -> Self {
        let mirror = SharedMirror::new();
        let mut many = headless("dev", "many", &[]);
        many.endpoints = (0..100)
            .map(|last| endpoint(&format!("10.244.1.{last}")))
            .collect();
        let services = vec![cluster_ip("dev", "shopify", &["10.96.0.7"], &[]), many];
        mirror
            .apply_snapshot(Snapshot {
                version: 1,
                services,
            })
            .unwrap();
        let config = DnsConfig {
            zone: Zone::new("cluster.local").unwrap(),
            upstream: vec![],
            clients: Clients::Anybody,
        };
        let handle = DnsServer::start(vec![], vec![], mirror.clone(), config).unwrap();
        let sockets = CaptureSockets::open(false).unwrap();
        let at = |port| SocketAddr::from((Slots::v4_address(SLOT), port));
        let mut bench = Self {
            serving: None,
            mirror,
            udp: at(sockets.v4.0.local_addr().unwrap().port()),
            tcp: at(sockets.v4.1.local_addr().unwrap().port()),
            handle,
        };
        let captured = CapturedQueries {
            sockets,
            slots: Slots::new(None),
            servers: Arc::new(One(server)),
        };
        bench.serving = Some(bench.handle.serve_captured(captured).unwrap());
        bench
    }

    async fn client(&self) -> UdpSocket {
        let socket = local().await;
        socket.connect(self.udp).await.unwrap();
        socket
    }

    async fn ask(&self, query: &[u8]) -> Vec<u8> {
        let client = self.client().await;
        client.send(query).await.unwrap();
        heard(&client).await
    }
}

async fn local() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

async fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    buffer[..length].to_vec()
}

async fn silence(socket: &UdpSocket) {
    let heard = timeout(SHORTLY, socket.recv(&mut [0; 512])).await;
    assert!(heard.is_err(), "{heard:?}");
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    // As it is: parsing would make the letters small.
    let name = Name::from_ascii(name).unwrap();
    message.add_query(Query::query(name, RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.edns = Some(edns);
    message.to_vec().unwrap()
}

fn code(answer: &[u8]) -> ResponseCode {
    Message::from_vec(answer).unwrap().metadata.response_code
}

async fn send_tcp(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.write_all(message).await.unwrap();
}

async fn heard_tcp(stream: &mut TcpStream) -> Vec<u8> {
    let read = async {
        let length = stream.read_u16().await.unwrap();
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.unwrap();
        message
    };
    timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test]
async fn a_name_of_the_cluster_is_answered_in_the_servers_place() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    for name in ["shopify.dev.svc.cluster.local.", "shopify.dev.svc."] {
        let answer = Message::from_vec(&bench.ask(&query(name)).await).unwrap();
        let data: Vec<_> = answer
            .answers
            .iter()
            .map(|it| it.data.to_string())
            .collect();
        assert_eq!(data, ["10.96.0.7"], "{name}");
        assert_eq!(answer.metadata.id, 0x1234);
    }
    let nobody = bench.ask(&query("nobody.dev.svc.cluster.local.")).await;
    assert_eq!(code(&nobody), ResponseCode::NXDomain);
    silence(&server).await;
}

#[tokio::test]
async fn all_else_goes_to_the_server_and_back_byte_for_byte() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    let client = bench.client().await;
    let large = vec![0xa5; 60_000];
    for (sent, back) in [
        (query("wWw.ExAmPlE.OrG."), b"an answer, so to say".to_vec()),
        (b"no DNS at all".to_vec(), large),
        (vec![], vec![0]),
    ] {
        client.send(&sent).await.unwrap();
        let mut buffer = vec![0; 512];
        let receiving = server.recv_from(&mut buffer);
        let (length, from) = timeout(PATIENCE, receiving).await.unwrap().unwrap();
        assert_eq!(&buffer[..length], sent);
        server.send_to(&back, from).await.unwrap();
        assert_eq!(heard(&client).await, back);
    }
}

#[tokio::test]
async fn a_server_that_is_slow_is_waited_for_and_nothing_is_said_in_its_place() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    let client = bench.client().await;
    client.send(&query("www.example.org.")).await.unwrap();
    let mut buffer = [0; 512];
    let (_, from) = server.recv_from(&mut buffer).await.unwrap();
    silence(&client).await;
    client.send(&query("www.example.org.")).await.unwrap();
    let (_, again) = server.recv_from(&mut buffer).await.unwrap();
    assert_eq!(from, again, "one client's queries come from one socket");
    for answer in [b"first", b"later"] {
        server.send_to(answer, from).await.unwrap();
        assert_eq!(heard(&client).await, answer);
    }
}

#[tokio::test]
async fn where_nobody_is_at_the_servers_port_the_client_hears_so_at_once() {
    let gone = local().await.local_addr().unwrap();
    let bench = Bench::start(gone);
    let begun = Instant::now();
    let client = bench.client().await;
    for _ in 0..3 {
        client.send(&query("www.example.org.")).await.unwrap();
        assert_eq!(code(&heard(&client).await), ResponseCode::ServFail);
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn of_queries_one_after_another_each_hears_that_nobody_is_at_the_servers_port() {
    let gone = local().await.local_addr().unwrap();
    let bench = Bench::start(gone);
    for _ in 0..20 {
        let client = bench.client().await;
        // As libc asks: for both families at once.
        for name in ["a.example.org.", "b.example.org."] {
            client.send(&query(name)).await.unwrap();
        }
        let mut refused = Vec::new();
        for _ in 0..2 {
            let answer = Message::from_vec(&heard(&client).await).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
            refused.push(answer.queries[0].name().to_ascii());
        }
        refused.sort();
        assert_eq!(refused, ["a.example.org.", "b.example.org."]);
    }
}

#[tokio::test]
async fn while_the_tunnel_is_away_cluster_names_fail_at_once_and_others_do_not() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    bench.mirror.mark_stale();
    let begun = Instant::now();
    let answer = bench.ask(&query("shopify.dev.svc.cluster.local.")).await;
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(begun.elapsed() < SHORTLY);
    let client = bench.client().await;
    client.send(&query("www.example.org.")).await.unwrap();
    let (_, from) = server.recv_from(&mut [0; 512]).await.unwrap();
    server.send_to(b"as ever", from).await.unwrap();
    assert_eq!(heard(&client).await, b"as ever");
}

/// Answers each query with this, and with an address where it is no error.
async fn outside(server: UdpSocket, code: ResponseCode) {
    outside_of(server, code, |record_type| record_type == RecordType::A).await;
}

/// As [`outside`], with an address for questions of some types alone.
async fn outside_of(server: UdpSocket, code: ResponseCode, has: impl Fn(RecordType) -> bool) {
    let mut buffer = [0; 512];
    loop {
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        let mut answer = Message::from_vec(&buffer[..length]).unwrap();
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.response_code = code;
        if code == ResponseCode::NoError && has(answer.queries[0].query_type()) {
            let name: Name = answer.queries[0].name().clone();
            let data = RData::A(Ipv4Addr::new(198, 51, 100, 7).into());
            answer.add_answer(Record::from_rdata(name, 60, data));
        }
        server
            .send_to(&answer.to_vec().unwrap(), from)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_name_and_its_namespace_alone_mean_the_outside_where_it_has_such_a_name() {
    for (has, address) in [
        (ResponseCode::NoError, "198.51.100.7"),
        (ResponseCode::NXDomain, "10.96.0.7"),
    ] {
        let server = local().await;
        let bench = Bench::start(server.local_addr().unwrap());
        let server = tokio::spawn(outside(server, has));
        let answer = Message::from_vec(&bench.ask(&query("shopify.dev.")).await).unwrap();
        assert_eq!(answer.answers[0].data.to_string(), address);
        server.abort();
    }
}

fn ask_for(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name.parse().unwrap(), record_type));
    message.to_vec().unwrap()
}

#[tokio::test]
async fn a_bare_name_is_the_outsides_where_it_leads_anywhere_there_and_the_services_else() {
    use ResponseCode::{NXDomain, NoError};
    let everything = |_| true;
    let v4 = |it| it == RecordType::A;
    let nothing = |_| false;
    for (code, has, asked, expected) in [
        (
            NXDomain,
            everything as fn(_) -> _,
            RecordType::A,
            "10.96.0.7",
        ),
        (NoError, v4 as fn(_) -> _, RecordType::A, "198.51.100.7"),
        // As top-level domains are.
        (NoError, nothing as fn(_) -> _, RecordType::A, "10.96.0.7"),
        // The other half of the name is the outside's.
        (NoError, v4 as fn(_) -> _, RecordType::AAAA, ""),
    ] {
        let server = local().await;
        let bench = Bench::start(server.local_addr().unwrap());
        let zone = Zone::new("cluster.local").unwrap();
        bench
            .handle
            .set_zone(zone.with_search(vec!["dev".to_owned()]));
        let server = tokio::spawn(outside_of(server, code, has));
        let said = bench.ask(&ask_for("shopify.", asked)).await;
        let said = Message::from_vec(&said).unwrap();
        let data: Vec<_> = said.answers.iter().map(|it| it.data.to_string()).collect();
        assert_eq!(data.join(" "), expected, "{code} {asked}");
        assert_eq!(said.metadata.response_code, NoError, "{code} {asked}");
        server.abort();
    }
}

#[tokio::test]
async fn localhost_and_bare_names_of_nobody_go_to_the_server_as_they_are() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    let zone = Zone::new("cluster.local").unwrap();
    bench
        .handle
        .set_zone(zone.with_search(vec!["dev".to_owned()]));
    for name in ["localhost.", "printer."] {
        let client = bench.client().await;
        let sent = query(name);
        client.send(&sent).await.unwrap();
        let mut buffer = [0; 512];
        let receiving = server.recv_from(&mut buffer);
        let (length, from) = timeout(PATIENCE, receiving).await.unwrap().unwrap();
        assert_eq!(&buffer[..length], sent, "{name}");
        server.send_to(b"as ever", from).await.unwrap();
        assert_eq!(heard(&client).await, b"as ever");
    }
}

#[tokio::test]
async fn a_name_that_the_user_leads_to_a_service_is_the_services_though_it_looks_like_one_with_its_namespace()
 {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    let custom = CustomDomain {
        domain: "dns.com".parse().unwrap(),
        service: key("dev", "shopify"),
        port: None,
    };
    let domains = SharedDomains::default();
    domains.set(DomainTable::new(vec![custom], vec![]));
    let zone = Zone::new("cluster.local").unwrap();
    bench.handle.set_zone(zone.with_domains(domains));
    let answer = Message::from_vec(&bench.ask(&query("dns.com.")).await).unwrap();
    assert_eq!(answer.answers[0].data.to_string(), "10.96.0.7");
    silence(&server).await;
}

#[tokio::test]
async fn sockets_that_are_served_no_longer_are_closed() {
    let server = local().await;
    let mut bench = Bench::start(server.local_addr().unwrap());
    let mut connection = TcpStream::connect(bench.tcp).await.unwrap();
    send_tcp(&mut connection, &query("shopify.dev.svc.")).await;
    heard_tcp(&mut connection).await;
    drop(bench.serving.take());
    let end = timeout(PATIENCE, connection.read(&mut [0; 16])).await;
    assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
    let refused = async {
        while TcpStream::connect(bench.tcp).await.is_ok() {
            tokio::task::yield_now().await;
        }
        let client = bench.client().await;
        while client.send(&query("shopify.dev.svc.")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
}

#[tokio::test]
async fn what_was_asked_by_tcp_is_asked_by_tcp() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let bench = Bench::start(server.local_addr().unwrap());
    let mut client = TcpStream::connect(bench.tcp).await.unwrap();
    let outside = query("WWW.example.org.");
    send_tcp(&mut client, &outside).await;
    send_tcp(&mut client, &query("shopify.dev.svc.")).await;
    send_tcp(&mut client, &outside).await;
    let (mut accepted, _) = timeout(PATIENCE, server.accept()).await.unwrap().unwrap();
    let answer = heard_tcp(&mut client).await;
    assert_eq!(code(&answer), ResponseCode::NoError);
    for back in [b"one".to_vec(), vec![7; 60_000]] {
        assert_eq!(heard_tcp(&mut accepted).await, outside);
        send_tcp(&mut accepted, &back).await;
        assert_eq!(heard_tcp(&mut client).await, back);
    }
    // A zone's transfer: several messages to one question.
    send_tcp(&mut client, &outside).await;
    heard_tcp(&mut accepted).await;
    for part in [b"one", b"two", b"end"] {
        send_tcp(&mut accepted, part).await;
        assert_eq!(heard_tcp(&mut client).await, part);
    }
    drop(accepted);
    let end = timeout(PATIENCE, client.read(&mut [0; 16])).await.unwrap();
    assert!(
        matches!(end, Ok(0) | Err(_)),
        "the server has hung up: {end:?}"
    );
}

#[tokio::test]
async fn more_clients_than_there_may_be_sockets_are_served_all_the_same() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    // A server that answers none of them.
    for _ in 0..600 {
        let client = bench.client().await;
        client.send(&query("www.example.org.")).await.unwrap();
        server.recv_from(&mut [0; 512]).await.unwrap();
    }
    let client = bench.client().await;
    client.send(&query("www.example.org.")).await.unwrap();
    let (_, from) = server.recv_from(&mut [0; 512]).await.unwrap();
    server.send_to(b"the last", from).await.unwrap();
    assert_eq!(heard(&client).await, b"the last");
}

#[tokio::test]
async fn a_query_of_our_own_that_is_caught_is_dropped() {
    let server = local().await;
    let bench = Bench::start(server.local_addr().unwrap());
    let client = bench.client().await;
    let own = bench
        .handle
        .shared
        .forwarder
        .register(client.local_addr().unwrap());
    client.send(&query("shopify.dev.svc.")).await.unwrap();
    silence(&client).await;
    drop(own);
    client.send(&query("shopify.dev.svc.")).await.unwrap();
    assert_eq!(code(&heard(&client).await), ResponseCode::NoError);
}
