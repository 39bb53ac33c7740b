//! The section `link`: an emulated link with delay, a queue and loss, TCP over it, and pmz over it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use ipnet::IpNet;
use pmz_cli::playground::link::{LinkEmulator, LinkEnd, LinkSpec, QueueLimit};

use crate::agent::{self, Setting};
use crate::bare::Carrier;
use crate::goal::Goal;
use crate::lab::{self, APPLICATIONS, ASKED, Congestion, Lab};
use crate::load::Course;
use crate::reading::Reading;
use crate::section::{self, Absent, Run, Section};

/// A flow is measured at least this long: some hundred round trips.
const DURATION: Duration = Duration::from_secs(5);
/// Time to find the link's rate, which isn't measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// The section.
pub(crate) struct Link;

/// One row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    /// TCP alone.
    Tcp(Congestion),
    /// The whole product by streams, whose API server has this congestion control.
    Stream(Congestion),
}

const ROWS: [Row; 4] = [
    Row::Tcp(Congestion::Cubic),
    Row::Stream(Congestion::Cubic),
    Row::Tcp(Congestion::Bbr),
    Row::Stream(Congestion::Bbr),
];

impl Row {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp(Congestion::Cubic) => "link-tcp-cubic",
            Self::Tcp(Congestion::Bbr) => "link-tcp-bbr",
            Self::Stream(Congestion::Cubic) => "link-stream-cubic",
            Self::Stream(Congestion::Bbr) => "link-stream-bbr",
        }
    }

    fn description(self) -> String {
        match self {
            Self::Tcp(congestion) => format!("TCP alone, {congestion}"),
            Self::Stream(node) => format!(
                "`pmz up` by streams, the agent's NAT, a server in a pod; applications {APPLICATIONS}, streams {ASKED} \
                 up, {node} down"
            ),
        }
    }

    async fn measure(self, run: &Run) -> Result<Vec<Reading>> {
        let needed = match self {
            Self::Tcp(congestion) => [congestion, congestion],
            Self::Stream(node) => [node, ASKED],
        };
        for congestion in needed {
            if !congestion.is_available()? {
                return Err(Absent(format!("this kernel has no {congestion}")).into());
            }
        }
        match self {
            Self::Tcp(congestion) => plain(congestion, run).await,
            Self::Stream(node) => {
                let setting = Setting {
                    link: Some(link()),
                    seed: run.round.into(),
                    carrier: Carrier::Stream,
                    api_server: node,
                    applications: APPLICATIONS,
                    remapped: false,
                    verbose: run.verbose,
                };
                agent::measure(&setting, async |course| load(course, run)).await
            }
        }
    }
}

/// TCP over the link, with nothing else on the way.
async fn plain(congestion: Congestion, run: &Run) -> Result<Vec<Reading>> {
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
        run.round.into(),
    )
    .await?;
    let course = Course {
        congestion,
        ..lab.course(lab.server.address)
    };
    load(course, run)
}

fn load(course: Course<'_>, run: &Run) -> Result<Vec<Reading>> {
    let course = Course {
        warm_up: WARM_UP,
        duration: run.duration.max(DURATION),
        ..course
    };
    tokio::task::block_in_place(|| course.measure())
}

/// 40 ms there and back, 1 % loss each way, 200 Mbit/s.
fn link() -> LinkSpec {
    LinkSpec {
        delay: Duration::from_millis(20),
        loss: 0.01,
        rate: Some(200_000_000),
        queue: QueueLimit::Time(Duration::from_millis(40)),
        ..LinkSpec::default()
    }
}

#[async_trait(?Send)]
impl Section for Link {
    fn name(&self) -> &'static str {
        "link"
    }

    fn title(&self) -> String {
        link().to_string()
    }

    fn rows(&self) -> Vec<section::Row> {
        let row = |row: Row| section::Row {
            name: row.name(),
            description: row.description(),
        };
        ROWS.map(row).to_vec()
    }

    fn goals(&self) -> Vec<Goal> {
        Vec::new()
    }

    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>> {
        ROWS[row].measure(run).await
    }
}
