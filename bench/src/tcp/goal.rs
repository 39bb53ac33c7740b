//! What is measured in a cell, and what is to come out.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::goal::Bound;

/// Something that one run of a cell tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Quantity {
    /// Bits per second that the receiving applications read, all flows together.
    Rate,
    /// Seconds from the end of an outage until the rate over 200 ms was back; infinite where it never was.
    Recovery,
    /// A flow of ours by a flow of the kernel's, means of bits per second.
    Share,
    /// Jain's index of fairness among the side's flows.
    Jain,
    /// Microseconds.
    RoundTripP50,
    /// Microseconds.
    RoundTripP99,
    /// Connections per second that were made and closed in order.
    Connects,
    /// The same in the slowest second.
    SlowestSecond,
    /// Connections that failed.
    Failures,
    /// Resident bytes of this process, in which client, NAT and service are, at the start.
    MemoryStart,
    /// The same at the end.
    MemoryEnd,
}

/// A quantity, and what it is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goal {
    pub(crate) quantity: Quantity,
    pub(crate) bound: Bound,
}

impl Goal {
    pub(crate) const fn new(quantity: Quantity, bound: Bound) -> Self {
        Self { quantity, bound }
    }

    /// As a reader is told.
    pub(crate) fn text(&self) -> String {
        self.bound.text(|value| self.quantity.show(value))
    }
}

impl Quantity {
    /// A value with its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => "never".into(),
            Self::Rate if value >= 1e9 => format!("{:.2} Gbit/s", value / 1e9),
            Self::Rate => format!("{:.1} Mbit/s", value / 1e6),
            Self::Recovery => format!("{value:.2} s"),
            Self::Share | Self::Jain => format!("{value:.2}"),
            Self::RoundTripP50 | Self::RoundTripP99 => format!("{value:.0} µs"),
            Self::Connects | Self::SlowestSecond => format!("{value:.0}/s"),
            Self::Failures => format!("{value:.0}"),
            Self::MemoryStart | Self::MemoryEnd => format!("{:.1} MB", value / 1e6),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rate => "rate",
            Self::Recovery => "recovery",
            Self::Share => "share of a flow",
            Self::Jain => "Jain's index",
            Self::RoundTripP50 => "p50",
            Self::RoundTripP99 => "p99",
            Self::Connects => "connects",
            Self::SlowestSecond => "slowest second",
            Self::Failures => "failures",
            Self::MemoryStart => "memory, start",
            Self::MemoryEnd => "memory, end",
        })
    }
}

impl Serialize for Goal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{} {}", self.quantity, self.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_came_back_is_shown_as_that() {
        assert_eq!(Quantity::Recovery.show(f64::INFINITY), "never");
        assert_eq!(Quantity::Recovery.show(0.5), "0.50 s");
    }
}
