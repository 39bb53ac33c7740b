//! The loads of a row, one after the other, and what each of them gives.

use std::time::Duration;

use anyhow::{Error, Result};

use super::http::{Amount, Client};
use super::load::{Connects, Resets, RoundTrips, Until};
use super::reading::{CONNECTION_EACH, CONNECTS, CPU_DOWN, CPU_UP, DISTURBED, ERRORS, H2LOAD, HEY};
use super::scene::{HTTP, IPERF3, Scene};
use super::server::{ECHO, RESET, SHORT};
use super::way::Way;
use crate::congestion::APPLICATIONS;
use crate::iperf;
use crate::load::{ONE_FLOW_DOWN, ONE_FLOW_UP, ROUND_TRIP_P50, ROUND_TRIP_P99, Way as Direction};
use crate::processes::Processes;
use crate::reading::{Reading, Unit};
use crate::section::Partial;
use crate::stats::median;

/// A load of requests is over in a few dozen milliseconds: so many in a row, of which the median counts.
const HTTP_IN_A_ROW: usize = 3;
/// Connections at a time where they are counted.
const AT_A_TIME: usize = 16;
/// Connections that are reset.
const RESETS: u32 = 20;

/// A load, on a way that stands.
#[derive(Clone, Copy, Debug)]
enum Load {
    RoundTrips,
    Connects,
    Http(&'static str, Client, Amount),
    Flow(Direction),
}

/// What a load gave.
struct Outcome {
    readings: Vec<Reading>,
    /// Connections and requests that failed.
    failed: u64,
    /// Why one of those did.
    why: Option<String>,
}

impl From<Vec<Reading>> for Outcome {
    fn from(readings: Vec<Reading>) -> Self {
        Self {
            readings,
            failed: 0,
            why: None,
        }
    }
}

/// Why a load gave nothing: a rate with errors in it is the rate of something else.
struct Missing {
    /// At least so many connections and requests.
    failed: u64,
    why: String,
}

impl From<Error> for Missing {
    fn from(error: Error) -> Self {
        Self {
            failed: 1,
            why: format!("{error:#}"),
        }
    }
}

impl Load {
    fn all() -> impl Iterator<Item = Self> {
        let http = |client| move |(what, amount)| Self::Http(what, client, amount);
        [Self::RoundTrips, Self::Connects]
            .into_iter()
            .chain(HEY.map(http(Client::Hey)))
            .chain([CONNECTION_EACH].map(http(Client::HeyConnectionEach)))
            .chain(H2LOAD.map(http(Client::H2load)))
            .chain([Direction::Up, Direction::Down].map(Self::Flow))
    }

    /// What it is called where it went wrong.
    fn name(self) -> &'static str {
        match self {
            Self::RoundTrips => ROUND_TRIP_P50,
            Self::Connects => CONNECTS,
            Self::Http(what, ..) => what,
            Self::Flow(Direction::Up) => ONE_FLOW_UP,
            Self::Flow(Direction::Down) => ONE_FLOW_DOWN,
        }
    }

    fn in_a_row(self) -> usize {
        match self {
            Self::Http(..) => HTTP_IN_A_ROW,
            Self::RoundTrips | Self::Connects | Self::Flow(_) => 1,
        }
    }

    /// Tries again where the way is one that ends by itself, as a port-forward does; not for ever.
    async fn until_a_way_lasts(
        self,
        scene: &Scene,
        way: &mut Way,
        duration: Duration,
    ) -> Result<Vec<Reading>, Missing> {
        let mut tries = way.tries();
        loop {
            tries -= 1;
            let mut outcome = self.once(scene, way, duration).await;
            if let Err(missing) = &mut outcome {
                missing.why += &way.last_words();
                if tries > 0 {
                    eprintln!("{}, to be repeated: {}", self.name(), missing.why);
                    continue;
                }
            }
            return outcome;
        }
    }

    async fn once(
        self,
        scene: &Scene,
        way: &mut Way,
        duration: Duration,
    ) -> Result<Vec<Reading>, Missing> {
        way.renew(scene).await?;
        let Outcome {
            readings,
            failed,
            why,
        } = self.run(way, duration).await?;
        match failed {
            0 => Ok(readings),
            failed => {
                let why = format!("{failed} went wrong; {}", why.unwrap_or_default());
                Err(Missing { failed, why })
            }
        }
    }

    async fn run(self, way: &Way, duration: Duration) -> Result<Outcome> {
        match self {
            Self::RoundTrips => {
                let echo = way.to(ECHO);
                let (p50, p99) = way.from.run(&RoundTrips { echo }).await?;
                let seconds = |what, value| Reading::new(what, Unit::Seconds, value);
                let readings = vec![seconds(ROUND_TRIP_P50, p50), seconds(ROUND_TRIP_P99, p99)];
                Ok(readings.into())
            }
            Self::Connects => {
                let connects = Connects {
                    short: SHORT.map(|port| way.to(port)).to_vec(),
                    at_a_time: AT_A_TIME,
                    until: Until::Passed(duration),
                };
                let connects = way.from.run(&connects).await?;
                let rate = connects.per_second();
                Ok(Outcome {
                    readings: vec![Reading::new(CONNECTS, Unit::PerSecond, rate)],
                    failed: connects.failed,
                    why: connects.why,
                })
            }
            Self::Http(what, client, amount) => {
                let requests = client.ask(&way.from, way.to(HTTP), amount);
                let requests = requests.await?;
                Ok(Outcome {
                    readings: vec![Reading::new(what, Unit::PerSecond, requests.per_second)],
                    failed: requests.errors,
                    why: requests.why,
                })
            }
            Self::Flow(direction) => flow(way, direction, duration).await.map(Into::into),
        }
    }
}

/// One flow, and what client and agent take for it.
async fn flow(way: &Way, direction: Direction, duration: Duration) -> Result<Vec<Reading>> {
    let (rate, cost) = match direction {
        Direction::Up => (ONE_FLOW_UP, CPU_UP),
        Direction::Down => (ONE_FLOW_DOWN, CPU_DOWN),
    };
    let processes = match &way.agent {
        Ok(agent) => way.client.with(agent),
        Err(_) => Processes::default(),
    };
    let before = processes.cpu()?;
    let to = way.to(IPERF3);
    let client = || way.from.command(iperf::IPERF3);
    let flow = iperf::flow(client, to, direction, duration, APPLICATIONS).await?;
    let mut readings = vec![Reading::new(
        rate,
        Unit::BitsPerSecond,
        flow.bits_per_second,
    )];
    if processes.count() > 0 {
        let used = (processes.cpu()? - before).as_secs_f64() / (flow.bytes / 1e9);
        readings.push(Reading::new(cost, Unit::SecondsPerGigabyte, used));
    }
    Ok(readings)
}

/// What a row has given so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) readings: Vec<Reading>,
    /// What is missing, and why.
    missing: Vec<String>,
    /// What can't be measured here, and why.
    pub(super) absent: Vec<String>,
    failed: u64,
}

impl Findings {
    /// Adds what a load gives; tells whether it did.
    async fn add(&mut self, load: Load, scene: &Scene, way: &mut Way, duration: Duration) -> bool {
        let mut samples: Vec<Vec<Reading>> = Vec::new();
        for _ in 0..load.in_a_row() {
            match load.until_a_way_lasts(scene, way, duration).await {
                Ok(readings) => samples.push(readings),
                Err(Missing { failed, why }) => {
                    self.failed += failed;
                    self.missing.push(format!("{}: {why}", load.name()));
                    return false;
                }
            }
        }
        self.readings.extend(medians(&samples));
        true
    }

    pub(super) fn end(self) -> Result<Vec<Reading>> {
        let Self {
            readings,
            missing,
            absent,
            ..
        } = self;
        match missing.is_empty() && absent.is_empty() {
            true => Ok(readings),
            false => Err(Partial {
                readings,
                wrong: missing,
                absent,
            }
            .into()),
        }
    }
}

/// Of samples of the same load.
fn medians(samples: &[Vec<Reading>]) -> Vec<Reading> {
    let mut medians = samples.first().cloned().unwrap_or_default();
    for (place, reading) in medians.iter_mut().enumerate() {
        let values = samples.iter().map(|sample| sample[place].value);
        reading.value = median(values.collect());
    }
    medians
}

/// All loads but the long one.
///
/// # Errors
/// [`Partial`] where something is missing.
pub(super) async fn all(scene: &Scene, way: &mut Way, duration: Duration) -> Result<Vec<Reading>> {
    let mut findings = Findings::default();
    if let Err(why) = &way.agent {
        findings.absent.push(format!("{CPU_UP}, {CPU_DOWN}: {why}"));
    }
    for load in Load::all() {
        if !findings.add(load, scene, way, duration).await
            && let Err(error) = way.lasts().await
        {
            let why = format!("all behind that: nothing answers any more ({error:#})");
            findings.missing.push(why);
            return findings.end();
        }
    }
    let failed = findings.failed as f64;
    findings
        .readings
        .push(Reading::new(ERRORS, Unit::Count, failed));
    match disturbed(scene, way).await {
        Ok(disturbed) => findings.readings.push(disturbed),
        Err(error) => findings.missing.push(format!("{DISTURBED}: {error:#}")),
    }
    findings.end()
}

async fn disturbed(scene: &Scene, way: &mut Way) -> Result<Reading> {
    way.renew(scene).await?;
    let resets = Resets {
        count: RESETS,
        echo: way.to(ECHO),
        reset: way.to(RESET),
        short: way.to(SHORT[0]),
    };
    let (disturbed, why) = way.from.run(&resets).await?;
    Ok(counted(DISTURBED, disturbed, why.as_deref()))
}

/// Says what went wrong, since the table only has how often.
pub(super) fn counted(what: &'static str, failed: u64, why: Option<&str>) -> Reading {
    if failed > 0 {
        eprintln!("{what}: {failed}; {}", why.unwrap_or_default());
    }
    Reading::new(what, Unit::Count, failed as f64)
}
