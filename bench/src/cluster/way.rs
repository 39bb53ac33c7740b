//! The ways from a client to the pod.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::netns::NetNs;
use pmz_tests::lab::Laptop;

use super::scene::{NAMESPACE, SERVERS, Scene, ports, served};
use crate::bare::Carrier;
use crate::process::enter;
use crate::processes::Processes;

/// UDP has answered by then, where it does.
const CARRIER: Duration = Duration::from_secs(10);

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
            client: Processes::of_number(forward.0.id()),
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
            self.client = Processes::of_number(forward.0.id());
        }
        self.check(Duration::ZERO).await
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
struct PortForward(Child);

impl PortForward {
    async fn start(scene: &Scene, from: &NetNs) -> Result<Self> {
        let mut kubectl = scene.lab.kubectl();
        kubectl.args(["port-forward", "-n", NAMESPACE]);
        kubectl.arg(format!("pod/{SERVERS}"));
        kubectl.args(ports().map(|port| port.to_string()));
        let mut kubectl = enter(kubectl, from);
        kubectl.stdout(Stdio::null()).stderr(Stdio::null());
        let forward = Self(kubectl.spawn().context("kubectl")?);
        served(from, Ipv4Addr::LOCALHOST.into()).await?;
        Ok(forward)
    }
}

impl PortForward {
    fn end(&mut self) {
        // It may have died by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        self.end();
    }
}
