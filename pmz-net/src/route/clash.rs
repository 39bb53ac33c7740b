//! A wanted prefix, what it collides with, and the sentence that tells it.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::survey::{ExistingRoute, RouteKind};
use super::tables::MAIN;

/// How a wanted prefix and what is there overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// The same prefix: only one of them can win.
    Same,
    /// What is there is wider: the wanted prefix takes a part of what goes there now (a VPN's 10.0.0.0/8).
    Wider,
    /// What is there is narrower: it keeps a part of the wanted prefix for itself (a bridge of Docker's).
    Narrower,
}

/// What becomes of packets where something else than pmz takes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// They go to one of these devices; empty where none is known.
    Devices(Vec<String>),
    /// This machine takes them for its own.
    Here,
    /// They are dropped without a word.
    Blackholed,
    /// They are dropped, and their sender is told that nobody is there.
    Unreachable,
    /// They are dropped, and their sender is told that it is forbidden.
    Prohibited,
}

impl From<&ExistingRoute> for Fate {
    fn from(route: &ExistingRoute) -> Self {
        match route.kind {
            RouteKind::Unicast | RouteKind::Throw => Self::Devices(route.devices()),
            RouteKind::Local => Self::Here,
            RouteKind::Blackhole => Self::Blackholed,
            RouteKind::Unreachable => Self::Unreachable,
            RouteKind::Prohibit => Self::Prohibited,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Devices(names) if names.is_empty() => f.write_str("goes to another device"),
            Self::Devices(names) => {
                f.write_str("goes to ")?;
                for (i, name) in names.iter().enumerate() {
                    let and = if i == 0 { "" } else { " and " };
                    let whose = if name.starts_with("pmz") {
                        ", another pmz's tunnel"
                    } else {
                        ""
                    };
                    write!(f, "{and}{name}{whose}")?;
                }
                Ok(())
            }
            Self::Here => f.write_str("is this machine itself"),
            Self::Blackholed => f.write_str("is blackholed"),
            Self::Unreachable => f.write_str("is made unreachable"),
            Self::Prohibited => f.write_str("is prohibited"),
        }
    }
}

/// What is there already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Obstacle {
    /// A route of the main table, or of one that is asked after it.
    Route {
        /// Its table.
        table: u32,
        /// What it does with packets.
        fate: Fate,
    },
    /// A policy rule that is asked before the main table's.
    Rule {
        /// Its preference.
        preference: u32,
        /// The table that it looks into.
        table: Option<u32>,
        /// What it, or the route that it finds, does with packets.
        fate: Fate,
    },
    /// An address of this machine's.
    Address {
        /// The device that has it.
        device: Option<String>,
        /// The device is down: the network is there as soon as it is up.
        sleeping: bool,
    },
    /// The kernel leads packets there, for reasons of its own.
    Kernel {
        /// The table that it found a route in.
        table: u32,
        /// What the route does with packets.
        fate: Fate,
    },
    /// The cluster itself has it.
    Wanted,
}

/// A wanted prefix, and what it collides with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clash {
    /// What was wanted.
    pub net: IpNet,
    /// The prefix of what is there.
    pub with: IpNet,
    /// What is there.
    pub obstacle: Obstacle,
    /// Which packets it is for, in words ("with mark 0x1"), where it is not every ordinary one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
}

impl Clash {
    /// How they overlap.
    pub fn overlap(&self) -> Overlap {
        if self.with == self.net {
            Overlap::Same
        } else if self.with.contains(&self.net) {
            Overlap::Wider
        } else {
            Overlap::Narrower
        }
    }

    /// Whether ordinary packets are concerned, of any program on this machine.
    pub fn is_general(&self) -> bool {
        self.only.is_none()
    }

    /// Whether a route of the wanted prefix would be of no use: all packets would go the other way.
    pub fn is_insuperable(&self) -> bool {
        let covers = self.overlap() != Overlap::Narrower;
        let is_before = match &self.obstacle {
            Obstacle::Rule { .. } => true,
            Obstacle::Route { table, .. } => *table == MAIN && self.overlap() == Overlap::Same,
            Obstacle::Address { .. } | Obstacle::Kernel { .. } | Obstacle::Wanted => false,
        };
        self.is_general() && covers && is_before
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { net, with, .. } = self;
        if let Some(only) = &self.only {
            write!(f, "packets {only}: ")?;
        }
        match &self.obstacle {
            Obstacle::Route { table, fate } => {
                match self.overlap() {
                    Overlap::Same => write!(f, "{net} already {fate}")?,
                    Overlap::Wider => write!(f, "{net} lies in {with}, which {fate}")?,
                    Overlap::Narrower => write!(f, "{net} holds {with}, which {fate}")?,
                }
                if *table != MAIN {
                    write!(f, " (table {table})")?;
                }
                Ok(())
            }
            Obstacle::Rule {
                preference,
                table,
                fate,
            } => {
                match self.overlap() {
                    Overlap::Same | Overlap::Wider => write!(f, "{net} {fate}")?,
                    Overlap::Narrower => write!(f, "{with}, a part of {net}, {fate}")?,
                }
                write!(f, " by rule {preference}")?;
                if let Some(table) = table {
                    write!(f, " (table {table})")?;
                }
                f.write_str(", which is asked before the main table")
            }
            Obstacle::Address { device, sleeping } => {
                let device = device.as_deref().unwrap_or("a device");
                let down = if *sleeping { ", which is down" } else { "" };
                match self.overlap() {
                    Overlap::Same => write!(f, "{net} is this machine's own on {device}{down}"),
                    Overlap::Wider => {
                        write!(f, "{net} lies in {with}, the network of {device}{down}")
                    }
                    Overlap::Narrower if with.prefix_len() == with.max_prefix_len() => write!(
                        f,
                        "{net} holds {}, this machine's own address on {device}{down}",
                        with.addr()
                    ),
                    Overlap::Narrower => {
                        write!(f, "{net} holds {with}, the network of {device}{down}")
                    }
                }
            }
            Obstacle::Kernel { table, fate } => {
                write!(f, "{with} {fate}, says the kernel (table {table})")
            }
            Obstacle::Wanted => write!(f, "{net} overlaps with the cluster's {with}"),
        }
    }
}
