//! The rows of the table: what each one measures, and in what setting.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use pmz_cli::playground::link::{LinkEmulator, LinkEnd, LinkSpec, QueueLimit};
use pmz_tests::WireguardGo;

use crate::agent::{self, Setting};
use crate::bare::{self, BareTunnel, Carrier};
use crate::lab::{self, Congestion, Lab};
use crate::load::{Course, Outcome};
use crate::wireguard::WireguardGoTunnel;

/// A flow over the emulated link is measured at least this long: some hundred round trips.
const LINK_DURATION: Duration = Duration::from_secs(5);
/// Time to find the link's rate, which isn't measured.
const LINK_WARM_UP: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_millis(500);
/// What the applications use where a row doesn't say otherwise: what a developer's machine has.
const APPLICATIONS: Congestion = Congestion::Cubic;
/// What most API servers' machines have.
const API_SERVER: Congestion = Congestion::Cubic;
/// What pmz asks for, for its own connections to the API server.
const ASKED: Congestion = Congestion::Bbr;

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// The bare machine.
    Veth,
    /// The peer.
    WireguardGo,
    /// pmz's engine at both ends, without agent and NAT.
    Bare(Carrier),
    /// The whole product: from the laptop to a pod.
    Agent(Carrier),
    /// As the one by UDP, with virtual addresses on the laptop.
    Remapped,
    /// TCP alone over the emulated link.
    LinkTcp(Congestion),
    /// The whole product by streams over the emulated link, whose API server has this congestion control.
    LinkStream(Congestion),
}

/// All of them, in the table's order.
pub(crate) const ALL: [Row; 11] = [
    Row::Veth,
    Row::WireguardGo,
    Row::Bare(Carrier::Udp),
    Row::Bare(Carrier::Stream),
    Row::Agent(Carrier::Udp),
    Row::Remapped,
    Row::Agent(Carrier::Stream),
    Row::LinkTcp(Congestion::Cubic),
    Row::LinkStream(Congestion::Cubic),
    Row::LinkTcp(Congestion::Bbr),
    Row::LinkStream(Congestion::Bbr),
];

/// What one measurement is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) duration: Duration,
    /// Where the emulated link's chances come from.
    pub(crate) seed: u64,
    pub(crate) verbose: bool,
}

impl Row {
    /// What `--only` looks at.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Veth => "veth",
            Self::WireguardGo => "wireguard-go",
            Self::Bare(Carrier::Udp) => "bare-udp",
            Self::Bare(Carrier::Stream) => "bare-stream",
            Self::Agent(Carrier::Udp) => "agent-udp",
            Self::Remapped => "agent-udp-remap",
            Self::Agent(Carrier::Stream) => "agent-stream",
            Self::LinkTcp(Congestion::Cubic) => "link-tcp-cubic",
            Self::LinkTcp(Congestion::Bbr) => "link-tcp-bbr",
            Self::LinkStream(Congestion::Cubic) => "link-stream-cubic",
            Self::LinkStream(Congestion::Bbr) => "link-stream-bbr",
        }
    }

    /// What a reader is told.
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Veth => "raw veth",
            Self::WireguardGo => "wireguard-go, bare tunnel",
            Self::Bare(Carrier::Udp) => "pmz UDP, bare tunnel",
            Self::Bare(Carrier::Stream) => "pmz stream, bare tunnel",
            Self::Agent(Carrier::Udp) => "pmz UDP, agent and NAT",
            Self::Remapped => "the same, virtual addresses",
            Self::Agent(Carrier::Stream) => "pmz stream, agent and NAT",
            Self::LinkTcp(_) => "link: plain TCP",
            Self::LinkStream(_) => "link: pmz stream, agent and NAT",
        }
    }

    /// Whose congestion control is which.
    pub(crate) fn congestion(self) -> String {
        let streams = |up: Congestion, down: Congestion| {
            format!("{APPLICATIONS}; streams up {up}, down {down}")
        };
        match self {
            Self::Veth
            | Self::WireguardGo
            | Self::Bare(Carrier::Udp)
            | Self::Agent(Carrier::Udp)
            | Self::Remapped => APPLICATIONS.to_string(),
            Self::Bare(Carrier::Stream) => {
                streams(bare::STREAM_CONGESTION, bare::STREAM_CONGESTION)
            }
            Self::Agent(Carrier::Stream) => streams(ASKED, API_SERVER),
            Self::LinkTcp(congestion) => congestion.to_string(),
            Self::LinkStream(node) => streams(ASKED, node),
        }
    }

    /// Measures it once, in a setting made for it, which is gone afterwards.
    pub(crate) async fn measure(self, run: &Run) -> Result<Outcome> {
        let setting = |link: Option<LinkSpec>, carrier, api_server| Setting {
            link,
            seed: run.seed,
            carrier,
            api_server,
            applications: APPLICATIONS,
            remapped: self == Self::Remapped,
            verbose: run.verbose,
        };
        match self {
            Self::Veth => {
                let lab = Lab::new().await?;
                self.load(&lab, lab.server.address, run)
            }
            Self::WireguardGo => {
                if !WireguardGo::is_installed() {
                    return Ok(Outcome::Absent("not installed".into()));
                }
                let lab = Lab::new().await?;
                let tunnel = WireguardGoTunnel::between(&lab).await?;
                self.load(&lab, tunnel.server_address, run)
            }
            Self::Bare(carrier) => {
                let lab = Lab::new().await?;
                let tunnel = BareTunnel::new(&lab, carrier).await?;
                self.load(&lab, tunnel.server_address, run)
            }
            Self::Agent(carrier) => {
                let setting = setting(None, carrier, API_SERVER);
                agent::measure(&setting, |course| self.course(course, run)).await
            }
            Self::Remapped => {
                let setting = setting(None, Carrier::Udp, API_SERVER);
                agent::measure(&setting, |course| self.course(course, run)).await
            }
            Self::LinkTcp(congestion) => {
                if !congestion.is_available()? {
                    return Ok(no(congestion));
                }
                self.plain(run).await
            }
            Self::LinkStream(node) => {
                for needed in [node, ASKED] {
                    if !needed.is_available()? {
                        return Ok(no(needed));
                    }
                }
                let setting = setting(Some(link()), Carrier::Stream, node);
                agent::measure(&setting, |course| self.course(course, run)).await
            }
        }
    }

    /// TCP over the link, with nothing else on the way.
    async fn plain(self, run: &Run) -> Result<Outcome> {
        let lab = Lab::unjoined().await?;
        let addresses = |of: IpAddr| Ok::<_, anyhow::Error>([IpNet::new(of, 24)?]);
        let (client, server) = (
            addresses(lab.client.address)?,
            addresses(lab.server.address)?,
        );
        let _link = LinkEmulator::between(
            LinkEnd {
                netns: &lab.client.netns,
                interface: lab::INTERFACE,
                addresses: &client,
            },
            LinkEnd {
                netns: &lab.server.netns,
                interface: lab::INTERFACE,
                addresses: &server,
            },
            lab::MTU,
            link(),
            run.seed,
        )
        .await?;
        self.load(&lab, lab.server.address, run)
    }

    fn load(self, lab: &Lab, at: IpAddr, run: &Run) -> Result<Outcome> {
        let course = self.course(
            Course {
                from: &lab.client.netns,
                to: &lab.server.netns,
                at,
                dialled: at,
                congestion: APPLICATIONS,
                warm_up: WARM_UP,
                duration: run.duration,
            },
            run,
        );
        let sample = tokio::task::block_in_place(|| course.measure())?;
        Ok(Outcome::Sample(sample))
    }

    /// The course as this row wants it.
    fn course<'a>(self, course: Course<'a>, run: &Run) -> Course<'a> {
        match self {
            Self::LinkTcp(_) | Self::LinkStream(_) => Course {
                congestion: match self {
                    Self::LinkTcp(congestion) => congestion,
                    _ => course.congestion,
                },
                warm_up: LINK_WARM_UP,
                duration: run.duration.max(LINK_DURATION),
                ..course
            },
            _ => Course {
                warm_up: WARM_UP,
                duration: run.duration,
                ..course
            },
        }
    }
}

fn no(congestion: Congestion) -> Outcome {
    Outcome::Absent(format!("this kernel has no {congestion}"))
}

/// 40 ms there and back, 1 % loss each way, 200 Mbit/s.
pub(crate) fn link() -> LinkSpec {
    LinkSpec {
        delay: Duration::from_millis(20),
        loss: 0.01,
        rate: Some(200_000_000),
        queue: QueueLimit::Time(Duration::from_millis(40)),
        ..LinkSpec::default()
    }
}
