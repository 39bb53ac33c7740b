//! What goes over the link: flows alone and many at once, and round trips beside one.
//!
//! The flows are the bench's own, since iperf3's can't be what an application's on Cubic are: `-C` tells a socket after it has
//! connected (3.12), which takes the place of what the route has chosen, and without it a socket begins with its namespace's
//! default, which only what the machine allows everybody may be.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::load::{Course, ONE_FLOW_DOWN, ONE_FLOW_UP, Way};
use crate::reading::{Reading, Unit};
use crate::section::Run;
use crate::stats::jain;
use crate::tcp::flows::{Connected, Ends};

/// Flows are measured at least this long: more than a hundred round trips.
const DURATION: Duration = Duration::from_secs(5);
/// Time to find the link's rate, which isn't measured.
const WARM_UP: Duration = Duration::from_secs(2);
/// Flows that share the link, and how long they are given to do it: some losses of each.
const SHARING: usize = 20;
const SHARING_FOR: Duration = Duration::from_secs(10);

pub(super) const EIGHT: [&str; 2] = ["8 flows up", "8 flows down"];
pub(super) const FAIRNESS: [&str; 2] = [
    "Jain's index of 20 flows up",
    "Jain's index of 20 flows down",
];
pub(super) const IDLE: &str = "1-byte round trip, idle, p50";
pub(super) const BESIDE: [&str; 2] = [
    "more of it beside a flow up",
    "more of it beside a flow down",
];
pub(super) const ONE: [&str; 2] = [ONE_FLOW_UP, ONE_FLOW_DOWN];
const WAYS: [Way; 2] = [Way::Up, Way::Down];

/// Rates of one flow and of eight. Blocks.
pub(super) fn rates(course: &Course<'_>, run: &Run) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for (count, whats) in [(1, ONE), (8, EIGHT)] {
        for (what, way) in whats.into_iter().zip(WAYS) {
            let duration = run.duration.max(DURATION);
            let rates = flows(course, way, count, duration).context(what)?;
            let sum = rates.iter().sum();
            readings.push(Reading::new(what, Unit::BitsPerSecond, sum));
        }
    }
    Ok(readings)
}

/// How fair flows are to each other, and what a flow does to the round trips of another connection. Blocks.
pub(super) fn neighbours(course: &Course<'_>, run: &Run) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for (what, way) in FAIRNESS.into_iter().zip(WAYS) {
        let duration = run.duration.max(SHARING_FOR);
        let rates = flows(course, way, SHARING, duration).context(what)?;
        readings.push(Reading::new(what, Unit::Index, jain(&rates)));
    }
    let round_trip = || Ok::<_, anyhow::Error>(course.round_trip()?.0 / 1e6);
    let idle = round_trip().context(IDLE)?;
    readings.push(Reading::new(IDLE, Unit::Seconds, idle));
    for (what, way) in BESIDE.into_iter().zip(WAYS) {
        let flow = Connected::new(ends(course, way), 1)?.start()?;
        thread::sleep(WARM_UP);
        let beside = round_trip().context(what)?;
        flow.finish().context(what)?;
        readings.push(Reading::new(what, Unit::Seconds, (beside - idle).max(0.0)));
    }
    Ok(readings)
}

/// Bits per second that the reader of each flow got.
fn flows(course: &Course<'_>, way: Way, count: usize, duration: Duration) -> Result<Vec<f64>> {
    let flows = Connected::new(ends(course, way), count)?.start()?;
    thread::sleep(WARM_UP);
    let before = flows.read();
    thread::sleep(duration);
    let after = flows.read();
    flows.finish()?;
    let bits = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (after - before) * 8);
    let rates: Vec<f64> = bits
        .map(|bits| bits as f64 / duration.as_secs_f64())
        .collect();
    ensure!(rates.iter().any(|rate| *rate > 0.0), "nothing arrived");
    Ok(rates)
}

fn ends<'a>(course: &Course<'a>, way: Way) -> Ends<'a> {
    Ends {
        from: course.from,
        to: course.to,
        at: course.at,
        way,
        client: course.congestion,
        server: course.congestion,
    }
}
