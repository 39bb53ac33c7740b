//! The section `rest`: what pmz takes while nothing, or little, goes through it.

mod datagram;
mod peers;

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use pmz_cli::playground::netns::NetNs;
use pmz_cli::playground::world::World;
use tokio::time::sleep;

use crate::agent::{self, Carrier, Setting};
use crate::congestion::{API_SERVER, APPLICATIONS};
use crate::goal::{Bound, Figure, Goal};
use crate::iperf;
use crate::load::{Course, ONE_FLOW_DOWN, ONE_FLOW_UP, Way};
use crate::processes::Processes;
use crate::reading::{Reading, Unit};
use crate::section::{self, Run, Section};
use peers::Peers;

/// How long a process is looked at that does little.
const WATCHED: Duration = Duration::from_secs(10);
/// After connecting, or after something changed: first exchanges are over, and pools have their size.
const SETTLED: Duration = Duration::from_secs(3);
/// Clients of an agent beside the laptop: together as many as it serves.
const OTHERS: usize = 999;
/// Datagrams per second and client, each of which is answered.
const A_LITTLE: u32 = 10;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

const DAEMON_CPU: &str = "daemon's CPU";
const DAEMON_MEMORY: &str = "daemon's memory";
const HELPER_MEMORY: &str = "helper's memory";
const AGENT_CPU: &str = "agent's CPU";
const AGENT_MEMORY: &str = "agent's memory";
const PER_PEER: &str = "agent's memory per idle peer";
const IDLE_CPU: &str = "agent's CPU, 1,000 peers idle";
const MOVING_CPU: &str = "agent's CPU, 1,000 peers moving a little";
const FLOWS: [(&str, Way); 2] = [(ONE_FLOW_UP, Way::Up), (ONE_FLOW_DOWN, Way::Down)];

/// The section.
pub(crate) struct Rest;

/// One row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// One machine that is connected.
    Connected,
    /// As many clients as one agent serves.
    Full,
}

const ROWS: [Row; 2] = [Row::Connected, Row::Full];

impl Row {
    const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Full => "full-agent",
        }
    }

    fn description(self) -> String {
        match self {
            Self::Connected => "`pmz up` by UDP and an agent, with no traffic".into(),
            Self::Full => format!(
                "the same, and {OTHERS} more WireGuard peers with sessions of that agent; a little: {A_LITTLE} datagrams a \
                 second of each to a service and back"
            ),
        }
    }

    async fn measure(self, run: &Run) -> Result<Vec<Reading>> {
        let setting = Setting {
            link: None,
            seed: 0,
            carrier: Carrier::Udp,
            api_server: API_SERVER,
            applications: APPLICATIONS,
            remapped: false,
            verbose: run.verbose,
        };
        agent::measure(&setting, async |world, course| {
            let course = Course {
                duration: run.duration,
                ..course
            };
            match self {
                Self::Connected => connected(world, &course).await,
                Self::Full => full(world, &course).await,
            }
        })
        .await
    }
}

async fn connected(world: &World, course: &Course<'_>) -> Result<Vec<Reading>> {
    iperf::is_needed()?;
    let laptop = world.playground().laptop().netns();
    let daemon = Processes::of(laptop, &["daemon"])?;
    let helper = Processes::of(laptop, &["helper"])?;
    let agent = Processes::of(&agent_netns(world)?, &["agent"])?;
    sleep(SETTLED).await;
    let before = [daemon.cpu()?, agent.cpu()?];
    sleep(WATCHED).await;
    let share = |before: Duration, now: Duration| (now - before).div_duration_f64(WATCHED);
    let mut readings = vec![
        Reading::new(DAEMON_CPU, Unit::Share, share(before[0], daemon.cpu()?)),
        Reading::new(DAEMON_MEMORY, Unit::Bytes, daemon.resident()?),
        Reading::new(HELPER_MEMORY, Unit::Bytes, helper.resident()?),
        Reading::new(AGENT_CPU, Unit::Share, share(before[1], agent.cpu()?)),
        Reading::new(AGENT_MEMORY, Unit::Bytes, agent.resident()?),
    ];
    readings.extend(flows(course).await?);
    Ok(readings)
}

async fn full(world: &World, course: &Course<'_>) -> Result<Vec<Reading>> {
    iperf::is_needed()?;
    let agent = Processes::of(&agent_netns(world)?, &["agent"])?;
    sleep(SETTLED).await;
    let mut readings = Vec::new();
    // Before any flow, whose buffers the agent keeps for the next ones.
    let without = agent.resident()?;
    let peers = Peers::new(world, &agent_netns(world)?, OTHERS).await?;
    sleep(SETTLED).await;
    let per_peer = (agent.resident()? - without) / OTHERS as f64;
    readings.push(Reading::new(PER_PEER, Unit::Bytes, per_peer));

    let cpu = async || -> Result<f64> {
        let before = agent.cpu()?;
        sleep(WATCHED).await;
        Ok((agent.cpu()? - before).div_duration_f64(WATCHED))
    };
    readings.push(Reading::new(IDLE_CPU, Unit::Share, cpu().await?));
    readings.extend(flows(course).await?);
    peers.begin(A_LITTLE);
    sleep(SETTLED).await;
    let moving = cpu().await?;
    peers.leave().await.context("peers that move a little")?;
    readings.push(Reading::new(MOVING_CPU, Unit::Share, moving));
    Ok(readings)
}

/// The laptop's own.
async fn flows(course: &Course<'_>) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for (what, way) in FLOWS {
        let rate = iperf::flows(course, way, 1).await.context(what)?;
        readings.push(Reading::new(what, Unit::BitsPerSecond, rate));
    }
    Ok(readings)
}

fn agent_netns(world: &World) -> Result<NetNs> {
    let agent = world.agents().first().context("no agent")?;
    let pod = world.playground().pod(&format!("pmz/{}", agent.pod()));
    Ok(pod.context("no agent's pod")?.netns().clone())
}

#[async_trait(?Send)]
impl Section for Rest {
    fn name(&self) -> &'static str {
        "rest"
    }

    fn title(&self) -> String {
        "what pmz takes while nothing or little goes through it; of CPU, 100 % is one core".into()
    }

    fn rows(&self) -> Vec<section::Row> {
        let row = |row: Row| section::Row {
            name: row.name(),
            description: row.description(),
        };
        ROWS.map(row).to_vec()
    }

    fn goals(&self) -> Vec<Goal> {
        let most = |row: Row, what, most| {
            Goal::absolute(what, Figure::new(row.name(), what), Bound::AtMost(most))
        };
        let mut goals = vec![
            most(Row::Connected, DAEMON_CPU, 0.005),
            most(Row::Connected, DAEMON_MEMORY, 40.0 * MIB),
            most(Row::Connected, AGENT_MEMORY, 32.0 * MIB),
            most(Row::Full, PER_PEER, 8.0 * KIB),
            most(Row::Full, MOVING_CPU, 1.0),
        ];
        for (what, _) in FLOWS {
            goals.push(Goal::ratio(
                format!("{what}: {OTHERS} idle peers beside it, against alone"),
                Figure::new(Row::Full.name(), what),
                Figure::new(Row::Connected.name(), what),
                Bound::RatioAtLeast(0.95),
            ));
        }
        goals
    }

    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>> {
        ROWS[row].measure(run).await
    }
}
