//! What collides on a machine, found by the helper in network namespaces of the tests' own, and held against
//! what the kernel does.
#![allow(clippy::unwrap_used)]

mod bench;
mod limits;
mod netns;
mod routes;
mod rules;

/// Whose packets the helper looks after.
pub(crate) const USER: u32 = 1000;
pub(crate) const SERVICES: &str = "10.96.0.0/16";
pub(crate) const SERVICES6: &str = "fd00:10:96::/108";
pub(crate) const BENCH: (&str, &str) = ("240.64.0.2", "fd70:6d7a::2");
