//! The control protocol between a client and an agent.
//!
//! It runs over a byte stream that somebody else has authenticated (a Kubernetes port-forward). Each
//! message is a frame: its length as a 32-bit big-endian number, then that many bytes of JSON.
//! The client speaks first, with [`Open`]; the agent answers with [`Answer`]. After that a control
//! connection carries [`ToClient`] and [`ToAgent`] messages, a carrier connection carries WireGuard
//! messages framed by `carrier::stream`.

pub mod codec;
mod message;

pub use message::{
    Answer, Capability, Found, Hello, Network, Networks, Open, PROTOCOL, Refusal, RefusalReason,
    ToAgent, ToClient, Welcome,
};

/// The largest frame: a catalog of some 20,000 services.
pub const MAX_FRAME: usize = 16 << 20;
/// The largest frame before the other end has said who it is.
pub const MAX_OPEN_FRAME: usize = 16 << 10;
