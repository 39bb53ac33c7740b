//! How WireGuard messages travel: as UDP datagrams, or framed on byte streams behind a short fair queue;
//! and the choice between them.

pub mod choice;
mod codel;
pub mod distance;
pub mod frame;
pub mod queue;
pub mod stream;
pub mod udp;
