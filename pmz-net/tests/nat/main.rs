//! The NAT over loopback, with a client that is a second TCP implementation: no root needed.

#![allow(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

mod client;
mod datagrams;
mod faults;
mod hands;
#[path = "../common/namespace.rs"]
mod namespace;
mod ports;
mod services;
#[path = "../common/skipped.rs"]
mod skipped;
mod tcp;
