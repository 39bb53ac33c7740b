//! One run of a cell.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pmz_cli::playground::link::{LinkSpec, PipeCounters};
use pmz_tests::tcp::{Bed, Setting, View};
use serde::Serialize;
use tokio::task::block_in_place;

use super::cells::{Cell, Course, Link};
use super::connects;
use super::flows::{Connected, Ends, Flows};
use super::goal::Quantity;
use super::series::Series;
use crate::congestion::Congestion;
use crate::load::{self, Way};
use crate::stats::{jain, mean};

/// Bytes are counted this often.
const TICK: Duration = Duration::from_millis(10);
/// Before an outage: the time whose rate is to come back.
const BEFORE_OUTAGE: Duration = Duration::from_secs(2);
/// Not counted at the start of a flow without a link.
const CLEAN_WARM_UP: Duration = Duration::from_millis(500);
/// What the services' own sockets use.
const LOCAL: Congestion = Congestion::Cubic;

/// Whose TCP is at the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    Kernel,
    Ours,
}

/// What one run is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) round: u32,
    /// A flow is measured at least that long.
    pub(crate) duration: Duration,
    /// Connections are made for so long.
    pub(crate) connects_for: Duration,
    pub(crate) setting: Setting,
}

/// What one run of one side told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) round: u32,
    pub(crate) side: Side,
    pub(crate) values: BTreeMap<Quantity, f64>,
    /// Bits per second of each flow.
    pub(crate) flows_bps: Vec<f64>,
    /// What Linux says of the client's sockets.
    pub(crate) client: Vec<View>,
    /// What it says of the server's, where they are the link's other end.
    pub(crate) server: Vec<View>,
    /// What became of the packets on the link, from the client and to it.
    pub(crate) link: Option<[Passed; 2]>,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Passed {
    delivered: u64,
    lost: u64,
    dropped: u64,
}

impl From<PipeCounters> for Passed {
    fn from(counters: PipeCounters) -> Self {
        Self {
            delivered: counters.delivered,
            lost: counters.lost,
            dropped: counters.dropped,
        }
    }
}

impl Cell {
    /// Measures both sides once, or ours alone where there is nothing of the kernel's to compare with.
    /// Which one is first changes from round to round.
    pub(crate) async fn measure(&self, run: &Run) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        match &self.course {
            Course::Flow(way, link) => {
                for side in in_order(run.round) {
                    samples.push(self.flow(run, side, *way, link, None).await?);
                }
            }
            Course::Outage(way, link, outage) => {
                for side in in_order(run.round) {
                    samples.push(self.flow(run, side, *way, link, Some(*outage)).await?);
                }
            }
            Course::Shares(way, link, flows) => {
                samples.extend(self.shares(run, *way, link, *flows).await?);
            }
            Course::Clean(way, flows) => samples.push(self.clean(run, *way, *flows).await?),
            Course::RoundTrips => samples.push(self.round_trips(run).await?),
            Course::Connects(at_a_time) => samples.push(self.connects(run, *at_a_time).await?),
        }
        Ok(samples)
    }

    async fn over(&self, link: &Link, run: &Run) -> Result<Bed> {
        Bed::over_link(
            link.spec,
            u64::from(run.round),
            run.setting,
            self.congestion.into(),
        )
        .await
    }

    async fn flow(
        &self,
        run: &Run,
        side: Side,
        way: Way,
        link: &Link,
        outage: Option<Duration>,
    ) -> Result<Sample> {
        let bed = self.over(link, run).await?;
        let spec: LinkSpec = link.spec.parse()?;
        let emulator = bed.link.as_ref().context("no link")?;
        block_in_place(|| {
            let flows = Connected::new(ends(&bed, side, way, self.congestion), 1)?.start()?;
            let (start, mut end) = (link.warm_up, link.warm_up + run.duration.max(link.at_least));
            let mut watch = Watch::new();
            let mut values = BTreeMap::new();
            let mut from = start;
            if let Some(outage) = outage {
                let begin = start + BEFORE_OUTAGE;
                watch.until(begin, &[&flows]);
                let total = LinkSpec {
                    loss: 1.0,
                    ..spec.clone()
                };
                emulator.set_spec(total);
                watch.until(begin + outage, &[&flows]);
                emulator.set_spec(spec);
                from = watch.elapsed();
                end += BEFORE_OUTAGE + outage;
                watch.until(end, &[&flows]);
                let before = watch.series[0].rate(start, begin);
                let back = watch.series[0].recovery(from, before);
                let seconds = back.map_or(f64::INFINITY, |back| back.as_secs_f64());
                values.insert(Quantity::Recovery, seconds);
            }
            watch.until(end, &[&flows]);
            let flows_bps = watch.series[0].rates(from, end);
            values.insert(Quantity::Rate, flows_bps.iter().sum());
            sample(run, side, values, flows_bps, flows, &bed)
        })
    }

    async fn shares(&self, run: &Run, way: Way, link: &Link, count: usize) -> Result<Vec<Sample>> {
        let bed = self.over(link, run).await?;
        block_in_place(|| {
            let sides = in_order(run.round);
            let connect = |side| Connected::new(ends(&bed, side, way, self.congestion), count);
            let connected = (connect(sides[0])?, connect(sides[1])?);
            let flows = [connected.0.start()?, connected.1.start()?];
            let end = link.warm_up + run.duration.max(link.at_least);
            let mut watch = Watch::new();
            watch.until(end, &[&flows[0], &flows[1]]);
            let rates = watch
                .series
                .iter()
                .map(|series| series.rates(link.warm_up, end));
            let rates: Vec<Vec<f64>> = rates.collect();
            let mut samples = Vec::new();
            for (at, flows) in flows.into_iter().enumerate() {
                let (own, other) = (&rates[at], &rates[1 - at]);
                let values = BTreeMap::from([
                    (Quantity::Rate, own.iter().sum()),
                    (Quantity::Share, mean(own) / mean(other)),
                    (Quantity::Jain, jain(own)),
                ]);
                samples.push(sample(run, sides[at], values, own.clone(), flows, &bed)?);
            }
            Ok(samples)
        })
    }

    async fn clean(&self, run: &Run, way: Way, count: usize) -> Result<Sample> {
        let bed = Bed::clean(run.setting, self.congestion.into()).await?;
        block_in_place(|| {
            let ends = ends(&bed, Side::Ours, way, self.congestion);
            let flows = Connected::new(ends, count)?.start()?;
            let end = CLEAN_WARM_UP + run.duration;
            let mut watch = Watch::new();
            watch.until(end, &[&flows]);
            let flows_bps = watch.series[0].rates(CLEAN_WARM_UP, end);
            let values = BTreeMap::from([(Quantity::Rate, flows_bps.iter().sum())]);
            sample(run, Side::Ours, values, flows_bps, flows, &bed)
        })
    }

    async fn round_trips(&self, run: &Run) -> Result<Sample> {
        let bed = Bed::clean(run.setting, self.congestion.into()).await?;
        let course = load::Course {
            from: &bed.client,
            to: &bed.service,
            at: bed.ours_at,
            dialled: bed.ours_at,
            congestion: self.congestion,
            duration: Duration::ZERO,
        };
        let (p50, p99) = block_in_place(|| course.round_trip())?;
        Ok(Sample::of(
            run,
            [(Quantity::RoundTripP50, p50), (Quantity::RoundTripP99, p99)],
        ))
    }

    async fn connects(&self, run: &Run, at_a_time: usize) -> Result<Sample> {
        let bed = Bed::clean(run.setting, self.congestion.into()).await?;
        let (from, to) = (&bed.client, &bed.service);
        let connects = block_in_place(|| {
            connects::measure(from, to, bed.ours_at, at_a_time, run.connects_for)
        })?;
        Ok(Sample::of(
            run,
            [
                (Quantity::Connects, connects.per_second),
                (Quantity::SlowestSecond, connects.slowest_second),
                (Quantity::Failures, connects.failed as f64),
                (Quantity::MemoryStart, connects.memory[0]),
                (Quantity::MemoryEnd, connects.memory[1]),
            ],
        ))
    }
}

fn in_order(round: u32) -> [Side; 2] {
    match round % 2 {
        0 => [Side::Kernel, Side::Ours],
        _ => [Side::Ours, Side::Kernel],
    }
}

fn ends(bed: &Bed, side: Side, way: Way, congestion: Congestion) -> Ends<'_> {
    let (to, at, server) = match side {
        Side::Kernel => (&bed.server, bed.kernel_at, congestion),
        Side::Ours => (&bed.service, bed.ours_at, LOCAL),
    };
    Ends {
        from: &bed.client,
        to,
        at,
        way,
        client: congestion,
        server,
    }
}

/// Asks the kernel, and ends the flows. Fails where one had ended before.
fn sample(
    run: &Run,
    side: Side,
    values: BTreeMap<Quantity, f64>,
    flows_bps: Vec<f64>,
    flows: Flows,
    bed: &Bed,
) -> Result<Sample> {
    let sample = Sample {
        round: run.round,
        side,
        values,
        flows_bps,
        client: flows.client_views(),
        server: match side {
            Side::Kernel => flows.server_views(),
            Side::Ours => Vec::new(),
        },
        link: bed
            .link
            .as_ref()
            .map(|link| link.counters().map(Passed::from)),
    };
    flows.finish()?;
    Ok(sample)
}

impl Sample {
    /// One of ours, of nothing but these.
    fn of<const N: usize>(run: &Run, values: [(Quantity, f64); N]) -> Self {
        Self {
            round: run.round,
            side: Side::Ours,
            values: BTreeMap::from(values),
            flows_bps: Vec::new(),
            client: Vec::new(),
            server: Vec::new(),
            link: None,
        }
    }
}

/// Counts the bytes of flows from its making on.
struct Watch {
    start: Instant,
    series: Vec<Series>,
}

impl Watch {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            series: Vec::new(),
        }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Watches until then. The same flows in each call.
    fn until(&mut self, end: Duration, flows: &[&Flows]) {
        self.series.resize(flows.len(), Series::default());
        loop {
            let now = self.elapsed();
            for (series, flows) in self.series.iter_mut().zip(flows) {
                series.add(now, flows.read());
            }
            if now >= end {
                return;
            }
            thread::sleep(TICK.min(end - now));
        }
    }
}
