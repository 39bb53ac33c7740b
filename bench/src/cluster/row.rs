//! The rows, and what each one measures.

use std::time::Duration;

use anyhow::{Context, Result};

use super::load::{self, Resets, Until};
use super::programs::{self, Amount};
use super::scene::{HTTP, IPERF3, Scene};
use super::server::{ECHO, RESET, SHORT};
use super::way::Way;
use crate::bare::Carrier;
use crate::lab::APPLICATIONS;
use crate::load::{ONE_FLOW_DOWN, ONE_FLOW_UP, ROUND_TRIP_P50, ROUND_TRIP_P99, Way as Direction};
use crate::processes::Processes;
use crate::reading::{Reading, Unit};
use crate::section::Run;

/// Requests on connections that are kept: the loads that the goals name.
pub(super) const KEEP_ALIVE: [(&str, Amount); 3] = [
    ("HTTP 1000/50", amount(1000, 50)),
    ("HTTP 5000/100", amount(5000, 100)),
    ("HTTP 10000/300", amount(10_000, 300)),
];
pub(super) const CONNECTION_EACH: &str = "HTTP, a connection each";
const CONNECTIONS: Amount = amount(1000, 50);
/// Connections at a time where they are counted.
const AT_A_TIME: usize = 16;
/// Connections that are reset.
const RESETS: u32 = 20;
/// Short connections in a row, and how many at a time.
const MANY: (usize, usize) = (200_000, 300);

/// What a reading is called.
pub(super) const CONNECTS: &str = "new connections";
pub(super) const CPU_UP: &str = "CPU up";
pub(super) const CPU_DOWN: &str = "CPU down";
pub(super) const ERRORS: &str = "errors";
pub(super) const DISTURBED: &str = "disturbed by resets";
pub(super) const MANY_ERRORS: &str = "200,000 connections: errors";
pub(super) const MANY_RATE: &str = "200,000 connections";
pub(super) const MANY_LAST: &str = "the last tenth's rate by the first's";
pub(super) const CLIENT_GROWTH: &str = "growth of the client";
pub(super) const AGENT_GROWTH: &str = "growth of the agent";

const fn amount(requests: u32, connections: u32) -> Amount {
    Amount {
        requests,
        connections,
    }
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// The node's own connections to the Service.
    Inside,
    /// `kubectl port-forward` to the pod.
    PortForward,
    Pmz(Carrier),
    /// 200,000 short connections in a row.
    Many(Carrier),
}

/// All of them, in the table's order.
pub(crate) const ALL: [Row; 6] = [
    Row::Inside,
    Row::PortForward,
    Row::Pmz(Carrier::Udp),
    Row::Pmz(Carrier::Stream),
    Row::Many(Carrier::Udp),
    Row::Many(Carrier::Stream),
];

impl Row {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Inside => "inside",
            Self::PortForward => "pf",
            Self::Pmz(Carrier::Udp) => "pmz-udp",
            Self::Pmz(Carrier::Stream) => "pmz-stream",
            Self::Many(Carrier::Udp) => "many-udp",
            Self::Many(Carrier::Stream) => "many-stream",
        }
    }

    /// What a reader is told.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Inside => "the node's own connections to the ClusterIP",
            Self::PortForward => "`kubectl port-forward` to the pod",
            Self::Pmz(Carrier::Udp) => "`pmz up --transport udp`, to the ClusterIP",
            Self::Pmz(Carrier::Stream) => "`pmz up --transport stream`, to the ClusterIP",
            Self::Many(Carrier::Udp) => "as pmz-udp: 200,000 short connections, 300 at a time",
            Self::Many(Carrier::Stream) => {
                "as pmz-stream: 200,000 short connections, 300 at a time"
            }
        }
    }

    /// Measures it once.
    pub(super) async fn measure(self, scene: &Scene, run: &Run) -> Result<Vec<Reading>> {
        let way = match self {
            Self::Inside => Way::inside(scene),
            Self::PortForward => Way::port_forward(scene).await?,
            Self::Pmz(carrier) => Way::pmz(scene, carrier).await?,
            // It takes minutes, and is about errors: once in a run.
            Self::Many(_) if run.round > 0 => return Ok(Vec::new()),
            Self::Many(carrier) => return many(&Way::pmz(scene, carrier).await?),
        };
        all(scene, way, run.duration).await
    }
}

/// All loads but the long one, each on a way that stands.
async fn all(scene: &Scene, mut way: Way, duration: Duration) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let mut failed = 0;
    let short = SHORT.map(|port| way.to(port));
    let (p50, p99) = load::round_trips(&way.from, way.to(ECHO)).context("round trips")?;
    readings.push(Reading::new(ROUND_TRIP_P50, Unit::Seconds, p50));
    readings.push(Reading::new(ROUND_TRIP_P99, Unit::Seconds, p99));

    way.renew(scene).await?;
    let connects = load::connects(&way.from, &short, AT_A_TIME, Until::Passed(duration))?;
    failed += told("new connections", connects.failed, connects.why.as_deref());
    readings.push(Reading::new(
        CONNECTS,
        Unit::PerSecond,
        connects.per_second(),
    ));

    for (what, amount) in KEEP_ALIVE {
        way.renew(scene).await?;
        let requests = programs::keep_alive(&scene.programs, &way.from, way.to(HTTP), amount);
        let requests = requests.await.context(what)?;
        failed += told(what, requests.errors, None);
        readings.push(Reading::new(what, Unit::PerSecond, requests.per_second));
    }
    way.renew(scene).await?;
    let requests = programs::ab(&scene.programs, &way.from, way.to(HTTP), CONNECTIONS);
    let requests = requests.await.context(CONNECTION_EACH)?;
    failed += told(CONNECTION_EACH, requests.errors, None);
    let rate = requests.per_second;
    readings.push(Reading::new(CONNECTION_EACH, Unit::PerSecond, rate));

    for (direction, rate, cost) in [
        (Direction::Up, ONE_FLOW_UP, CPU_UP),
        (Direction::Down, ONE_FLOW_DOWN, CPU_DOWN),
    ] {
        way.renew(scene).await?;
        let processes = way.client.with(&way.agent);
        let before = processes.cpu()?;
        let to = way.to(IPERF3);
        let flow = programs::flow(&way.from, to, direction, duration, APPLICATIONS);
        let flow = flow.await.context(rate)?;
        readings.push(Reading::new(
            rate,
            Unit::BitsPerSecond,
            flow.bits_per_second,
        ));
        if processes.count() > 0 {
            let used = (processes.cpu()? - before).as_secs_f64() / (flow.bytes / 1e9);
            readings.push(Reading::new(cost, Unit::SecondsPerGigabyte, used));
        }
    }
    readings.push(Reading::new(ERRORS, Unit::Count, failed as f64));

    way.renew(scene).await?;
    let resets = Resets {
        count: RESETS,
        echo: way.to(ECHO),
        reset: way.to(RESET),
        short: way.to(SHORT[0]),
    };
    let (disturbed, why) = resets.measure(&way.from)?;
    let disturbed = told("resets", disturbed, why.as_deref());
    readings.push(Reading::new(DISTURBED, Unit::Count, disturbed as f64));
    Ok(readings)
}

/// Says what went wrong, since the table only has how often.
fn told(what: &str, failed: u64, why: Option<&str>) -> u64 {
    if failed > 0 {
        eprintln!("{what}: {failed} went wrong; {}", why.unwrap_or_default());
    }
    failed
}

/// What the processes' resident memory has grown by.
fn growth(of: &Processes, before: f64) -> Result<f64> {
    Ok(of.resident()? - before)
}

fn many(way: &Way) -> Result<Vec<Reading>> {
    let (count, at_a_time) = MANY;
    let short = SHORT.map(|port| way.to(port));
    // Pools grow to what they need.
    load::connects(&way.from, &short, at_a_time, Until::Made(count / 10))?;
    let before = (way.client.resident()?, way.agent.resident()?);
    let connects = load::connects(&way.from, &short, at_a_time, Until::Made(count))?;
    let failed = told(MANY_RATE, connects.failed, connects.why.as_deref());
    let (first, last) = connects
        .first_and_last_tenth()
        .context("too few connections")?;
    Ok(vec![
        Reading::new(MANY_RATE, Unit::PerSecond, connects.per_second()),
        Reading::new(MANY_ERRORS, Unit::Count, failed as f64),
        Reading::new(MANY_LAST, Unit::Share, last / first),
        Reading::new(CLIENT_GROWTH, Unit::Bytes, growth(&way.client, before.0)?),
        Reading::new(AGENT_GROWTH, Unit::Bytes, growth(&way.agent, before.1)?),
    ])
}
