//! What is to come out in a real cluster, and what is drawn of it.

use super::reading::{
    AGENT_GROWTH, CLIENT_GROWTH, CONNECTION_EACH, CONNECTS, CPU_DOWN, CPU_UP, DISTURBED, ERRORS,
    HEY, MANY_ERRORS, MANY_LAST,
};
use super::row::Row;
use crate::agent::Carrier;
use crate::goal::{Bound, Figure, Goal};
use crate::load::{ONE_FLOW_DOWN, ONE_FLOW_UP, ROUND_TRIP_P50};
use crate::section::Chart;

/// Resident bytes that 200,000 connections may leave behind: what a single pool's growth may be, and less than a byte for
/// each of them would be a leak.
const NO_GROWTH: f64 = 4e6;

/// A bound beside one of the other rows.
#[derive(Clone, Copy)]
struct Beside(Row, Bound);

impl Beside {
    const fn at_least(row: Row, share: f64) -> Self {
        Self(row, Bound::RatioAtLeast(share))
    }

    const fn at_most(row: Row, share: f64) -> Self {
        Self(row, Bound::RatioAtMost(share))
    }

    fn goal(self, carrier: Carrier, what: &'static str) -> Goal {
        let Self(other, bound) = self;
        let (ours, against) = (Row::Pmz(carrier).name(), other.name());
        let text = format!("{what}, {ours}, against {against}");
        Goal::ratio(
            text,
            Figure::new(ours, what),
            Figure::new(against, what),
            bound,
        )
    }
}

/// All of them, of both carriers.
pub(super) fn all() -> Vec<Goal> {
    [Carrier::Udp, Carrier::Stream]
        .into_iter()
        .flat_map(of)
        .collect()
}

fn of(carrier: Carrier) -> Vec<Goal> {
    let (inside, forward) = (Row::Inside, Row::PortForward);
    let (flow, kept, each, trip, connects, cpu) = match carrier {
        Carrier::Udp => (
            Beside::at_least(forward, 1.8),
            Beside::at_least(inside, 0.6),
            Beside::at_least(inside, 0.4),
            Beside::at_most(forward, 0.5),
            Beside::at_least(inside, 0.5),
            2.0,
        ),
        Carrier::Stream => (
            Beside::at_least(forward, 1.2),
            Beside::at_least(forward, 2.0),
            Beside::at_least(forward, 6.0),
            Beside::at_most(forward, 1.1),
            Beside::at_least(forward, 5.0),
            4.0,
        ),
    };
    let mut goals = vec![
        flow.goal(carrier, ONE_FLOW_UP),
        flow.goal(carrier, ONE_FLOW_DOWN),
    ];
    goals.extend(HEY.map(|(what, _)| kept.goal(carrier, what)));
    goals.push(each.goal(carrier, CONNECTION_EACH.0));
    goals.push(trip.goal(carrier, ROUND_TRIP_P50));
    goals.push(connects.goal(carrier, CONNECTS));
    let absolute = |row: Row, what, bound| {
        Goal::absolute(
            format!("{what}, {}", row.name()),
            Figure::new(row.name(), what),
            bound,
        )
    };
    let (row, many) = (Row::Pmz(carrier), Row::Many(carrier));
    goals.extend([
        absolute(row, CPU_UP, Bound::AtMost(cpu)),
        absolute(row, CPU_DOWN, Bound::AtMost(cpu)),
        absolute(row, ERRORS, Bound::AtMost(0.0)),
        absolute(row, DISTURBED, Bound::AtMost(0.0)),
        absolute(many, MANY_ERRORS, Bound::AtMost(0.0)),
        absolute(many, MANY_LAST, Bound::AtLeast(0.9)),
        absolute(many, CLIENT_GROWTH, Bound::AtMost(NO_GROWTH)),
        absolute(many, AGENT_GROWTH, Bound::AtMost(NO_GROWTH)),
    ]);
    goals
}

/// Requests on connections that are kept, at the three loads.
pub(super) fn requests() -> Chart {
    let bars = [
        ("pmz by UDP", Row::Pmz(Carrier::Udp)),
        ("pmz by streams", Row::Pmz(Carrier::Stream)),
        ("kubectl port-forward", Row::PortForward),
        ("inside the cluster", Row::Inside),
    ];
    let headings = [
        "1,000 requests on 50 connections",
        "5,000 requests on 100 connections",
        "10,000 requests on 300 connections",
    ];
    let whats = HEY.map(|(what, _)| what);
    Chart {
        file: "requests",
        title: "HTTP requests a second, from a laptop to a pod",
        note: "hey, nginx; a Kubernetes of one node and the laptop on the same machine",
        groups: headings.into_iter().zip(whats).collect(),
        bars: bars.map(|(label, row)| (label, row.name())).to_vec(),
        aside: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::row;

    #[test]
    fn each_goal_is_about_rows_that_are_measured() {
        let names = row::ALL.map(Row::name);
        for goal in all() {
            let figures = [Some(goal.ours), goal.against];
            for figure in figures.into_iter().flatten() {
                assert!(names.contains(&figure.row), "{}", goal.text);
            }
        }
    }
}
