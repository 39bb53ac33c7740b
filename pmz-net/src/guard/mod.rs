//! The guard before the tunnel's UDP socket.
//!
//! `pmz_guard_socket` and `pmz_guard` (`xdp/programs`) drop what comes to the tunnel's port and can't be WireGuard: a type or
//! a length that WireGuard does not have, a receiver that is no peer's, handshake initiations beyond a rate. The first
//! stands at the socket itself, the other one in a network card's driver, where all else passes untouched. [`Guard`] puts
//! it there, tells it of peers, and reads what it has counted.
//!
//! It hangs on a descriptor of the process and goes with it.
//!
//! XDP behind the driver ('generic') is no place for it: there the kernel copies every frame of the interface that lies in
//! pieces or is shared (`skb_pp_cow_data`), which took a fifth of all processor time where the tunnel was busy.
//!
//! What it can't know is left to [`crate::tunnel`]: whether a message is authentic. Receiver indices can be guessed,
//! so a data message to the right one gets as far as it did without.

mod attach;
mod error;
mod maps;
mod trial;

pub use attach::Guard;
pub use error::GuardError;
pub use maps::{GuardMaps, GuardReport};
pub use trial::{GuardTrial, Judged};

/// Names under which `bpftool prog` shows the programs; the second one before Linux 5.18.
pub const GUARD_PROGRAMS: [&str; 3] = [
    pmz_xdp_types::guard::PROGRAM,
    pmz_xdp_types::guard::PROGRAM_OLD,
    pmz_xdp_types::guard::PROGRAM_SOCKET,
];
