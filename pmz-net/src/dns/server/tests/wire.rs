//! Messages as they come and go: sizes, many at once, letter case, what is none, and who may ask.

use std::net::Ipv6Addr;

use super::*;
use crate::dns::malformed::{self, ID, Wanted};

/// Between the query that gets no answer and the one behind it, which does.
const NEXT: [u8; 2] = [0x70, 0x6e];

#[tokio::test]
async fn what_is_no_query_gets_an_error_or_nothing_and_the_next_one_its_answer() {
    let bench = Bench::start(vec![]);
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let socket = socket.unwrap();
    socket.connect(bench.udp).await.unwrap();
    let mut stream = bench.connect().await;
    let mut next = query("echo.default.svc.", RecordType::A);
    next.metadata.id = u16::from_be_bytes(NEXT);
    for (what, bytes, wanted) in malformed::queries() {
        socket.send(&bytes).await.unwrap();
        socket.send(&next.to_vec().unwrap()).await.unwrap();
        send_tcp_bytes(&mut stream, &bytes).await;
        send_tcp(&mut stream, &next).await;
        let answers = match wanted {
            Wanted::Code(_) => 2,
            Wanted::Silence => 1,
        };
        let (mut by_udp, mut by_tcp) = (Vec::new(), Vec::new());
        for _ in 0..answers {
            let mut buffer = [0; 512];
            let receiving = timeout(PATIENCE, socket.recv(&mut buffer));
            let length = receiving.await.expect(what).unwrap();
            by_udp.push(Message::from_vec(&buffer[..length]).expect(what));
            let receiving = timeout(PATIENCE, receive_tcp(&mut stream));
            by_tcp.push(receiving.await.expect(what));
        }
        for mut answers in [by_udp, by_tcp] {
            // Datagrams are answered in whatever order.
            answers.sort_by_key(|answer| answer.metadata.id);
            let last = answers.pop().expect(what);
            assert_eq!(last.metadata.id, next.metadata.id, "{what}");
            assert_eq!(addresses(&last), ["10.96.0.7"], "{what}");
            let Some(answer) = answers.pop() else {
                continue;
            };
            let metadata = &answer.metadata;
            assert_eq!(metadata.id, u16::from_be_bytes(ID), "{what}");
            assert_eq!(metadata.message_type, MessageType::Response, "{what}");
            let Wanted::Code(code) = wanted else {
                panic!("{what}: {answer}");
            };
            // By its number: 16 has another name elsewhere (RFC 8945).
            assert_eq!(u16::from(metadata.response_code), u16::from(code), "{what}");
            assert!(answer.answers.is_empty(), "{what}");
            if code == ResponseCode::BADVERS {
                // With the highest version there is (RFC 6891, section 6.1.3).
                assert_eq!(answer.edns.as_ref().map(Edns::version), Some(0), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_behind_a_query_does_not_matter() {
    let bench = Bench::start(vec![]);
    let mut bytes = query("echo.default.svc.", RecordType::A).to_vec().unwrap();
    bytes.extend([0xff; 40]);
    let reply = Message::from_vec(&exchange(bench.udp, &bytes).await).unwrap();
    assert_eq!(addresses(&reply), ["10.96.0.7"]);
}

#[tokio::test]
async fn answers_fit_into_what_the_client_can_take() {
    let bench = Bench::start(vec![]);
    let question = query("many.default.svc.", RecordType::A);
    let plain = exchange(bench.udp, &question.to_vec().unwrap()).await;
    assert!(plain.len() <= 512);
    let reply = Message::from_vec(&plain).unwrap();
    assert!(reply.metadata.truncation && reply.edns.is_none());
    assert!(!reply.answers.is_empty());

    // Less than 512 is taken for 512 (RFC 6891, section 6.2.5).
    for payload in [0, 511, 512, 1232, 1400] {
        let asked = with_payload(&question, payload);
        let extended = exchange(bench.udp, &asked).await;
        assert!(extended.len() <= usize::from(payload.max(512)), "{payload}");
        let reply = Message::from_vec(&extended).unwrap();
        assert!(
            reply.metadata.truncation && reply.edns.is_some(),
            "{payload}"
        );
    }
    let reply = bench.udp(&with_edns(question.clone(), 4096)).await;
    assert_eq!(
        (addresses(&reply).len(), reply.metadata.truncation),
        (100, false)
    );
    let reply = bench.tcp(&question).await;
    assert_eq!(
        (addresses(&reply).len(), reply.metadata.truncation),
        (100, false)
    );
}

#[tokio::test]
async fn no_datagram_is_larger_than_ours_may_be_whatever_the_client_can_take() {
    let bench = Bench::start(vec![]);
    let question = query("many.default.svc.", RecordType::SRV);
    let reply = exchange(bench.udp, &with_payload(&question, u16::MAX)).await;
    assert!(reply.len() <= 4096, "{}", reply.len());
    let reply = Message::from_vec(&reply).unwrap();
    assert!(reply.metadata.truncation && reply.edns.is_some());
    let reply = bench.tcp(&question).await;
    let counts = (reply.answers.len(), reply.additionals.len());
    assert_eq!((counts, reply.metadata.truncation), ((100, 100), false));
}

#[tokio::test]
async fn only_answers_that_are_missing_are_told_of_and_edns_is_always_there() {
    let bench = Bench::start(vec![]);
    let mut few = headless("default", "few", &[]);
    few.endpoints = (0..20)
        .map(|last| endpoint(&format!("10.244.2.{last}")))
        .collect();
    let services = vec![few];
    let snapshot = Snapshot {
        version: 2,
        services,
    };
    bench.mirror.apply_snapshot(snapshot).unwrap();
    let question = query("few.default.svc.", RecordType::SRV);
    let (mut without_additionals, mut truncated, mut whole) = (0, 0, 0);
    for payload in (512..2400).step_by(13) {
        let bytes = exchange(bench.udp, &with_payload(&question, payload)).await;
        assert!(bytes.len() <= usize::from(payload));
        let reply = Message::from_vec(&bytes).unwrap();
        assert!(reply.edns.is_some(), "{payload}");
        assert_eq!(
            reply.metadata.truncation,
            reply.answers.len() < 20,
            "{payload}"
        );
        match (reply.metadata.truncation, reply.additionals.len()) {
            (true, 0) => truncated += 1,
            (false, 0) => without_additionals += 1,
            (false, 20) => whole += 1,
            other => panic!("{payload}: {other:?}"),
        }
    }
    assert!(truncated > 0 && without_additionals > 0 && whole > 0);
}

#[tokio::test]
async fn a_hundred_questions_at_once_on_one_connection_are_all_answered() {
    let upstream = Upstream::start(Manner::Answer).await;
    let bench = Bench::start(vec![upstream.address]);
    let names = ["echo.default.svc.", "nobody.default.svc.", "example.org."];
    let questions: Vec<_> = (0..100)
        .map(|id| {
            let mut question = query(names[usize::from(id) % 3], RecordType::A);
            question.metadata.id = id;
            question
        })
        .collect();
    let mut framed = Vec::new();
    for question in &questions {
        let bytes = question.to_vec().unwrap();
        framed.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
        framed.extend(bytes);
    }
    let mut stream = bench.connect().await;
    stream.write_all(&framed).await.unwrap();
    let mut heard = std::collections::HashSet::new();
    for _ in &questions {
        let reply = timeout(PATIENCE, receive_tcp(&mut stream)).await.unwrap();
        let id = reply.metadata.id;
        assert_eq!(reply.queries, questions[usize::from(id)].queries);
        match id % 3 {
            0 => assert_eq!(addresses(&reply), ["10.96.0.7"]),
            1 => assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain),
            _ => assert_eq!(addresses(&reply), ["192.0.2.1"]),
        }
        heard.insert(id);
    }
    assert_eq!(heard.len(), 100);
}

#[tokio::test]
async fn letter_case_is_as_it_was_asked_whoever_answers() {
    let upstream = Upstream::start(Manner::Answer).await;
    let bench = Bench::start(vec![upstream.address]);
    for name in [
        "eChO.dEfAuLt.SvC.",
        "NoBoDy.default.sVC.",
        "mAnY.default.SVC.cluster.LOCAL.",
        "wWw.ExAmPlE.oRg.",
        "a.B.c.D.e.SVC.",
    ] {
        let question = query(name, RecordType::A);
        for reply in [bench.udp(&question).await, bench.tcp(&question).await] {
            assert_eq!(reply.queries[0].name().to_ascii(), name);
            let mut answers = reply.answers.iter();
            assert!(
                answers.all(|record| record.name.to_ascii() == name),
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn any_is_answered_with_one_kind_of_records_by_udp_and_tcp() {
    let bench = Bench::start(vec![]);
    let question = query("both.default.svc.", RecordType::ANY);
    for reply in [bench.udp(&question).await, bench.tcp(&question).await] {
        assert_eq!(reply.answers.len(), 1);
        assert_eq!(addresses(&reply), ["10.96.0.8"]);
    }
}

#[tokio::test]
async fn strangers_are_refused() {
    let question = query("echo.default.svc.", RecordType::A);
    let networks = |net: &str| Clients::Networks(vec![net.parse().unwrap()]);
    for (clients, wanted) in [
        (networks("10.64.0.0/16"), ResponseCode::Refused),
        // Of the other family none is named, so none may ask.
        (networks("fd00::/8"), ResponseCode::Refused),
        (networks("127.0.0.0/8"), ResponseCode::NoError),
        (Clients::Machine, ResponseCode::NoError),
    ] {
        let upstream = Upstream::start(Manner::Answer).await;
        let bench = Bench::with(vec![upstream.address], clients.clone());
        let outside = query("example.org.", RecordType::A);
        for question in [&question, &outside] {
            for reply in [bench.udp(question).await, bench.tcp(question).await] {
                assert_eq!(reply.metadata.response_code, wanted, "{clients:?}");
                assert_eq!(reply.answers.is_empty(), wanted == ResponseCode::Refused);
            }
        }
    }
}

#[tokio::test]
async fn clients_of_one_family_do_not_open_the_server_to_the_other() {
    let bench = Bench::start(vec![]);
    let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let server = socket.local_addr().unwrap();
    let config = DnsConfig {
        zone: Zone::new("cluster.local").unwrap(),
        upstream: vec![],
        clients: Clients::Networks(vec!["127.0.0.0/8".parse().unwrap()]),
    };
    let _handle = DnsServer::start(vec![socket], vec![], bench.mirror.clone(), config).unwrap();
    let client = tokio::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).await;
    let client = client.unwrap();
    let question = query("echo.default.svc.", RecordType::A);
    let asked = client.send_to(&question.to_vec().unwrap(), server).await;
    asked.unwrap();
    let mut buffer = [0; 512];
    let received = timeout(PATIENCE, client.recv(&mut buffer)).await.unwrap();
    let reply = Message::from_vec(&buffer[..received.unwrap()]).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn two_servers_that_refuse_each_other_do_not_go_on_with_it() {
    let bench = Bench::with(
        vec![],
        Clients::Networks(vec!["10.64.0.0/16".parse().unwrap()]),
    );
    let client = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let client = client.unwrap();
    client.connect(bench.udp).await.unwrap();
    // What the other one says to a query with a forged address, and then a query.
    let mut refusal = query("echo.default.svc.", RecordType::A);
    refusal.metadata.message_type = MessageType::Response;
    refusal.metadata.response_code = ResponseCode::Refused;
    let question = query("echo.default.svc.", RecordType::A);
    for message in [&refusal, &question] {
        client.send(&message.to_vec().unwrap()).await.unwrap();
    }
    let mut buffer = [0; 512];
    let received = timeout(PATIENCE, client.recv(&mut buffer)).await.unwrap();
    let reply = Message::from_vec(&buffer[..received.unwrap()]).unwrap();
    assert_eq!(reply.metadata.id, question.metadata.id);
}

/// With EDNS that says so, also less than hickory would say.
fn with_payload(question: &Message, payload: u16) -> Vec<u8> {
    let mut bytes = with_edns(question.clone(), 512).to_vec().unwrap();
    // The record's class, before its TTL and the length of its data.
    let at = bytes.len() - 8;
    bytes[at..at + 2].copy_from_slice(&payload.to_be_bytes());
    bytes
}

async fn send_tcp_bytes(stream: &mut tokio::net::TcpStream, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap();
    stream.write_u16(length).await.unwrap();
    stream.write_all(bytes).await.unwrap();
}
