//! What is measured, and what is to come out.

use std::fmt;

use serde::{Serialize, Serializer};

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

/// What is to come out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Ours by the kernel's.
    RatioAtLeast(f64),
    /// Ours by the kernel's.
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
    Within(f64, f64),
    /// It is only shown.
    None,
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

    /// Whether it is reached; none where there is nothing to reach, or not enough was measured.
    pub(crate) fn is_reached(&self, kernel: Option<f64>, ours: Option<f64>) -> Option<bool> {
        let ours = ours?;
        match self.bound {
            Bound::RatioAtLeast(least) => Some(ratio(kernel, Some(ours))? >= least),
            Bound::RatioAtMost(most) => Some(ratio(kernel, Some(ours))? <= most),
            Bound::AtLeast(least) => Some(ours >= least),
            Bound::AtMost(most) => Some(ours <= most),
            Bound::Within(least, most) => Some((least..=most).contains(&ours)),
            Bound::None => None,
        }
    }

    /// As a reader is told.
    pub(crate) fn text(&self) -> String {
        let show = |value| self.quantity.show(value);
        match self.bound {
            Bound::RatioAtLeast(least) => format!(">= {least}x"),
            Bound::RatioAtMost(most) => format!("<= {most}x"),
            Bound::AtLeast(least) => format!(">= {}", show(least)),
            Bound::AtMost(most) => format!("<= {}", show(most)),
            Bound::Within(least, most) => format!("{least} to {most}"),
            Bound::None => String::new(),
        }
    }
}

/// Ours by the kernel's. None where one is missing or both say nothing.
pub(crate) fn ratio(kernel: Option<f64>, ours: Option<f64>) -> Option<f64> {
    let ratio = ours? / kernel?;
    (!ratio.is_nan()).then_some(ratio)
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
    fn a_goal_by_the_kernel_needs_both_and_another_only_ours() {
        let by_kernel = Goal::new(Quantity::Rate, Bound::RatioAtLeast(0.9));
        assert_eq!(by_kernel.is_reached(Some(100.0), Some(90.0)), Some(true));
        assert_eq!(by_kernel.is_reached(Some(100.0), Some(89.0)), Some(false));
        assert_eq!(by_kernel.is_reached(None, Some(89.0)), None);
        assert_eq!(by_kernel.is_reached(Some(1.0), None), None);
        let absolute = Goal::new(Quantity::RoundTripP50, Bound::AtMost(100.0));
        assert_eq!(absolute.is_reached(None, Some(100.0)), Some(true));
        assert_eq!(absolute.is_reached(None, Some(101.0)), Some(false));
        let within = Goal::new(Quantity::Share, Bound::Within(0.7, 1.4));
        assert_eq!(within.is_reached(None, Some(1.0)), Some(true));
        assert_eq!(within.is_reached(None, Some(1.5)), Some(false));
        let shown = Goal::new(Quantity::Rate, Bound::None);
        assert_eq!(shown.is_reached(Some(1.0), Some(1.0)), None);
    }

    #[test]
    fn what_never_came_back_misses_its_goal_unless_the_kernel_did_not_either() {
        let never = f64::INFINITY;
        let goal = Goal::new(Quantity::Recovery, Bound::RatioAtMost(1.2));
        assert_eq!(goal.is_reached(Some(0.5), Some(never)), Some(false));
        assert_eq!(goal.is_reached(Some(never), Some(0.5)), Some(true));
        assert_eq!(goal.is_reached(Some(never), Some(never)), None);
        assert_eq!(Quantity::Recovery.show(never), "never");
    }
}
