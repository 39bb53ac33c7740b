//! The endpoint against a peer whose every segment is written down, one test for each clause, each named after
//! it.
//!
//! A line is a time in milliseconds and what happens then:
//!
//! ```text
//! 0      < S 0:0 win 65535 mss 1000 sackok   the peer sends (the first SYN makes the connection)
//! 0      > S. 0:0 ack 1                      the endpoint sends: what is not mentioned may be anything
//! 10-20  > . 1:5001 ack 1                    within these times; may be several segments
//! 20     write 3000                          the application writes, reads, closes, aborts
//! 25     quiet                               nothing was sent that was not mentioned
//! ```
//!
//! Numbers count from each side's SYN. `ts VALUE/ECHO`: the endpoint's clock counts milliseconds from the
//! connection's beginning, the peer's are as they stand there.

mod script;

mod acknowledgements;
mod closing;
mod handshake;
mod marks;
mod recovery;
mod resets;
mod stamps;
mod timeouts;
mod windows;

use script::{cubic, trace};
