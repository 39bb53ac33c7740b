//! The eBPF programs on the TUN: the helper loads and feeds them, the daemon says with what.

mod client;
mod divert;
mod server;

use std::net::IpAddr;

use ipnet::IpNet;
use pmz_net::steer::{
    Attachment, DivertedDevice, SteerReport, SteeredPrefix, TargetChange, TargetTraffic,
};
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
    /// Diverts packets to prefixes from other devices into the TUN: from those that are named, and from those by which
    /// the kernel says that they leave. From no others any more. Has to be said again within
    /// [`pmz_net::steer::LEASE`].
    Divert {
        /// What may enter the tunnel, or the part of it that is looked for.
        prefixes: Vec<IpNet>,
        /// Devices, whether they are there or not.
        devices: Vec<String>,
    },
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
    /// Where packets are diverted from.
    Diverted {
        /// Those that were named, and those that were found.
        devices: Vec<DivertedDevice>,
    },
    /// What the programs counted.
    Report {
        /// By prefix and by reason.
        report: SteerReport,
    },
}
