//! Bytes of all kinds are taken through what reads queries, wherever the tests run. `pmz-net/fuzz` has the same for
//! cargo-fuzz.
//!
//! `PMZ_FUZZ_RUNS` sets how many messages are fed, `PMZ_DNS_SEED` another beginning, `PMZ_FUZZ_PROGRAM` one message, in
//! hexadecimal digits, as a failure prints it. For a long run:
//!
//! ```sh
//! PMZ_FUZZ_RUNS=20000000 cargo test -p pmz-net --lib \
//!     --config 'profile.dev.package.pmz-net.opt-level=3' dns::fuzz -- --nocapture
//! ```

use std::collections::HashSet;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use super::malformed;
use super::trial::Bench;
use fuzzer::{Fuzzer, number_from};

#[path = "../../tests/common/fuzzer.rs"]
mod fuzzer;

/// Messages where nothing else is said: some seconds.
const RUNS: u64 = 30_000;
/// Bytes of the longest message. Names, EDNS and some records have room.
const LONGEST: usize = 900;

#[test]
fn no_message_is_answered_with_anything_but_a_response_to_it_that_fits() {
    let bench = Bench::new();
    if let Some(bytes) = fuzzer::named() {
        bench.play(&bytes, &mut HashSet::new());
        return;
    }
    let fuzzer = Fuzzer {
        runs: number_from("PMZ_FUZZ_RUNS").unwrap_or(RUNS),
        seed: number_from("PMZ_DNS_SEED").unwrap_or(1),
        longest: LONGEST,
        kept: beginnings(),
    };
    let situations = fuzzer.run(|bytes, seen| bench.play(bytes, seen));
    assert!(situations > 300, "only {situations} situations");
}

/// Queries of all kinds.
fn beginnings() -> Vec<Vec<u8>> {
    let mut all: Vec<_> = malformed::queries()
        .into_iter()
        .map(|(_, bytes, _)| bytes)
        .collect();
    for name in [
        "echo.default.svc.cluster.local.",
        "_http._tcp.echo.default.svc.",
        "10-244-1-7.many.default.svc.",
        "many.default.svc.",
        "alias.default.svc.",
        "10-244-0-7.default.pod.cluster.local.",
        "7.0.96.10.in-addr.arpa.",
        "dns-version.cluster.local.",
        "www.shop.test.",
        "example.org.",
    ] {
        for (of, payload) in [
            (RecordType::A, 0),
            (RecordType::SRV, 1232),
            (RecordType::ANY, 512),
            (RecordType::PTR, 4096),
            (RecordType::TXT, 0),
        ] {
            let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = true;
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), of));
            if payload > 0 {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                message.set_edns(edns);
            }
            all.push(message.to_vec().unwrap());
        }
    }
    all
}
