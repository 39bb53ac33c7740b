//! A TCP endpoint without a socket and without a clock: segments, bytes and time go in, segments, bytes and
//! deadlines come out.

#[allow(dead_code)] // TAKEN OUT once the sender stands.
mod congestion;

pub use congestion::Congestion;
