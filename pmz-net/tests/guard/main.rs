//! The guard before the tunnel's UDP socket: on single frames made by hand, and between network namespaces of the
//! test's own. Needs root; else it says `skipped:`.

#![allow(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod flood;
mod frames;
#[path = "../common/gone.rs"]
mod gone;
mod live;
mod net;
mod traces;
mod verdicts;
