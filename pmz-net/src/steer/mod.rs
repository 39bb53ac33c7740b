//! Steering: which packets enter the tunnel, by eBPF programs at the TUN.
//!
//! Two programs (`xdp/programs`) stand at the device. `pmz_steer` lets through what a steered prefix holds,
//! refuses at once what has no taker (RST, ICMP unreachable), counts, and puts the cluster's address in the place
//! of a stand-in; `pmz_return` does the reverse. What they go by lies in maps, which [`Steering`] writes and
//! reads.
//!
//! The programs hang on descriptors of the process, or on the device where the kernel is older than tcx (6.6):
//! with the process, or with the TUN, all of it is gone.
//!
//! A third one, `pmz_divert`, stands at the egress of other devices, where a rule or a narrower route would lead
//! packets past the TUN: it gives them the tunnel's source address and redirects them there.
//!
//! A stand-in and its real address belong together one to one, and while they do, the real address is reached by
//! its stand-in only: what comes from it has the stand-in as its source.

mod address;
mod attach;
mod divert;
pub(crate) mod error;
pub(crate) mod load;
pub(crate) mod maps;
mod model;
mod report;
mod slots;
mod trial;
pub(crate) mod verify;

pub use attach::Steering;
pub use divert::{Diversion, DivertedDevice, LEASE, LinkKind, MAX_DEVICES};
pub use error::SteerError;
pub use maps::SteerMaps;
pub use model::{
    Attachment, Drops, PrefixKind, PrefixTraffic, Refusals, SteerReport, SteeredPrefix, Target,
    TargetChange, TargetTraffic, Volume,
};
pub use trial::{Outcome, Trial, TrialPacket, Verdict};

/// Prefixes that can be steered by at a time.
pub const MAX_PREFIXES: usize = pmz_xdp_types::MAX_PREFIXES as usize;
/// Addresses that can have a target.
pub const MAX_TARGETS: usize = pmz_xdp_types::MAX_TARGETS as usize;
/// The names under which `bpftool prog` shows the programs.
pub const PROGRAMS: [&str; 2] = [pmz_xdp_types::STEER, pmz_xdp_types::RETURN];
/// As well, at devices that packets are diverted from.
pub const DIVERTING: &str = pmz_xdp_types::DIVERT;
