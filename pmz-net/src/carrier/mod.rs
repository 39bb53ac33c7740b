//! How WireGuard messages travel: as UDP datagrams, or framed on byte streams behind a short fair queue;
//! the choice between them, and how many streams there are.

pub mod breadth;
pub mod choice;
mod codel;
pub mod distance;
pub mod frame;
pub mod queue;
pub mod stream;
pub mod udp;
