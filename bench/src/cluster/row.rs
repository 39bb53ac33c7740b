//! The rows, and what each one measures.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::load::{self, Until};
use super::processes::{Process, cpu_seconds};
use super::programs::{self, Amount};
use super::scene::{HTTP, IPERF3, Scene};
use super::server::{ECHO, ONCE, RESET};
use super::way::Way;
use crate::bare::Carrier;
use crate::lab::Congestion;
use crate::load::Way as Direction;
use crate::reading::{Reading, Unit};

/// What the applications use: what a developer's machine has.
const APPLICATIONS: Congestion = Congestion::Cubic;
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
const MANY: (u64, usize) = (200_000, 300);

/// What a reading is called.
pub(super) const UP: &str = "flow up";
pub(super) const DOWN: &str = "flow down";
pub(super) const RTT: &str = "round trip p50";
pub(super) const RTT_P99: &str = "round trip p99";
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
    /// A peer, which is only named as yet where it is installed.
    Peer(&'static str),
}

/// All of them, in the table's order.
pub(crate) const ALL: [Row; 8] = [
    Row::Inside,
    Row::PortForward,
    Row::Pmz(Carrier::Udp),
    Row::Pmz(Carrier::Stream),
    Row::Many(Carrier::Udp),
    Row::Many(Carrier::Stream),
    Row::Peer("telepresence"),
    Row::Peer("kubevpn"),
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
            Self::Peer(name) => name,
        }
    }

    /// What a reader is told.
    pub(crate) fn description(self) -> String {
        match self {
            Self::Inside => "from the node to the ClusterIP".into(),
            Self::PortForward => "kubectl port-forward to the pod".into(),
            Self::Pmz(Carrier::Udp) => "pmz up --transport udp".into(),
            Self::Pmz(Carrier::Stream) => "pmz up --transport stream".into(),
            Self::Many(Carrier::Udp) => "200,000 connections by UDP".into(),
            Self::Many(Carrier::Stream) => "200,000 connections by streams".into(),
            Self::Peer(name) => name.into(),
        }
    }

    /// Measures it once.
    pub(super) async fn measure(self, scene: &Scene, duration: Duration) -> Result<Vec<Reading>> {
        match self {
            Self::Inside => all(scene, Way::inside(scene), duration).await,
            Self::PortForward => all(scene, Way::port_forward(scene).await?, duration).await,
            Self::Pmz(carrier) => all(scene, Way::pmz(scene, carrier).await?, duration).await,
            Self::Many(carrier) => many(scene, &Way::pmz(scene, carrier).await?),
            Self::Peer(name) => anyhow::bail!("{name} is not driven"),
        }
    }
}

/// All loads but the long one, each on a way that stands.
async fn all(scene: &Scene, mut way: Way, duration: Duration) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    let mut failed = 0;
    let (p50, p99) = load::round_trips(&way.from, way.to(ECHO)).context("round trips")?;
    readings.push(Reading::new(RTT, Unit::Seconds, p50));
    readings.push(Reading::new(RTT_P99, Unit::Seconds, p99));

    way.renew(scene).await?;
    let connects = load::connects(&way.from, way.to(ONCE), AT_A_TIME, Until::Passed(duration))?;
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
    let requests = programs::connection_each(&scene.programs, &way.from, way.to(HTTP), CONNECTIONS);
    let requests = requests.await.context(CONNECTION_EACH)?;
    failed += told(CONNECTION_EACH, requests.errors, None);
    let rate = requests.per_second;
    readings.push(Reading::new(CONNECTION_EACH, Unit::PerSecond, rate));

    for (direction, rate, cost) in [
        (Direction::Up, UP, CPU_UP),
        (Direction::Down, DOWN, CPU_DOWN),
    ] {
        way.renew(scene).await?;
        let processes = [&way.client[..], &way.agent].concat();
        let before = cpu_seconds(&processes)?;
        let to = way.to(IPERF3);
        let flow = programs::flow(&way.from, to, direction, duration, APPLICATIONS);
        let flow = flow.await.context(rate)?;
        readings.push(Reading::new(
            rate,
            Unit::BitsPerSecond,
            flow.bits_per_second,
        ));
        if !processes.is_empty() {
            let used = (cpu_seconds(&processes)? - before) / (flow.bytes / 1e9);
            readings.push(Reading::new(cost, Unit::SecondsPerGigabyte, used));
        }
    }
    readings.push(Reading::new(ERRORS, Unit::Count, failed as f64));

    way.renew(scene).await?;
    let (disturbed, why) =
        load::resets(&way.from, way.to(ECHO), way.to(RESET), way.to(ONCE), RESETS)?;
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
fn growth(of: &[Process], before: f64) -> Result<f64> {
    Ok(memory(of)? - before)
}

fn memory(of: &[Process]) -> Result<f64> {
    of.iter().map(|it| it.memory()).sum()
}

fn many(scene: &Scene, way: &Way) -> Result<Vec<Reading>> {
    ensure!(!way.agent.is_empty(), "no agent in {:?}", scene.lab.name());
    let (count, at_a_time) = MANY;
    // Pools grow to what they need.
    load::connects(&way.from, way.to(ONCE), at_a_time, Until::Made(count / 10))?;
    let before = (memory(&way.client)?, memory(&way.agent)?);
    let connects = load::connects(&way.from, way.to(ONCE), at_a_time, Until::Made(count))?;
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
