//! The TCP endpoint as its users see it: two of them over a virtual network, one against written traces, and
//! one against whatever a hostile peer may send.
//!
//! `PMZ_TCP_CASES` sets how many cases the properties try, `PMZ_FUZZ_RUNS` how many operations the fuzzer;
//! `PMZ_TCP_SEED` chooses other ones.

#![allow(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

mod fuzz;
#[path = "../common/fuzzer.rs"]
mod fuzzer;
mod hostile;
mod network;
mod properties;
mod rates;
mod traces;
mod wire;

use fuzzer::number_from;
