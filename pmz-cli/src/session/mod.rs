//! A client's session with an agent: the control connection, the carriers, and what keeps them alive.
//!
//! [`Link`] is the packet path on this machine; it is made once and outlives agents. [`control`] speaks the
//! control protocol. [`run`] holds both together: it connects, chooses carriers, and comes back after
//! every kind of loss.

mod control;
mod keeper;
mod link;
mod run;
mod streams;

use std::future::Future;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

pub use control::{OpenError, open};
pub use link::Link;
pub use run::{AbortConnections, CarrierState, Change, Reporter, Session, SessionOptions, hello};

/// A byte stream to an agent's control port.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, and whom it leads to.
pub struct Dialed {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// The agent's name: its pod's.
    pub agent: String,
}

/// Finds an agent and connects to its control port. Each call makes a connection of its own.
pub trait Dial: Send + Sync {
    /// Connects to `agent`, or to the best one where none is named. Has a limit of its own.
    fn dial<'a>(
        &'a self,
        agent: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = anyhow::Result<Dialed>> + Send + 'a>>;
}
