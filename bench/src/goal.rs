//! What is to come out: a figure beside another one of the same run, or beside a bound.

use serde::Serialize;

/// What a value is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Ours by the other's.
    RatioAtLeast(f64),
    /// Ours by the other's.
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
    Within(f64, f64),
    /// It is only shown.
    None,
}

impl Bound {
    /// Whether it holds; none where there is nothing to reach, or not enough was measured.
    pub(crate) fn is_reached(self, against: Option<f64>, ours: Option<f64>) -> Option<bool> {
        let ours = ours?;
        match self {
            Self::RatioAtLeast(least) => Some(ratio(against, Some(ours))? >= least),
            Self::RatioAtMost(most) => Some(ratio(against, Some(ours))? <= most),
            Self::AtLeast(least) => Some(ours >= least),
            Self::AtMost(most) => Some(ours <= most),
            Self::Within(least, most) => Some((least..=most).contains(&ours)),
            Self::None => None,
        }
    }

    /// As a reader is told; `show` adds the unit of what it bounds.
    pub(crate) fn text(self, show: impl Fn(f64) -> String) -> String {
        match self {
            Self::RatioAtLeast(least) => format!(">= {least}x"),
            Self::RatioAtMost(most) => format!("<= {most}x"),
            Self::AtLeast(least) => format!(">= {}", show(least)),
            Self::AtMost(most) => format!("<= {}", show(most)),
            Self::Within(least, most) => format!("{least} to {most}"),
            Self::None => String::new(),
        }
    }
}

/// Ours by the other's. None where one is missing or both say nothing.
pub(crate) fn ratio(against: Option<f64>, ours: Option<f64>) -> Option<f64> {
    let ratio = ours? / against?;
    (!ratio.is_nan()).then_some(ratio)
}

/// A median of the run: what a row measured of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Figure {
    /// The row's name, of whichever section.
    pub(crate) row: &'static str,
    /// As its readings say it.
    pub(crate) what: &'static str,
}

impl Figure {
    pub(crate) const fn new(row: &'static str, what: &'static str) -> Self {
        Self { row, what }
    }
}

/// A goal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Goal {
    /// What is to be reached, in a reader's words, without the bound.
    pub(crate) text: String,
    pub(crate) ours: Figure,
    /// What it is compared with.
    pub(crate) against: Option<Figure>,
    pub(crate) bound: Bound,
}

impl Goal {
    /// A ratio of two figures.
    pub(crate) fn ratio(
        text: impl Into<String>,
        ours: Figure,
        against: Figure,
        bound: Bound,
    ) -> Self {
        Self {
            text: text.into(),
            ours,
            against: Some(against),
            bound,
        }
    }

    /// A figure by itself, in its own unit.
    pub(crate) fn absolute(text: impl Into<String>, ours: Figure, bound: Bound) -> Self {
        Self {
            text: text.into(),
            ours,
            against: None,
            bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_needs_both_sides_and_another_bound_only_ours() {
        let ratio = Bound::RatioAtLeast(0.9);
        assert_eq!(ratio.is_reached(Some(100.0), Some(90.0)), Some(true));
        assert_eq!(ratio.is_reached(Some(100.0), Some(89.0)), Some(false));
        assert_eq!(ratio.is_reached(None, Some(89.0)), None);
        assert_eq!(ratio.is_reached(Some(1.0), None), None);
        let most = Bound::AtMost(100.0);
        assert_eq!(most.is_reached(None, Some(100.0)), Some(true));
        assert_eq!(most.is_reached(None, Some(101.0)), Some(false));
        let within = Bound::Within(0.7, 1.4);
        assert_eq!(within.is_reached(None, Some(1.0)), Some(true));
        assert_eq!(within.is_reached(None, Some(1.5)), Some(false));
        assert_eq!(Bound::None.is_reached(Some(1.0), Some(1.0)), None);
    }

    #[test]
    fn what_never_came_back_misses_its_goal_unless_the_other_did_not_either() {
        let never = f64::INFINITY;
        let bound = Bound::RatioAtMost(1.2);
        assert_eq!(bound.is_reached(Some(0.5), Some(never)), Some(false));
        assert_eq!(bound.is_reached(Some(never), Some(0.5)), Some(true));
        assert_eq!(bound.is_reached(Some(never), Some(never)), None);
    }

    #[test]
    fn a_bound_is_told_in_the_unit_of_what_it_bounds() {
        let show = |value: f64| format!("{value} s");
        assert_eq!(Bound::AtMost(2.0).text(show), "<= 2 s");
        assert_eq!(Bound::RatioAtLeast(1.8).text(show), ">= 1.8x");
    }
}
