//! The ways from a client to the pod.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::netns::NetNs;
use pmz_tests::eventually;
use serde_json::Value;

use super::host::Host;
use super::laptop::Laptop;
use super::load::Reach;
use super::peer::{Connected, Peer};
use super::scene::{SERVERS, Scene, ports, served};
use super::server::ECHO;
use crate::agent::Carrier;
use crate::process::enter;
use crate::processes::Processes;
use crate::section::Absent;

/// UDP has answered by then, where it does.
const CARRIER: Duration = Duration::from_secs(10);
/// kubectl listens by then.
const FORWARDED: Duration = Duration::from_secs(10);
/// Of each load: so many in a row that end too early are not by chance.
const PORT_FORWARDS: usize = 5;

/// A way that is open. It goes with this value.
pub(super) struct Way {
    /// Where clients are.
    pub(super) from: Host,
    /// What it dials; ports are the servers' own.
    pub(super) at: IpAddr,
    /// Whose processor time and memory it is, at both ends.
    pub(super) client: Processes,
    /// Or why it is out of sight.
    pub(super) agent: Result<Processes, String>,
    kind: Kind,
}

enum Kind {
    Inside,
    PortForward {
        /// Ends what runs on it when it goes.
        laptop: Laptop,
        forward: PortForward,
    },
    Pmz(Laptop, Carrier),
    Peer(Connected),
}

impl Way {
    /// From inside the cluster.
    pub(super) fn inside(scene: &Scene) -> Self {
        Self {
            from: scene.inside(),
            at: scene.cluster_ip,
            client: Processes::default(),
            agent: Ok(Processes::default()),
            kind: Kind::Inside,
        }
    }

    /// `kubectl port-forward`, from a laptop.
    pub(super) async fn port_forward(scene: &Scene) -> Result<Self> {
        let laptop = scene.laptop("pf").await?;
        let forward = PortForward::start(scene, laptop.netns()).await?;
        Ok(Self {
            from: scene.host(laptop.netns()),
            at: Ipv4Addr::LOCALHOST.into(),
            client: Processes::of_number(forward.kubectl.id()),
            agent: Ok(Processes::default()),
            kind: Kind::PortForward { laptop, forward },
        })
    }

    /// `pmz up`, on a laptop.
    ///
    /// # Errors
    /// [`Absent`] where UDP has no way to the agent, and the streams have.
    pub(super) async fn pmz(scene: &Scene, carrier: Carrier) -> Result<Self> {
        let name = name(carrier);
        let laptop = scene.laptop(&format!("pmz-{name}")).await?;
        if let Err(error) = laptop.up(name).await {
            let why = match carrier {
                Carrier::Udp => no_udp(&laptop).await,
                Carrier::Stream => None,
            };
            return Err(why.map_or(error, |why| Absent(why).into()));
        }
        let way = Self {
            from: scene.host(laptop.netns()),
            at: scene.cluster_ip,
            client: Processes::of(laptop.netns(), &["daemon", "helper"])?,
            agent: scene.agent().await.map_err(|error| format!("{error:#}")),
            kind: Kind::Pmz(laptop, carrier),
        };
        ensure!(way.client.count() == 2, "pmz runs as {:?}", way.client);
        way.check(CARRIER).await?;
        served(&way.from, way.at).await?;
        Ok(way)
    }

    /// Another product's, on a laptop.
    ///
    /// # Errors
    /// [`Absent`] where it is not there, or does not connect.
    pub(super) async fn peer(scene: &Scene, peer: Peer) -> Result<Self> {
        let connected = Connected::new(scene, peer).await?;
        Ok(Self {
            from: scene.host(connected.laptop().netns()),
            at: scene.cluster_ip,
            client: Processes::default(),
            agent: Ok(Processes::default()),
            kind: Kind::Peer(connected),
        })
    }

    /// Closes it, as far as dropping it doesn't.
    ///
    /// # Errors
    /// Where it stays.
    pub(super) async fn close(self) -> Result<()> {
        match self.kind {
            Kind::Pmz(laptop, _) => laptop.down().await,
            Kind::Peer(connected) => connected.end().await,
            Kind::Inside | Kind::PortForward { .. } => Ok(()),
        }
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
        if let Kind::PortForward { laptop, forward } = &mut self.kind {
            forward.end();
            *forward = PortForward::start(scene, laptop.netns()).await?;
            self.client = Processes::of_number(forward.kubectl.id());
        }
        self.check(Duration::ZERO).await
    }

    /// How often a load may be tried: a port-forward ends of a single connection that is reset, whoever resets it.
    pub(super) fn tries(&self) -> usize {
        match self.kind {
            Kind::PortForward { .. } => PORT_FORWARDS,
            Kind::Inside | Kind::Pmz(..) | Kind::Peer(_) => 1,
        }
    }

    /// Whether more loads make sense: a peer that answers nothing any more would have each of them wait for as long as it may.
    pub(super) async fn lasts(&self) -> Result<()> {
        match self.kind {
            Kind::Peer(_) => self.from.run(&Reach(vec![self.to(ECHO)])).await,
            Kind::Inside | Kind::PortForward { .. } | Kind::Pmz(..) => Ok(()),
        }
    }

    /// What a port-forward has complained of last, to be told behind what came of it.
    pub(super) fn last_words(&self) -> String {
        match &self.kind {
            Kind::PortForward { forward, .. } => format!(" (kubectl: {})", forward.last_words()),
            Kind::Inside | Kind::Pmz(..) | Kind::Peer(_) => String::new(),
        }
    }

    async fn check(&self, within: Duration) -> Result<()> {
        let Kind::Pmz(laptop, carrier) = &self.kind else {
            return Ok(());
        };
        let name = name(*carrier);
        let (status, is) = laptop
            .status(within, |status| goes_by(name, status))
            .await?;
        ensure!(
            is,
            "packets don't go by {name}, without a reconnect: {status}"
        );
        Ok(())
    }
}

fn goes_by(carrier: &str, status: &Value) -> bool {
    status["carrier"]["kind"] == carrier && status["reconnects"] == 0
}

/// Why there is no UDP, by a pmz that may choose: none where it does choose UDP, or is not connected at all.
async fn no_udp(laptop: &Laptop) -> Option<String> {
    let connected = laptop.up("auto").await;
    let udp = |status: &Value| goes_by("udp", status);
    let looked = laptop.status(CARRIER, udp).await;
    let ended = laptop.down().await;
    match (connected, looked, ended) {
        (Ok(()), Ok((status, false)), Ok(())) => why_streams(&status),
        _ => None,
    }
}

/// What `pmz status` says of streams that it has chosen.
fn why_streams(status: &Value) -> Option<String> {
    let carrier = &status["carrier"];
    let why = carrier["why"]
        .as_str()
        .filter(|_| carrier["kind"] == "stream")?;
    Some(format!(
        "UDP has no way to the agent: pmz goes by streams, {why}"
    ))
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
            scene.scratch().join(name)
        });
        let mut kubectl = scene.kubectl();
        kubectl.args([
            "port-forward",
            "--address",
            "127.0.0.1",
            "-n",
            &scene.namespace,
        ]);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn why_there_is_no_udp_is_what_the_status_says_of_its_streams() {
        let status = |kind: &str| json!({"carrier": {"kind": kind, "endpoint": "", "why": "UDP did not answer"}, "reconnects": 0});
        let why = why_streams(&status("stream")).unwrap();
        assert!(why.ends_with("UDP did not answer"), "{why}");
        assert_eq!(why_streams(&status("udp")), None);
        assert_eq!(why_streams(&json!({"state": "not-running"})), None);
        assert!(goes_by("udp", &status("udp")) && !goes_by("udp", &status("stream")));
    }
}
