//! What is measured: a table of links, and of what is to come out on each.

use std::time::Duration;

use crate::congestion::Congestion;
use crate::goal::Bound;
use crate::load::Way;

use super::goal::{Goal, Quantity};

/// Congestion control of both sides, in the order in which it is measured.
const CONGESTIONS: [Congestion; 2] = [Congestion::Bbr, Congestion::Cubic];
const WAYS: [Way; 2] = [Way::Down, Way::Up];

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    /// What `--only` looks at.
    pub(crate) name: String,
    pub(crate) congestion: Congestion,
    pub(crate) course: Course,
    pub(crate) goals: Vec<Goal>,
}

/// What happens in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Course {
    /// One flow over an emulated link, of the kernel's and of ours one after the other.
    Flow(Way, Link),
    /// The same, and in the middle of it the link loses everything for a time.
    Outage(Way, Link, Duration),
    /// So many flows of the kernel's and as many of ours over one link at once.
    Shares(Way, Link, usize),
    /// So many flows from the client's kernel straight to ours.
    Clean(Way, usize),
    /// One byte there and back, straight.
    RoundTrips,
    /// Connections that are made and closed, so many at a time, straight.
    Connects(usize),
}

/// An emulated link, and how long it takes to say something about it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Link {
    /// As `LinkSpec` reads it.
    pub(crate) spec: &'static str,
    /// Not measured: the time to find the link's rate.
    pub(crate) warm_up: Duration,
    /// Measured at least that long.
    pub(crate) at_least: Duration,
}

/// Name, link, and the share of the kernel's rate that is the goal.
struct Row(&'static str, Link, f64);

const fn link(spec: &'static str, warm_up: u64, at_least: u64) -> Link {
    Link {
        spec,
        warm_up: Duration::from_secs(warm_up),
        at_least: Duration::from_secs(at_least),
    }
}

/// A round trip of 40 ms is 20 ms each way.
const ROWS: [Row; 11] = [
    Row(
        "200m-40ms-loss0",
        link("delay=20ms,rate=200mbit,queue=40ms", 2, 0),
        0.9,
    ),
    Row(
        "200m-40ms-loss0.1",
        link("delay=20ms,loss=0.1%,rate=200mbit,queue=40ms", 2, 5),
        0.9,
    ),
    Row(
        "200m-40ms-loss1",
        link("delay=20ms,loss=1%,rate=200mbit,queue=40ms", 2, 5),
        0.9,
    ),
    Row(
        "1g-1ms-loss0",
        link("delay=0.5ms,rate=1gbit,queue=5ms", 1, 0),
        0.9,
    ),
    Row(
        "1g-1ms-loss0.1",
        link("delay=0.5ms,loss=0.1%,rate=1gbit,queue=5ms", 1, 0),
        0.9,
    ),
    Row(
        "20m-200ms-loss0",
        link("delay=100ms,rate=20mbit,queue=200ms", 4, 8),
        0.9,
    ),
    Row(
        "20m-200ms-loss1",
        // Cubic gets less than 1 Mbit/s through this and the next: a few losses more or less decide.
        link("delay=100ms,loss=1%,rate=20mbit,queue=200ms", 4, 30),
        0.9,
    ),
    Row(
        "20m-200ms-loss2-disorder",
        link(
            "delay=100ms,jitter=5ms,disorder=on,loss=2%,rate=20mbit,queue=200ms",
            4,
            30,
        ),
        0.9,
    ),
    Row(
        "200m-40ms-queue10p",
        link("delay=20ms,rate=200mbit,queue=10p", 2, 5),
        0.8,
    ),
    Row(
        "policer-20m-40ms",
        link("delay=20ms,police=20mbit,burst=50kb", 2, 5),
        0.8,
    ),
    Row(
        "200m-40ms-bursts50",
        link(
            "delay=20ms,burst-loss=0.005%x50,rate=200mbit,queue=40ms",
            2,
            8,
        ),
        0.8,
    ),
];

const OUTAGE: Link = link("delay=20ms,rate=200mbit,queue=40ms", 2, 10);
const OUTAGE_FOR: Duration = Duration::from_secs(3);
/// Flows that start together take some time to find their shares.
const SHARED: Link = link("delay=20ms,rate=200mbit,queue=40ms", 5, 20);
const FLOWS: usize = 8;
/// Gbit/s from our TCP to the kernel's and back, by flows.
const CLEAN: [(Way, usize, f64); 4] = [
    (Way::Down, 1, 20.0),
    (Way::Up, 1, 13.0),
    (Way::Down, FLOWS, 13.0),
    (Way::Up, FLOWS, 12.0),
];
const ROUND_TRIP_US: f64 = 100.0;
const CONNECTS_AT_A_TIME: usize = 300;
const CONNECTS_PER_SECOND: f64 = 10_000.0;

/// All of them, in the table's order.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for Row(row, link, share) in &ROWS {
        both(&mut cells, row, &CONGESTIONS, |way| {
            let goal = Goal::new(Quantity::Rate, Bound::RatioAtLeast(*share));
            (Course::Flow(way, link.clone()), vec![goal])
        });
    }
    both(&mut cells, "outage-3s", &CONGESTIONS, |way| {
        let goals = vec![
            Goal::new(Quantity::Rate, Bound::RatioAtLeast(0.8)),
            Goal::new(Quantity::Recovery, Bound::RatioAtMost(1.2)),
        ];
        (Course::Outage(way, OUTAGE, OUTAGE_FOR), goals)
    });
    both(&mut cells, "shares-8+8", &CONGESTIONS, |way| {
        let goals = vec![
            Goal::new(Quantity::Share, Bound::Within(0.7, 1.4)),
            Goal::new(Quantity::Jain, Bound::AtLeast(0.9)),
        ];
        (Course::Shares(way, SHARED, FLOWS), goals)
    });
    let clean = &CONGESTIONS[..1];
    for (way, flows, gigabits) in CLEAN {
        let goal = Goal::new(Quantity::Rate, Bound::AtLeast(gigabits * 1e9));
        let name = format!("clean-{flows}flow");
        cells.push(cell(
            &format!("{name}-{}-{}", clean[0], way_name(way)),
            clean[0],
            Course::Clean(way, flows),
            vec![goal],
        ));
    }
    cells.push(cell(
        "clean-round-trip",
        clean[0],
        Course::RoundTrips,
        vec![
            Goal::new(Quantity::RoundTripP50, Bound::AtMost(ROUND_TRIP_US)),
            Goal::new(Quantity::RoundTripP99, Bound::None),
        ],
    ));
    cells.push(cell(
        "clean-connects",
        clean[0],
        Course::Connects(CONNECTS_AT_A_TIME),
        vec![
            Goal::new(Quantity::Connects, Bound::AtLeast(CONNECTS_PER_SECOND)),
            Goal::new(Quantity::SlowestSecond, Bound::None),
            Goal::new(Quantity::Failures, Bound::AtMost(0.0)),
            Goal::new(Quantity::MemoryStart, Bound::None),
            Goal::new(Quantity::MemoryEnd, Bound::None),
        ],
    ));
    cells
}

/// Each congestion control, and with it each way.
fn both(
    cells: &mut Vec<Cell>,
    row: &str,
    congestions: &[Congestion],
    course: impl Fn(Way) -> (Course, Vec<Goal>),
) {
    for &congestion in congestions {
        for way in WAYS {
            let name = format!("{row}-{congestion}-{}", way_name(way));
            let (course, goals) = course(way);
            cells.push(cell(&name, congestion, course, goals));
        }
    }
}

fn cell(name: &str, congestion: Congestion, course: Course, goals: Vec<Goal>) -> Cell {
    Cell {
        name: name.to_owned(),
        congestion,
        course,
        goals,
    }
}

fn way_name(way: Way) -> &'static str {
    match way {
        Way::Up => "up",
        Way::Down => "down",
    }
}

impl Cell {
    /// The link's description; none: no emulated link.
    pub(crate) fn link(&self) -> Option<&'static str> {
        match &self.course {
            Course::Flow(_, link) | Course::Outage(_, link, _) | Course::Shares(_, link, _) => {
                Some(link.spec)
            }
            Course::Clean(..) | Course::RoundTrips | Course::Connects(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use pmz_cli::playground::link::LinkSpec;

    use super::*;

    #[test]
    fn every_link_can_be_made_and_every_name_is_there_once() {
        let cells = all();
        let mut names: Vec<_> = cells.iter().map(|cell| cell.name.as_str()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for spec in cells.iter().filter_map(Cell::link) {
            assert!(spec.parse::<LinkSpec>().is_ok(), "{spec}");
        }
        assert!(cells.iter().all(|cell| !cell.goals.is_empty()));
    }

    #[test]
    fn every_row_is_measured_with_both_algorithms_in_both_directions() {
        let cells = all();
        let rows = ROWS.iter().map(|row| row.0);
        for row in rows.chain(["outage-3s", "shares-8+8"]) {
            for algorithm in ["bbr", "cubic"] {
                for way in ["down", "up"] {
                    let name = format!("{row}-{algorithm}-{way}");
                    assert!(cells.iter().any(|cell| cell.name == name), "{name}");
                }
            }
        }
        assert_eq!(cells.len(), (ROWS.len() + 2) * 4 + 6);
    }
}
