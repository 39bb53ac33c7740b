//! The privileged part of pmz, as small as it can be.
//!
//! It opens the TUN, sets addresses and routes on it, binds port 53 on it, makes sockets with settings that
//! need a right, and hands the descriptors over. All else (credentials, TLS, WireGuard, DNS) is the
//! daemon's, which runs as the user. The two talk over a `SOCK_SEQPACKET` Unix socket: a message of JSON
//! each way, descriptors by `SCM_RIGHTS`. When the daemon goes, the helper undoes what does not vanish by
//! itself, and goes.

mod capture;
mod client;
mod guard;
pub mod launch;
mod message;
mod names;
mod resolv;
mod resolved;
mod runtime;
mod server;
mod sockets;
mod steering;
mod tunnel;
mod validate;
mod wire;

pub use capture::{CaptureReply, CaptureRequest, Caught};
pub use client::{HelperClient, HelperError, PreviousResolver, Tun};
pub use guard::AHEAD;
pub use message::{Answer, Claim, Family, GuardRequest, MAX_MESSAGE, Refusal, Reply, Request};
pub use names::put_back;
pub use resolv::{PutBack, machine_nameservers, nameservers_of};
pub use runtime::Paths;
pub use server::serve;
pub use steering::{MAX_BATCH, SteerReply, SteerRequest};
pub use validate::MAX_DOMAINS;
pub use wire::Channel;
