//! The in-cluster end of pmz: it lets sessions in through its control port, answers their tunnels, and
//! dials for them. It needs no capability, and of Kubernetes only to watch services.

mod addresses;
mod args;
mod control;
mod egress;
mod guard;
mod probe;
mod run;
mod sessions;
pub mod watch;

pub use args::Args;
pub use probe::{ProbeArgs, probe};
pub use run::run;

/// The control port, on the pod's loopback: the way in is the API server's port-forward.
pub const CONTROL_PORT: u16 = 7600;
/// The UDP port of WireGuard.
pub const TUNNEL_PORT: u16 = 51820;
