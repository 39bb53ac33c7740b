//! Tests that can't run on this machine.

use std::io::Write;

/// Says that a test is skipped, and why. It goes straight to stderr: what a test that passes prints by macros
/// the test harness keeps to itself, and nobody would know.
pub fn skipped(test: &str, why: &str) {
    // Where there is no stderr nobody reads it.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
