//! Whether this machine, and whoever runs the tests, can.

use std::sync::OnceLock;

use pmz_net::steer::{SteerError, Trial};

pub(crate) use super::skipped::skipped;

/// Whether eBPF programs and network namespaces can be made; where not, says that the test is skipped.
pub(crate) fn allowed() -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let why_not = WHY_NOT.get_or_init(|| {
        if !nix::unistd::geteuid().is_root() {
            return Some("it needs root".to_owned());
        }
        match Trial::load() {
            Err(
                error @ (SteerError::NoBpf
                | SteerError::Permission(_)
                | SteerError::Lockdown { .. }),
            ) => Some(error.to_string()),
            // Any other error is a failure, and the test will say so.
            _ => None,
        }
    });
    if let Some(why) = why_not {
        skipped(why);
    }
    why_not.is_none()
}

/// Leaves the test where it can't run.
macro_rules! need_root {
    () => {
        if !crate::common::skip::allowed() {
            return;
        }
    };
}
pub(crate) use need_root;
