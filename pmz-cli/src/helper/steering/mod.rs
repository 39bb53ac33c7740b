//! The eBPF programs on the TUN: the helper loads and feeds them, the daemon says with what.

mod client;
mod server;

use std::net::IpAddr;

use pmz_net::steer::{Attachment, SteerReport, SteeredPrefix, TargetChange, TargetTraffic};
use serde::{Deserialize, Serialize};

pub(super) use server::Steerer;

/// Changes, and counters, in one message at most: each is some 200 bytes of JSON.
pub const MAX_BATCH: usize = 256;

/// What the daemon may ask of the programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SteerRequest {
    /// Loads the programs and attaches them to the TUN.
    Attach,
    /// Replaces the prefixes that may enter the tunnel.
    Prefixes {
        /// All of them.
        prefixes: Vec<SteeredPrefix>,
    },
    /// Changes what is known of single addresses.
    Targets {
        /// At most [`MAX_BATCH`], in this order.
        changes: Vec<TargetChange>,
    },
    /// Whether every service's address is known: then others in services' prefixes are refused.
    Complete {
        /// It is so.
        complete: bool,
    },
    /// What went to and came from single addresses, up to [`MAX_BATCH`] of them in their order.
    Traffic {
        /// Those behind this one.
        #[serde(default)]
        after: Option<IpAddr>,
    },
    /// What the programs counted altogether.
    Report,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum SteerReply {
    /// The programs run.
    Attached {
        /// How they hang on the device.
        how: Attachment,
    },
    /// A part of the counters.
    Traffic {
        /// In the order of addresses.
        targets: Vec<TargetTraffic>,
        /// There are others behind them.
        more: bool,
    },
    /// What the programs counted.
    Report {
        /// By prefix and by reason.
        report: SteerReport,
    },
}
