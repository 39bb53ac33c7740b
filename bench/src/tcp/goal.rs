//! What is measured in a cell, and what is to come out.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::goal::Bound;
use crate::reading::Unit;

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
            Self::Rate => Unit::BitsPerSecond.show(value),
            Self::Recovery => Unit::Seconds.show(value),
            Self::Share | Self::Jain => Unit::Index.show(value),
            Self::RoundTripP50 | Self::RoundTripP99 => Unit::Seconds.show(value / 1e6),
            Self::Connects | Self::SlowestSecond => Unit::PerSecond.show(value),
            Self::Failures => Unit::Count.show(value),
            Self::MemoryStart | Self::MemoryEnd => Unit::Bytes.show(value),
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
    fn what_never_came_back_is_shown_as_that_and_else_the_unit_is() {
        assert_eq!(Quantity::Recovery.show(f64::INFINITY), "never");
        assert_eq!(Quantity::Recovery.show(0.5), "500 ms");
        assert_eq!(Quantity::RoundTripP50.show(100.0), "100 µs");
    }
}
