//! Why queries are not caught.

use std::io;

use crate::steer::SteerError;

/// Why queries are not caught.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The programs don't load, or don't get to the cgroup.
    #[error(transparent)]
    Ebpf(#[from] SteerError),
    /// There is no way to the root of the cgroups.
    #[error("there is no cgroup v2 on this machine to put eBPF programs on: {0}")]
    NoCgroup(#[source] io::Error),
    /// No place to serve at.
    #[error("open the sockets that caught DNS queries are led to: {0}")]
    Sockets(#[source] io::Error),
    /// The programs are there, and see nothing.
    #[error(
        "the eBPF programs at the cgroup do not see this process: it runs in no cgroup below ({0})"
    )]
    Unseen(String),
}
