//! What each tunnel carries: flows, datagrams, and round trips of one byte.

use anyhow::{Context, Result};

use crate::iperf;
use crate::load::{Course, ONE_FLOW_DOWN, ONE_FLOW_UP, Way};
use crate::reading::{Reading, Unit};
use crate::search::highest_rate;
use crate::section::Run;

/// The share of datagrams that may be lost.
const LOSS: f64 = 0.001;

pub(super) const DATAGRAMS: &str = "1200-byte datagrams, 0.1 % lost";
/// Parallel flows: how many, what that is called, and which way.
pub(super) const FLOWS: [(usize, &str, Way); 6] = [
    (1, ONE_FLOW_UP, Way::Up),
    (1, ONE_FLOW_DOWN, Way::Down),
    (8, "8 flows up", Way::Up),
    (8, "8 flows down", Way::Down),
    (64, "64 flows up", Way::Up),
    (64, "64 flows down", Way::Down),
];

/// All of it, one after the other.
pub(super) async fn measure(course: Course<'_>, run: &Run) -> Result<Vec<Reading>> {
    iperf::is_needed()?;
    let course = Course {
        duration: run.duration,
        ..course
    };
    let mut readings = tokio::task::block_in_place(|| course.round_trips())?;
    for (count, what, way) in FLOWS {
        let rate = iperf::flows(&course, way, count).await.context(what)?;
        readings.push(Reading::new(what, Unit::BitsPerSecond, rate));
    }
    let rate = highest_rate(LOSS, async |rate| iperf::datagrams(&course, rate).await);
    let rate = rate.await.context(DATAGRAMS)?;
    readings.push(Reading::new(DATAGRAMS, Unit::BitsPerSecond, rate));
    Ok(readings)
}
