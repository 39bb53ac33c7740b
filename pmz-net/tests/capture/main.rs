//! DNS queries caught at sockets: real sockets in network namespaces of the tests' own, below a cgroup of their own.
//! Needs root; else it says `skipped:`.

#![allow(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

#[path = "../common/mod.rs"]
mod common;

mod caught;
mod cgroup;
mod left_alone;
mod machine;
mod owner;
