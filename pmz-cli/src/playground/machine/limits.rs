//! How many files a process may have open.

use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The soft and the hard limit as they were before [`raise_open_files`].
static BEFORE: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Lets this process have as many files open as it may: the pods' servers are in it, and the usual soft
/// limit of 1024 is less than their connections.
pub(crate) fn raise_open_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    BEFORE.get_or_init(|| (soft, hard));
    // Where that is refused the servers take fewer connections.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
}

/// The limits that programs in a machine should have, where this process has raised its own: some can't
/// cope with more than 1024 (select(2)).
pub(super) fn open_files_before() -> Option<(rlim_t, rlim_t)> {
    BEFORE.get().copied()
}
