//! The ways from a client to the pod.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::netns::NetNs;
use pmz_tests::eventually;
use pmz_tests::lab::Laptop;

use super::scene::{NAMESPACE, SERVERS, Scene, ports, served};
use crate::bare::Carrier;
use crate::process::enter;
use crate::processes::Processes;

/// UDP has answered by then, where it does.
const CARRIER: Duration = Duration::from_secs(10);
/// kubectl listens by then.
const FORWARDED: Duration = Duration::from_secs(10);
/// Of each load: so many in a row that end too early are not by chance.
const PORT_FORWARDS: usize = 5;

/// A way that is open. It goes with this value.
pub(super) struct Way {
    /// Where the client is.
    pub(super) from: NetNs,
    /// What it dials; ports are the servers' own.
    pub(super) at: IpAddr,
    /// Whose processor time and memory it is, at both ends.
    pub(super) client: Processes,
    pub(super) agent: Processes,
    kind: Kind,
}

enum Kind {
    Inside,
    PortForward {
        /// Ends what runs on it when it goes.
        _laptop: Laptop,
        forward: PortForward,
    },
    Pmz(Laptop, Carrier),
}

impl Way {
    /// The node's own.
    pub(super) fn inside(scene: &Scene) -> Self {
        Self {
            from: scene.node.clone(),
            at: scene.cluster_ip,
            client: Processes::default(),
            agent: Processes::default(),
            kind: Kind::Inside,
        }
    }

    /// `kubectl port-forward`, from a laptop of its own.
    pub(super) async fn port_forward(scene: &Scene) -> Result<Self> {
        let laptop = scene.lab.laptop("pf", &scene.kubeconfig).await?;
        let from = laptop.machine().netns().clone();
        let forward = PortForward::start(scene, &from).await?;
        Ok(Self {
            at: Ipv4Addr::LOCALHOST.into(),
            client: Processes::of_number(forward.kubectl.id()),
            agent: Processes::default(),
            kind: Kind::PortForward {
                _laptop: laptop,
                forward,
            },
            from,
        })
    }

    /// `pmz up`, on a laptop of its own.
    pub(super) async fn pmz(scene: &Scene, carrier: Carrier) -> Result<Self> {
        let name = name(carrier);
        let laptop = scene
            .lab
            .laptop(&format!("pmz-{name}"), &scene.kubeconfig)
            .await?;
        laptop.up(&["--transport", name]).await?;
        let from = laptop.machine().netns().clone();
        let way = Self {
            at: scene.cluster_ip,
            client: Processes::of(&from, &["daemon", "helper"])?,
            agent: scene.agent().await?,
            from,
            kind: Kind::Pmz(laptop, carrier),
        };
        ensure!(way.client.count() == 2, "pmz runs as {:?}", way.client);
        way.check(CARRIER).await?;
        served(&way.from, way.at).await?;
        Ok(way)
    }

    /// Where a server is, by its port.
    pub(super) fn to(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.at, port)
    }

    /// For the next load: a load on another way than is thought would be worse than none. A port-forward is opened
    /// anew, since it may be about to die of what the last load has reset.
    ///
    /// # Errors
    /// Where packets go by another carrier.
    pub(super) async fn renew(&mut self, scene: &Scene) -> Result<()> {
        if let Kind::PortForward { forward, .. } = &mut self.kind {
            forward.end();
            *forward = PortForward::start(scene, &self.from).await?;
            self.client = Processes::of_number(forward.kubectl.id());
        }
        self.check(Duration::ZERO).await
    }

    /// How often a load may be tried: a port-forward ends of a single connection that is reset, whoever resets it.
    pub(super) fn tries(&self) -> usize {
        match self.kind {
            Kind::PortForward { .. } => PORT_FORWARDS,
            Kind::Inside | Kind::Pmz(..) => 1,
        }
    }

    /// What a port-forward has complained of last, to be told behind what came of it.
    pub(super) fn last_words(&self) -> String {
        match &self.kind {
            Kind::PortForward { forward, .. } => format!(" (kubectl: {})", forward.last_words()),
            Kind::Inside | Kind::Pmz(..) => String::new(),
        }
    }

    async fn check(&self, within: Duration) -> Result<()> {
        let Kind::Pmz(laptop, carrier) = &self.kind else {
            return Ok(());
        };
        let name = name(*carrier);
        let is = |status: &serde_json::Value| {
            status["carrier"]["kind"] == name && status["reconnects"] == 0
        };
        let what = format!("packets by {name}, without a reconnect");
        laptop.wait_for(&what, within, is).await.map(drop)
    }
}

fn name(carrier: Carrier) -> &'static str {
    match carrier {
        Carrier::Udp => "udp",
        Carrier::Stream => "stream",
    }
}

/// A running `kubectl port-forward`.
struct PortForward {
    kubectl: Child,
    /// What it says goes there: a pipe would have to be emptied, since it says something at each connection.
    errors: PathBuf,
}

impl PortForward {
    async fn start(scene: &Scene, from: &NetNs) -> Result<Self> {
        let [said, errors] = ["out", "err"].map(|name| {
            let name = format!("port-forward.{name}");
            scene.lab.scratch().join(name)
        });
        let mut kubectl = scene.lab.kubectl();
        kubectl.args(["port-forward", "--address", "127.0.0.1", "-n", NAMESPACE]);
        kubectl.arg(format!("pod/{SERVERS}"));
        kubectl.args(ports().map(|port| port.to_string()));
        let mut kubectl = enter(kubectl, from);
        kubectl.stdout(File::create(&said)?);
        kubectl.stderr(File::create(&errors)?);
        let kubectl = kubectl.spawn().context("kubectl")?;
        let forward = Self { kubectl, errors };
        // To connect to try it would leave connections behind that end by a reset, of which it may die.
        let all = async || {
            let said = fs::read_to_string(&said)?;
            let forwarding = |line: &&str| line.starts_with("Forwarding from");
            let count = said.lines().filter(forwarding).count();
            Ok((count == ports().count()).then_some(()))
        };
        eventually("a port-forward of all ports", FORWARDED, all)
            .await
            .with_context(|| forward.last_words())?;
        Ok(forward)
    }

    /// The last that it has complained of.
    fn last_words(&self) -> String {
        let errors = fs::read_to_string(&self.errors).unwrap_or_default();
        errors.lines().last().unwrap_or_default().to_owned()
    }

    fn end(&mut self) {
        // It may have died by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        self.end();
    }
}
