//! The row of many short connections: what they leave behind, and whether they get slower.

use anyhow::{Context, Result};

use super::load::{Connects, Until};
use super::measure::{Findings, counted};
use super::reading::{AGENT_GROWTH, CLIENT_GROWTH, MANY_ERRORS, MANY_LAST, MANY_RATE};
use super::server::SHORT;
use super::way::Way;
use crate::processes::Processes;
use crate::reading::{Reading, Unit};

/// Short connections in a row, and how many at a time.
const MANY: (usize, usize) = (200_000, 300);

/// Many short connections, after some that are not counted.
///
/// # Errors
/// Where pmz or the agent has ended.
pub(super) async fn measure(way: &Way) -> Result<Vec<Reading>> {
    let (count, at_a_time) = MANY;
    let connect = async |count| {
        let connects = Connects {
            short: SHORT.map(|port| way.to(port)).to_vec(),
            at_a_time,
            until: Until::Made(count),
        };
        way.from.run(&connects).await
    };
    // Pools grow to what they need.
    connect(count / 10).await?;
    let agent = || way.agent.as_ref().ok().map(Processes::resident);
    let before = (way.client.resident()?, agent().transpose()?);
    let connects = connect(count).await?;
    let after = (way.client.resident()?, agent().transpose()?);
    let tenths = connects.tenths().context("too few connections")?;
    // What gets slower and what is disturbed once look the same by the first and the last alone.
    eprintln!(
        "{MANY_RATE}, /s of each tenth: {}",
        tenths.map(|rate| format!("{rate:.0}")).join(", ")
    );
    let mut findings = Findings::default();
    findings.readings.extend([
        Reading::new(MANY_RATE, Unit::PerSecond, connects.per_second()),
        Reading::new(MANY_LAST, Unit::Share, tenths[9] / tenths[0]),
        Reading::new(CLIENT_GROWTH, Unit::Bytes, after.0 - before.0),
    ]);
    match (before.1.zip(after.1), &way.agent) {
        (Some((before, after)), _) => {
            let growth = Reading::new(AGENT_GROWTH, Unit::Bytes, after - before);
            findings.readings.push(growth);
        }
        (None, agent) => {
            let why = agent.as_ref().err().cloned().unwrap_or_default();
            findings.absent.push(format!("{AGENT_GROWTH}: {why}"));
        }
    }
    let errors = counted(MANY_ERRORS, connects.failed, connects.why.as_deref());
    findings.readings.push(errors);
    findings.end()
}
