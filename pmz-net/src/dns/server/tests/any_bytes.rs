//! Whatever comes over the network: no panic, and either no answer or a well-formed one that fits.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::collections::HashSet;

use super::*;
use crate::dns::{CustomDomain, DomainTable, SharedDomains};

/// Each sends several datagrams.
const CASES: u32 = 64;

/// Garbage, and questions with garbage in them, which get further into the parser.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let names = [
        "echo.default.svc.",
        "*.shop.test.",
        "_http._tcp.a.shop.test.",
        "example.org.",
    ];
    let question = (
        prop::sample::select(names.to_vec()),
        any::<u16>(),
        any::<bool>(),
    );
    let question = question.prop_map(|(name, record_type, edns)| {
        let message = query(name, RecordType::from(record_type));
        let message = if edns {
            with_edns(message, 1232)
        } else {
            message
        };
        message.to_vec().unwrap()
    });
    let flips = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let mutated = (question, flips, any::<prop::sample::Index>(), any::<bool>());
    let mutated = mutated.prop_map(|(mut bytes, flips, end, cut)| {
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    });
    prop_oneof![1 => vec(any::<u8>(), 0..600), 3 => mutated]
}

fn id(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

fn domains() -> SharedDomains {
    let domains = SharedDomains::default();
    let custom = CustomDomain {
        domain: "*.shop.test".parse().unwrap(),
        service: crate::catalog::samples::key("default", "echo"),
        port: None,
    };
    domains.set(DomainTable::new(vec![custom], vec![]));
    domains
}

#[test]
fn any_datagram_gets_no_answer_or_a_well_formed_one_with_its_id() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (bench, socket) = runtime.block_on(async {
        let bench = Bench::start(vec![]);
        let zone = Zone::new("cluster.local").unwrap().with_domains(domains());
        bench.handle.set_zone(zone);
        let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let socket = socket.unwrap();
        socket.connect(bench.udp).await.unwrap();
        (bench, socket)
    });
    let sent = parking_lot::Mutex::new(HashSet::new());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        ..ProptestConfig::default()
    });
    let result = runner.run(&vec(bytes(), 1..8), |datagrams| {
        runtime.block_on(async {
            for datagram in &datagrams {
                sent.lock().extend(id(datagram));
                socket.send(datagram).await.unwrap();
            }
            // The server still serves; answers to what was sent before may come before or after.
            let last = query("echo.default.svc.", RecordType::A);
            sent.lock().insert(last.metadata.id);
            socket.send(&last.to_vec().unwrap()).await.unwrap();
            let mut buffer = [0; 4096];
            loop {
                let received = timeout(PATIENCE, socket.recv(&mut buffer)).await;
                let Ok(Ok(length)) = received else {
                    return Err(TestCaseError::fail("the server is mute"));
                };
                let answer = Message::from_vec(&buffer[..length]);
                let answer = answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(answer.metadata.message_type, MessageType::Response);
                prop_assert!(sent.lock().contains(&answer.metadata.id));
                prop_assert!(length <= 1232 || answer.edns.is_some());
                if answer.metadata.id == last.metadata.id && addresses(&answer) == ["10.96.0.7"] {
                    return Ok(());
                }
            }
        })
    });
    result.unwrap();
    runtime.block_on(bench.handle.stop());
}

#[test]
fn any_bytes_on_a_connection_end_it_at_worst() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = runtime.block_on(async { Bench::start(vec![]) });
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        ..ProptestConfig::default()
    });
    let result = runner.run(&(bytes(), any::<bool>()), |(bytes, framed)| {
        runtime.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(bench.tcp).await.unwrap();
            if framed {
                let length = u16::try_from(bytes.len()).unwrap();
                stream.write_u16(length).await.unwrap();
            }
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answers = Vec::new();
            // A connection that is reset has told nothing wrong.
            let read = timeout(PATIENCE, stream.read_to_end(&mut answers)).await;
            prop_assert!(read.is_ok(), "the connection stays open");
            if let (true, Some(message)) = (framed, answers.get(2..)) {
                let answer = Message::from_vec(message);
                let answer = answer.map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(Some(answer.metadata.id), id(&bytes));
            }
            let question = query("echo.default.svc.", RecordType::A);
            prop_assert_eq!(addresses(&bench.tcp(&question).await), ["10.96.0.7"]);
            Ok(())
        })
    });
    result.unwrap();
    runtime.block_on(bench.handle.stop());
}

proptest! {
    #[test]
    fn any_name_and_type_resolves_to_records_of_its_own_or_to_none(
        labels in vec(vec(any::<u8>(), 1..20), 0..6),
        below in prop::sample::select(vec!["svc.", "svc.cluster.local.", "shop.test.", "in-addr.arpa.", "."]),
        record_type in any::<u16>(),
    ) {
        let below = Name::from_ascii(below).unwrap();
        let labels = labels.iter().map(Vec::as_slice);
        let name = Name::from_labels(labels).unwrap().append_domain(&below);
        let Ok(name) = name else {
            return Ok(());
        };
        let mirror = SharedMirror::new();
        let services = vec![cluster_ip("default", "echo", &["10.96.0.7"], &[])];
        mirror.apply_snapshot(Snapshot { version: 1, services }).unwrap();
        let zone = Zone::new("cluster.local").unwrap().with_domains(domains());
        let answer = resolve(&mirror.read(), &zone, &name, RecordType::from(record_type));
        if let Answer::Records { answers, .. } = answer {
            prop_assert!(answers.iter().all(|record| record.name == name));
        }
    }
}
