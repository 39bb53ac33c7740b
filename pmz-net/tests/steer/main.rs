//! The eBPF programs: on single packets made by hand, and at a TUN in a network namespace of the test's own.
//! Needs root; else it says `skipped:`.

#![allow(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/gone.rs"]
mod gone;

mod diverted;
mod diverting;
mod forwarded;
mod kernel;
mod limits;
mod live;
mod packets;
mod refusals;
mod scene;
mod sockets;
mod speed;
mod stand_ins;
mod traces;
mod translation;
mod trial;
mod verdicts;
mod verifier;
