//! A TCP endpoint without a socket and without a clock: segments, bytes and time go in, segments, bytes and
//! deadlines come out.
//!
//! A [`Connection`](connection::Connection) joins a sender and a receiver. The sender keeps a scoreboard of
//! what went out, finds losses by time (RACK-TLP, RFC 8985), and leaves to a congestion control how much may
//! be in flight and how fast it leaves. docs/tcp.md says which RFC is implemented how, and how it compares
//! with Linux.

mod carried;
mod congestion;
mod connection;
mod delivery;
mod header;
mod incoming;
mod memory;
mod outgoing;
mod pacer;
mod rack;
mod receiver;
mod reduction;
mod rtt;
mod scoreboard;
mod sender;
mod sequence;

pub use congestion::Congestion;
pub use connection::{BadSegment, Connection, Setup, State, Syn, Written};
pub use memory::{Account, Stock};
pub use sender::{Counters, Path};
