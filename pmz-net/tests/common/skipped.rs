//! Saying that a test does not run.

use std::io::Write;

/// Says that the running test is skipped, and why: straight to stderr, past the harness that keeps what passing
/// tests print.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Where there is no stderr nobody reads it.
    let line = format!("skipped: {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
