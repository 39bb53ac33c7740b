//! The section `bare`: two namespaces and a veth pair between them, and what tunnels make of it.

mod tunnel;
mod wireguard;

use anyhow::Result;
use async_trait::async_trait;
use pmz_tests::WireguardGo;
use std::time::Duration;

pub(crate) use tunnel::Carrier;

use crate::agent::{self, Setting};
use crate::goal::{Bound, Figure, Goal};
use crate::lab::{API_SERVER, APPLICATIONS, ASKED, Congestion, Lab};
use crate::load::{Course, ONE_FLOW_DOWN, ONE_FLOW_UP};
use crate::reading::Reading;
use crate::section::{self, Absent, Run, Section};
use tunnel::BareTunnel;
use wireguard::WireguardGoTunnel;

const WARM_UP: Duration = Duration::from_millis(500);

/// The section.
pub(crate) struct Bare;

/// One row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// The bare machine.
    Veth,
    /// The peer.
    WireguardGo,
    /// pmz's engine at both ends, without agent and NAT.
    Pmz(Carrier),
    /// The whole product: from the laptop to a pod.
    Agent(Carrier),
    /// As the one by UDP, with virtual addresses on the laptop.
    Remapped,
}

const ROWS: [Row; 7] = [
    Row::Veth,
    Row::WireguardGo,
    Row::Pmz(Carrier::Udp),
    Row::Pmz(Carrier::Stream),
    Row::Agent(Carrier::Udp),
    Row::Remapped,
    Row::Agent(Carrier::Stream),
];

impl Row {
    const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::WireguardGo => "wireguard-go",
            Self::Pmz(Carrier::Udp) => "bare-udp",
            Self::Pmz(Carrier::Stream) => "bare-stream",
            Self::Agent(Carrier::Udp) => "agent-udp",
            Self::Remapped => "agent-udp-remap",
            Self::Agent(Carrier::Stream) => "agent-stream",
        }
    }

    fn description(self) -> String {
        let told = match self {
            Self::Veth => "the two namespaces as they are",
            Self::WireguardGo => "wireguard-go at both ends",
            Self::Pmz(Carrier::Udp) => "pmz's engine at both ends, by UDP",
            Self::Pmz(Carrier::Stream) => {
                "pmz's engine at both ends, by streams over TCP connections"
            }
            Self::Agent(Carrier::Udp) => "`pmz up` by UDP, the agent's NAT, a server in a pod",
            Self::Remapped => "the same, with virtual addresses",
            Self::Agent(Carrier::Stream) => {
                "`pmz up` by streams through the API server, the agent's NAT, a server in a pod"
            }
        };
        let streams =
            |up: Congestion, down: Congestion| format!("{told}; streams {up} up, {down} down");
        match self {
            Self::Veth
            | Self::WireguardGo
            | Self::Pmz(Carrier::Udp)
            | Self::Agent(Carrier::Udp)
            | Self::Remapped => told.to_owned(),
            Self::Pmz(Carrier::Stream) => {
                streams(tunnel::STREAM_CONGESTION, tunnel::STREAM_CONGESTION)
            }
            Self::Agent(Carrier::Stream) => streams(ASKED, API_SERVER),
        }
    }

    async fn measure(self, run: &Run) -> Result<Vec<Reading>> {
        let lab = async || Lab::new().await;
        let carrier = match self {
            Self::Veth => {
                let lab = lab().await?;
                return load(lab.course(lab.server.address), run);
            }
            Self::WireguardGo => {
                if !WireguardGo::is_installed() {
                    return Err(Absent("it is not installed".into()).into());
                }
                let lab = lab().await?;
                let tunnel = WireguardGoTunnel::between(&lab).await?;
                return load(lab.course(tunnel.server_address), run);
            }
            Self::Pmz(carrier) => {
                let lab = lab().await?;
                let tunnel = BareTunnel::new(&lab, carrier).await?;
                return load(lab.course(tunnel.server_address), run);
            }
            Self::Agent(carrier) => carrier,
            Self::Remapped => Carrier::Udp,
        };
        let setting = Setting {
            link: None,
            seed: 0,
            carrier,
            api_server: API_SERVER,
            applications: APPLICATIONS,
            remapped: self == Self::Remapped,
            verbose: run.verbose,
        };
        agent::measure(&setting, async |course| load(course, run)).await
    }
}

fn load(course: Course<'_>, run: &Run) -> Result<Vec<Reading>> {
    let course = Course {
        warm_up: WARM_UP,
        duration: run.duration,
        ..course
    };
    tokio::task::block_in_place(|| course.measure())
}

#[async_trait(?Send)]
impl Section for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn title(&self) -> String {
        format!("two namespaces on one machine, veth of MTU 1500; applications on {APPLICATIONS}")
    }

    fn rows(&self) -> Vec<section::Row> {
        let row = |row: Row| section::Row {
            name: row.name(),
            description: row.description(),
        };
        ROWS.map(row).to_vec()
    }

    fn goals(&self) -> Vec<Goal> {
        let of = |row: Row, what| Figure::new(row.name(), what);
        let mut goals = Vec::new();
        for what in [ONE_FLOW_UP, ONE_FLOW_DOWN] {
            goals.push(Goal::ratio(
                format!("{what}, UDP, against wireguard-go"),
                of(Row::Pmz(Carrier::Udp), what),
                of(Row::WireguardGo, what),
                Bound::RatioAtLeast(2.0),
            ));
        }
        goals
    }

    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>> {
        ROWS[row].measure(run).await
    }
}
