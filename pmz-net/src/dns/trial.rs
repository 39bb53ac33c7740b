//! Bytes as they may come in a datagram or on a connection are taken through what reads queries, and what is said to them
//! is read again: by the server, and in a captured query's server's place. Nothing is sent anywhere.
#![allow(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use tokio::runtime::Runtime;

use super::captured::refusal::servfail;
use super::{Clients, CustomDomain, DnsConfig, DnsServer, DomainTable, SharedDomains, Zone};
use crate::catalog::samples::{cluster_ip, endpoint, external, headless, key};
use crate::catalog::{SharedMirror, Snapshot};
use crate::dns::server::DnsHandle;

/// The largest datagram that is ever sent.
const DATAGRAM: usize = 4096;

/// For cargo-fuzz: takes one message through all of it.
///
/// # Panics
/// Where what is said to it is wrong.
#[cfg(fuzzing)]
pub fn try_message(bytes: &[u8]) {
    thread_local!(static BENCH: Bench = Bench::new());
    BENCH.with(|bench| bench.play(bytes, &mut HashSet::new()));
}

/// A server without sockets and without anybody to ask.
pub(crate) struct Bench {
    runtime: Runtime,
    handle: DnsHandle,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let mut many = headless("default", "many", &[]);
        many.endpoints = (0..200)
            .map(|last| endpoint(&format!("10.244.1.{last}")))
            .collect();
        let services = vec![
            cluster_ip("default", "echo", &["10.96.0.7", "fd00:96::7"], &[]),
            external("default", "alias", "many.default.svc.cluster.local"),
            many,
        ];
        let mirror = SharedMirror::new();
        let snapshot = Snapshot {
            version: 1,
            services,
        };
        mirror.apply_snapshot(snapshot).unwrap();
        let domains = SharedDomains::default();
        let custom = CustomDomain {
            domain: "*.shop.test".parse().unwrap(),
            service: key("default", "echo"),
            port: None,
        };
        domains.set(DomainTable::new(vec![custom], vec![]));
        let config = DnsConfig {
            // Short names would be asked of the outside first.
            zone: Zone::new("cluster.local")
                .unwrap()
                .with_short_names(false)
                .with_reverse(vec!["10.96.0.0/16".parse().unwrap()])
                .with_domains(domains),
            upstream: vec![],
            clients: Clients::Anybody,
        };
        let handle =
            runtime.block_on(async { DnsServer::start(vec![], vec![], mirror, config).unwrap() });
        Self { runtime, handle }
    }

    /// Takes a message through all of it, notes the situations that it leads to, and gives the number of operations.
    ///
    /// # Panics
    /// Where what is said to it is wrong.
    pub(crate) fn play(&self, bytes: &[u8], seen: &mut HashSet<u64>) -> u64 {
        let [client, nobody] = [4242, 1].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let said = self.runtime.block_on(async {
                let request = Request::from_bytes(bytes.to_vec(), client, protocol).ok()?;
                if request.metadata.message_type == MessageType::Response {
                    return None;
                }
                let reply = self.handle.shared.answer(&request).await;
                Some(reply.encode(&request).expect("no bytes"))
            });
            seen.insert(situation("server", protocol, bytes, said.as_deref()));
            let said = self
                .handle
                .shared
                .answer_in_place_of(nobody, bytes, client, protocol);
            let said = self.runtime.block_on(said);
            seen.insert(situation("captured", protocol, bytes, said.as_deref()));
        }
        if let Some(refusal) = servfail(bytes) {
            check(Protocol::Udp, bytes, &refusal);
        }
        1
    }
}

/// What is alike about messages, and answers to them. They are checked before.
fn situation(by: &str, protocol: Protocol, asked: &[u8], said: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    by.hash(&mut hasher);
    match said {
        None => {
            // Without what it says of the bytes themselves.
            let reason = Message::from_vec(asked).err().map(|error| {
                let text = error.to_string();
                let words = text.split(' ').take(3).map(str::to_owned);
                words.collect::<Vec<_>>()
            });
            reason.hash(&mut hasher);
        }
        Some(said) => {
            let answer = check(protocol, asked, said);
            let metadata = &answer.metadata;
            u16::from(metadata.response_code).hash(&mut hasher);
            (metadata.truncation, metadata.authoritative).hash(&mut hasher);
            u8::from(metadata.op_code).hash(&mut hasher);
            answer.edns.is_some().hash(&mut hasher);
            for records in [&answer.answers, &answer.authorities, &answer.additionals] {
                records.len().min(3).hash(&mut hasher);
                let of = records.last().map(|record| u16::from(record.record_type()));
                of.hash(&mut hasher);
            }
            let of = answer.queries.first().map(|query| {
                let known = match query.query_type() {
                    RecordType::Unknown(_) => 0,
                    known => u16::from(known),
                };
                (query.name().iter().count().min(8), known)
            });
            of.hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Reads an answer, and finds it one to that message.
fn check(protocol: Protocol, asked: &[u8], said: &[u8]) -> Message {
    let answer = Message::from_vec(said).expect("unreadable");
    let asked = Message::from_vec(asked).ok();
    assert_eq!(
        answer.metadata.message_type,
        MessageType::Response,
        "no response"
    );
    let Some(asked) = asked else {
        assert!(answer.answers.is_empty(), "answers to what can't be read");
        return answer;
    };
    assert_eq!(answer.metadata.id, asked.metadata.id, "another id");
    assert_eq!(
        answer.metadata.op_code, asked.metadata.op_code,
        "another operation"
    );
    if answer.queries.is_empty() {
        // There is none that could be repeated.
        assert!(answer.answers.is_empty(), "answers to no question");
        assert_ne!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "no question, no error"
        );
    } else {
        let names = |message: &Message| {
            let names = message.queries.iter().map(|query| query.name().to_string());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(&answer), names(&asked), "another name, or letters");
        assert_eq!(answer.queries, asked.queries, "another question");
    }
    if let Some(record) = answer.answers.first() {
        assert_eq!(
            &record.name,
            asked.queries[0].name(),
            "another name's records"
        );
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "records of an error"
        );
    }
    if let Some(edns) = &answer.edns {
        assert!(asked.edns.is_some(), "EDNS that nobody has asked for");
        assert_eq!(edns.version(), 0, "a version that there is not");
    }
    if protocol == Protocol::Udp {
        let edns = asked.edns.as_ref();
        let payload = edns.map_or(512, |edns| usize::from(edns.max_payload().max(512)));
        assert!(
            said.len() <= payload.min(DATAGRAM),
            "too long: {}",
            said.len()
        );
    }
    answer
}
