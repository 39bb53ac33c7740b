//! What is measured of each row, and what it is called.

use super::http::Amount;

/// Requests on connections that are kept: the loads that the goals name, by hey.
pub(super) const HEY: [(&str, Amount); 3] = [
    ("hey 1000/50", amount(1000, 50)),
    ("hey 5000/100", amount(5000, 100)),
    ("hey 10000/300", amount(10_000, 300)),
];
/// A connection for each request, by hey.
pub(super) const CONNECTION_EACH: (&str, Amount) =
    ("hey 1000/50, a connection each", amount(1000, 50));
/// The loads of [`HEY`] by a client that leaves more of the processors to what is measured.
pub(super) const H2LOAD: [(&str, Amount); 3] = [
    ("h2load 1000/50", amount(1000, 50)),
    ("h2load 5000/100", amount(5000, 100)),
    ("h2load 10000/300", amount(10_000, 300)),
];

/// What a reading is called.
pub(super) const CONNECTS: &str = "new connections";
pub(super) const CPU_UP: &str = "CPU up";
pub(super) const CPU_DOWN: &str = "CPU down";
pub(super) const ERRORS: &str = "errors";
pub(super) const DISTURBED: &str = "disturbed by resets";
pub(super) const MANY_ERRORS: &str = "200,000 connections: errors";
pub(super) const MANY_RATE: &str = "200,000 connections";
pub(super) const MANY_LAST: &str = "the last tenth's rate by the first's";
pub(super) const CLIENT_GROWTH: &str = "growth of the client";
pub(super) const AGENT_GROWTH: &str = "growth of the agent";

const fn amount(requests: u64, connections: u64) -> Amount {
    Amount {
        requests,
        connections,
    }
}
