//! The section `bare`: two namespaces and a veth pair between them, and what tunnels make of it.

mod goals;
mod idle;
mod load;
mod tunnel;
mod wireguard;

use anyhow::Result;
use async_trait::async_trait;
use pmz_tests::{BORINGTUN, GOTATUN, WIREGUARD_GO, WireguardProgram};

use crate::agent::{self, Carrier, Setting};
use crate::congestion::{API_SERVER, APPLICATIONS, ASKED, Congestion};
use crate::goal::Goal;
use crate::lab::Lab;
use crate::load::{ONE_FLOW_DOWN, ONE_FLOW_UP};
use crate::reading::Reading;
use crate::section::{self, Chart, Run, Section};
use tunnel::BareTunnel;
use wireguard::WireguardTunnel;

/// The section.
pub(crate) struct Bare;

/// One row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// The bare machine.
    Veth,
    /// A peer.
    Wireguard(WireguardProgram),
    /// pmz's engine at both ends, without agent and NAT.
    Pmz(Carrier),
    /// The whole product: from the laptop to a pod.
    Agent(Carrier),
    /// As the one by UDP, with virtual addresses on the laptop.
    Remapped,
    /// The NAT by itself, without tunnel and crypto.
    Nat,
}

const ROWS: [Row; 10] = [
    Row::Veth,
    Row::Wireguard(WIREGUARD_GO),
    Row::Wireguard(BORINGTUN),
    Row::Wireguard(GOTATUN),
    Row::Pmz(Carrier::Udp),
    Row::Pmz(Carrier::Stream),
    Row::Agent(Carrier::Udp),
    Row::Remapped,
    Row::Agent(Carrier::Stream),
    Row::Nat,
];

impl Row {
    const fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::Wireguard(program) => program.name,
            Self::Pmz(Carrier::Udp) => "bare-udp",
            Self::Pmz(Carrier::Stream) => "bare-stream",
            Self::Agent(Carrier::Udp) => "agent-udp",
            Self::Remapped => "agent-udp-remap",
            Self::Agent(Carrier::Stream) => "agent-stream",
            Self::Nat => "nat",
        }
    }

    fn description(self) -> String {
        let streams = |told: &str, up: Congestion, down: Congestion| {
            format!("{told}; streams {up} up, {down} down")
        };
        match self {
            Self::Veth => "the two namespaces as they are".into(),
            Self::Wireguard(program) => format!("{} at both ends", program.name),
            Self::Pmz(Carrier::Udp) => "pmz's engine at both ends, by UDP".into(),
            Self::Pmz(Carrier::Stream) => streams(
                "pmz's engine at both ends, by streams over TCP connections",
                tunnel::STREAM_CONGESTION,
                tunnel::STREAM_CONGESTION,
            ),
            Self::Agent(Carrier::Udp) => {
                "`pmz up` by UDP, the agent's NAT, a server in a pod".into()
            }
            Self::Remapped => "the same, with virtual addresses".into(),
            Self::Agent(Carrier::Stream) => streams(
                "`pmz up` by streams through the API server, the agent's NAT, a server in a pod",
                ASKED,
                API_SERVER,
            ),
            Self::Nat => {
                "the agent's NAT on a TUN, without tunnel and crypto: what its threads cost".into()
            }
        }
    }

    async fn measure(self, run: &Run) -> Result<Vec<Reading>> {
        let carrier = match self {
            Self::Veth => {
                let lab = Lab::new().await?;
                return load::measure(lab.course(lab.server.address), run).await;
            }
            Self::Wireguard(program) => {
                let lab = Lab::new().await?;
                let tunnel = WireguardTunnel::between(&lab, program).await?;
                return load::measure(lab.course(tunnel.server_address), run).await;
            }
            Self::Pmz(carrier) => {
                let lab = Lab::new().await?;
                let tunnel = BareTunnel::new(&lab, carrier).await?;
                return load::measure(lab.course(tunnel.server_address), run).await;
            }
            Self::Nat => return idle::measure(run).await,
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
        agent::measure(&setting, async |_, course| load::measure(course, run).await).await
    }
}

#[async_trait(?Send)]
impl Section for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn title(&self) -> String {
        format!(
            "two namespaces on one machine, veth of MTU 1500; iperf3, applications on {APPLICATIONS}"
        )
    }

    fn rows(&self) -> Vec<section::Row> {
        let row = |row: Row| section::Row {
            name: row.name(),
            description: row.description(),
        };
        ROWS.map(row).to_vec()
    }

    fn goals(&self) -> Vec<Goal> {
        goals::all()
    }

    fn charts(&self) -> Vec<Chart> {
        vec![Chart {
            file: "bare-tunnel",
            title: "One TCP flow through a tunnel",
            note: "Two namespaces on one machine, which also does the load (iperf3).",
            groups: vec![("up", ONE_FLOW_UP), ("down", ONE_FLOW_DOWN)],
            bars: vec![
                ("pmz by UDP", Row::Pmz(Carrier::Udp).name()),
                ("pmz by streams", Row::Pmz(Carrier::Stream).name()),
                ("pmz by UDP, agent and NAT", Row::Agent(Carrier::Udp).name()),
                ("wireguard-go", WIREGUARD_GO.name),
                ("boringtun-cli", BORINGTUN.name),
                ("gotatun", GOTATUN.name),
            ],
            aside: Some(("The veth pair by itself", Row::Veth.name())),
        }]
    }

    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>> {
        ROWS[row].measure(run).await
    }
}
