//! Whether this machine, and whoever runs the tests, can.

use std::io::Write;

/// Whether eBPF programs and network namespaces can be made; where not, says that the test is skipped, straight
/// to stderr, past the harness that keeps what passing tests print.
pub(crate) fn allowed(test: &str) -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "it needs root"
    } else {
        match pmz_net::steer::Trial::load() {
            Ok(_) => return true,
            // Anything else is a failure, and the test will say so.
            Err(
                error @ (pmz_net::steer::SteerError::NoBpf
                | pmz_net::steer::SteerError::Permission(_)),
            ) => {
                let _ = writeln!(std::io::stderr(), "skipped: {test}: {error}");
                return false;
            }
            Err(_) => return true,
        }
    };
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
    false
}

/// Leaves the test where it can't run.
macro_rules! need_root {
    () => {
        if !crate::skip::allowed(std::thread::current().name().unwrap_or("a test")) {
            return;
        }
    };
}
pub(crate) use need_root;
