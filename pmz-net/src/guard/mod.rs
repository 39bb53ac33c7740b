//! The guard before the tunnel's UDP socket: an XDP program on the interface by which datagrams arrive.
//!
//! `pmz_guard` (`xdp/programs`) drops what comes to the tunnel's port and can't be WireGuard: a type or a length that
//! WireGuard does not have, a receiver that is no peer's, handshake initiations beyond a rate. All else on the
//! interface passes untouched. [`Guard`] puts it there, tells it of peers, and reads what it has counted.
//!
//! It hangs on a descriptor of the process and goes with it.
//!
//! What it can't know is left to [`crate::tunnel`]: whether a message is authentic. Receiver indices can be guessed,
//! so a data message to the right one gets as far as it did without.

mod attach;
mod error;
pub(crate) mod link;
mod maps;
mod trial;

pub use attach::{Guard, GuardMode};
pub use error::GuardError;
pub use maps::{GuardMaps, GuardReport};
pub use trial::{GuardTrial, Judged};

/// Names under which `bpftool prog` shows the program; the second one before Linux 5.18.
pub const GUARD_PROGRAMS: [&str; 2] = [
    pmz_xdp_types::guard::PROGRAM,
    pmz_xdp_types::guard::PROGRAM_OLD,
];
