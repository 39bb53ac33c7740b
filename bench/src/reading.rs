//! One figure that one round of one row gave.

use std::fmt;

use serde::Serialize;

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unit {
    BitsPerSecond,
    /// Requests, connections or datagrams.
    PerSecond,
    Seconds,
    /// Processor seconds for 10^9 bytes that an application received.
    SecondsPerGigabyte,
    Bytes,
    /// Of one core, or of what was sent: 1 is all of it.
    Share,
    /// Errors, for one.
    Count,
    /// Jain's index of fairness, for one: between 0 and 1.
    Index,
}

impl Unit {
    /// A value as people read it.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            _ if !value.is_finite() => "never".into(),
            Self::BitsPerSecond => match value / 1e9 {
                10.0.. => format!("{:.1} Gbit/s", value / 1e9),
                0.5.. => format!("{:.2} Gbit/s", value / 1e9),
                0.1.. => format!("{:.0} Mbit/s", value / 1e6),
                _ => format!("{:.1} Mbit/s", value / 1e6),
            },
            Self::PerSecond => format!("{value:.0} /s"),
            Self::Seconds => match value {
                1.0.. => format!("{value:.2} s"),
                0.01.. => format!("{:.0} ms", value * 1e3),
                _ => format!("{:.0} µs", value * 1e6),
            },
            Self::SecondsPerGigabyte => format!("{value:.2} s/GB"),
            Self::Bytes => match value {
                1e6.. => format!("{:.1} MB", value / 1e6),
                _ => format!("{:.1} kB", value / 1e3),
            },
            Self::Share => format!("{:.2} %", value * 100.0),
            Self::Count => format!("{value:.0}"),
            Self::Index => format!("{value:.3}"),
        }
    }
}

/// A figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Reading {
    /// What was measured: the same for each row that measures it.
    pub(crate) what: &'static str,
    pub(crate) unit: Unit,
    pub(crate) value: f64,
}

impl Reading {
    pub(crate) const fn new(what: &'static str, unit: Unit, value: f64) -> Self {
        Self { what, unit, value }
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.unit.show(self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_shown_in_the_unit_that_its_size_asks_for() {
        let shown = |unit, value| Reading::new("x", unit, value).to_string();
        assert_eq!(shown(Unit::BitsPerSecond, 11.26e9), "x 11.3 Gbit/s");
        assert_eq!(shown(Unit::BitsPerSecond, 0.96e9), "x 0.96 Gbit/s");
        assert_eq!(shown(Unit::BitsPerSecond, 192.6e6), "x 193 Mbit/s");
        assert_eq!(shown(Unit::BitsPerSecond, 3.14e6), "x 3.1 Mbit/s");
        assert_eq!(shown(Unit::Seconds, 0.00039), "x 390 µs");
        assert_eq!(shown(Unit::Seconds, 0.06), "x 60 ms");
        assert_eq!(shown(Unit::Share, 0.004), "x 0.40 %");
        assert_eq!(shown(Unit::Count, 0.0), "x 0");
        assert_eq!(shown(Unit::Seconds, f64::INFINITY), "x never");
    }
}
