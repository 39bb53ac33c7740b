//! Waiting for what goes with a descriptor.

use std::time::{Duration, Instant};

/// Waits until nothing is left of what this process held. The kernel takes it away with the last descriptor of it,
/// and a process that another test is just starting has copies of them all until it executes its program.
pub(crate) fn wait_until_gone(mut is_gone: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_gone() {
        assert!(Instant::now() < deadline, "it is still there");
        std::thread::yield_now();
    }
}
