//! The section `link`: an emulated link with delay, a queue and loss, TCP over it, and pmz over it.

mod goals;
mod load;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use ipnet::IpNet;
use pmz_cli::playground::link::{LinkEmulator, LinkEnd, LinkSpec, QueueLimit};
use tokio::task::block_in_place;

use crate::agent::Carrier;
use crate::agent::{self, Setting};
use crate::congestion::{API_SERVER, APPLICATIONS, ASKED, Congestion};
use crate::goal::Goal;
use crate::lab::{self, Lab};
use crate::load::Course;
use crate::reading::Reading;
use crate::section::{self, Absent, Chart, Run, Section};

/// The section.
pub(crate) struct Link;

/// One row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    way: Over,
    loss: Loss,
}

/// What is between client and server beside the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Nothing; both ends have this congestion control.
    Tcp(Congestion),
    /// The whole product by UDP.
    Udp,
    /// The whole product by streams, whose API server has this congestion control.
    Stream(Congestion),
}

/// The share of packets that the link loses, each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    Tenth,
    One,
}

const PLAIN: Over = Over::Tcp(APPLICATIONS);
const UDP: Over = Over::Udp;
const STREAM: Over = Over::Stream(API_SERVER);
const LOSSES: [Loss; 3] = [Loss::None, Loss::Tenth, Loss::One];

const ROWS: [Row; 12] = [
    Row::new(PLAIN, Loss::None),
    Row::new(UDP, Loss::None),
    Row::new(STREAM, Loss::None),
    Row::new(PLAIN, Loss::Tenth),
    Row::new(UDP, Loss::Tenth),
    Row::new(STREAM, Loss::Tenth),
    Row::new(PLAIN, Loss::One),
    Row::new(UDP, Loss::One),
    Row::new(STREAM, Loss::One),
    // What UDP's fairness is beside: the kernel's own.
    Row::new(Over::Tcp(Congestion::Bbr), Loss::None),
    Row::new(Over::Tcp(Congestion::Bbr), Loss::One),
    Row::new(Over::Stream(Congestion::Bbr), Loss::One),
];

impl Loss {
    fn share(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Tenth => 0.001,
            Self::One => 0.01,
        }
    }
}

impl Row {
    const fn new(way: Over, loss: Loss) -> Self {
        Self { way, loss }
    }

    const fn name(self) -> &'static str {
        use Congestion::{Bbr, Cubic};
        use Loss::{None, One, Tenth};
        match (self.way, self.loss) {
            (Over::Tcp(Cubic), None) => "link-tcp-0",
            (Over::Tcp(Cubic), Tenth) => "link-tcp-0.1",
            (Over::Tcp(Cubic), One) => "link-tcp-1",
            (Over::Udp, None) => "link-udp-0",
            (Over::Udp, Tenth) => "link-udp-0.1",
            (Over::Udp, One) => "link-udp-1",
            (Over::Stream(Cubic), None) => "link-stream-0",
            (Over::Stream(Cubic), Tenth) => "link-stream-0.1",
            (Over::Stream(Cubic), One) => "link-stream-1",
            (Over::Tcp(Bbr), None) => "link-tcp-bbr-0",
            (Over::Tcp(Bbr), Tenth) => "link-tcp-bbr-0.1",
            (Over::Tcp(Bbr), One) => "link-tcp-bbr-1",
            (Over::Stream(Bbr), None) => "link-stream-bbr-0",
            (Over::Stream(Bbr), Tenth) => "link-stream-bbr-0.1",
            (Over::Stream(Bbr), One) => "link-stream-bbr-1",
        }
    }

    fn description(self) -> String {
        let way = match self.way {
            Over::Tcp(congestion) => format!("TCP alone, {congestion}"),
            Over::Udp => format!(
                "`pmz up` by UDP, applications on what its routes have up, the agent's NAT on {} down, a server in a pod",
                Congestion::Bbr
            ),
            Over::Stream(node) => format!(
                "`pmz up` by streams, {ASKED} up, {node} down, the agent's NAT, a server in a pod"
            ),
        };
        format!("{way}; {} % loss", self.loss.share() * 100.0)
    }

    fn needs(self) -> Vec<Congestion> {
        match self.way {
            Over::Tcp(congestion) => vec![congestion],
            Over::Udp => vec![APPLICATIONS],
            Over::Stream(node) => vec![APPLICATIONS, node, ASKED],
        }
    }

    async fn measure(self, run: &Run) -> Result<Vec<Reading>> {
        for congestion in self.needs() {
            if !congestion.is_available()? {
                return Err(Absent(format!("this kernel has no {congestion}")).into());
            }
        }
        let (carrier, api_server) = match self.way {
            Over::Tcp(congestion) => return self.plain(congestion, run).await,
            Over::Udp => (Carrier::Udp, API_SERVER),
            Over::Stream(node) => (Carrier::Stream, node),
        };
        let setting = Setting {
            link: Some(link(self.loss)),
            seed: run.round.into(),
            carrier,
            api_server,
            applications: APPLICATIONS,
            remapped: false,
            verbose: run.verbose,
        };
        agent::measure(&setting, async |_, course| self.load(&course, run)).await
    }

    /// TCP over the link, with nothing else on the way.
    async fn plain(self, congestion: Congestion, run: &Run) -> Result<Vec<Reading>> {
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
            link(self.loss),
            run.round.into(),
        )
        .await?;
        let course = Course {
            congestion,
            ..lab.course(lab.server.address)
        };
        self.load(&course, run)
    }

    /// What losses make of fairness and round trips is chance more than anything else, and takes its time: they are measured
    /// where there is none.
    fn load(self, course: &Course<'_>, run: &Run) -> Result<Vec<Reading>> {
        block_in_place(|| {
            let mut readings = load::rates(course, run)?;
            if self.loss == Loss::None {
                readings.extend(load::neighbours(course, run)?);
            }
            Ok(readings)
        })
    }
}

/// 40 ms there and back, 200 Mbit/s, and a queue of 40 ms before it.
fn link(loss: Loss) -> LinkSpec {
    LinkSpec {
        delay: Duration::from_millis(20),
        loss: loss.share(),
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
        format!("{}; applications on {APPLICATIONS}", link(Loss::None))
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
        let row = |over| Row::new(over, Loss::Tenth).name();
        let [up, down] = load::ONE;
        vec![Chart {
            file: "lossy-link",
            title: "One TCP flow over 40 ms and 200 Mbit/s, one packet in a thousand lost",
            note: "An emulated link; applications, the API server and the node are on cubic.",
            groups: vec![("up", up), ("down", down)],
            bars: vec![
                ("pmz by UDP", row(UDP)),
                ("pmz by streams", row(STREAM)),
                ("TCP alone", row(PLAIN)),
            ],
            aside: None,
        }]
    }

    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>> {
        ROWS[row].measure(run).await
    }
}
