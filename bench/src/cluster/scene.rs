//! What all rows share: a cluster with an agent, and one pod of servers behind a Service.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use pmz_cli::cluster::AGENT_SELECTOR;
use pmz_cli::playground::netns::NetNs;
use pmz_tests::eventually;
use pmz_tests::lab::{Lab, Programs};

use super::server::{ECHO, RESET, SHORT};
use crate::processes::Processes;

/// Where the pod is.
pub(super) const NAMESPACE: &str = "bench";
/// The pod's name, and its Service's. The Service has the pod's ports.
pub(super) const SERVERS: &str = "servers";
/// nginx.
pub(super) const HTTP: u16 = 8080;
pub(super) const IPERF3: u16 = 5201;

/// All ports.
pub(super) fn ports() -> impl Iterator<Item = u16> {
    [ECHO, RESET, HTTP, IPERF3].into_iter().chain(SHORT)
}

/// Controllers and kube-proxy have heard of the pod by then.
const SERVED: Duration = Duration::from_secs(30);

/// A cluster that is ready to be measured. It goes with this value.
pub(super) struct Scene {
    pub(super) lab: Lab,
    pub(super) programs: Programs,
    /// Of the Service.
    pub(super) cluster_ip: IpAddr,
    /// Of the node, which runs it all.
    pub(super) node: NetNs,
    /// For the laptop: what `pmz up` needs, and `kubectl port-forward` to the pod.
    pub(super) kubeconfig: String,
}

impl Scene {
    /// Boots it. Blocks the thread for ten to twenty seconds.
    ///
    /// # Errors
    /// Where there are no programs to load it with, or something does not come up.
    pub(super) async fn new(folder: &Path) -> Result<Self> {
        let programs = Programs::from_env()?;
        let own = std::env::current_exe()?;
        let lab = tokio::task::block_in_place(|| -> Result<Lab> {
            let lab = Lab::of(folder, &own, &programs)?;
            programs.load(&lab, "usr/sbin/nginx", "nginx")?;
            programs.load(&lab, "/usr/bin/iperf3", "iperf3")?;
            Ok(lab)
        })?;
        lab.ask(&format!("create namespace {NAMESPACE}")).await?;
        let account = format!("get serviceaccount default -n {NAMESPACE}");
        let made = async || Ok(lab.ask(&account).await.is_ok().then_some(()));
        eventually("a service account", SERVED, made).await?;
        lab.apply(include_str!("pod.yaml")).await?;
        lab.ready(NAMESPACE, SERVERS).await?;
        let get = format!("get service {SERVERS} -n {NAMESPACE} -o jsonpath={{.spec.clusterIP}}");
        let scene = Self {
            cluster_ip: lab.ask(&get).await?.parse().context("no ClusterIP")?,
            node: lab.node_netns(1)?,
            kubeconfig: lab.developer("bench").await?,
            programs,
            lab,
        };
        served(&scene.node, scene.cluster_ip).await?;
        Ok(scene)
    }

    /// The agent's process.
    ///
    /// # Errors
    /// Where there is none on this machine.
    pub(super) async fn agent(&self) -> Result<Processes> {
        let id = "{.items[0].status.containerStatuses[0].containerID}";
        let namespace = self.lab.namespace();
        let get = format!("get pods -n {namespace} -l {AGENT_SELECTOR} -o jsonpath={id}");
        let id = self.lab.ask(&get).await?;
        let (_, id) = id.split_once("://").context("the agent has no container")?;
        Processes::of_container(id)
    }
}

/// Waits until each of the ports is connected to.
pub(super) async fn served(from: &NetNs, at: IpAddr) -> Result<()> {
    for port in ports() {
        let to = SocketAddr::new(at, port);
        let connected = async || {
            let connect = from.run(|| std::net::TcpStream::connect_timeout(&to, SERVED))?;
            Ok(connect.is_ok().then_some(()))
        };
        eventually("a server that is connected to", SERVED, connected)
            .await
            .with_context(|| to.to_string())?;
    }
    Ok(())
}
