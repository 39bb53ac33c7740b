//! The mirror of the cluster's services: what the agent watches and every client holds.
//!
//! The agent makes [`Service`]s out of Services and EndpointSlices ([`builder`]); a client gets one
//! [`Snapshot`] and then [`Delta`]s through its session ([`feed`]), and looks names up in its own copy
//! ([`mirror`]).

pub mod builder;
pub mod feed;
pub mod mirror;
mod model;
#[cfg(any(test, fuzzing))]
pub(crate) mod samples;
mod shared;

pub use model::{Delta, Endpoint, Port, Protocol, Service, ServiceKey, ServiceKind, Snapshot};
pub use shared::{MirrorState, SharedMirror, View};
