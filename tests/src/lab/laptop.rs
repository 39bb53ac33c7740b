//! A developer's machine beside the cluster: it reaches the API server, the lab's nodes too, and no pod and no
//! service.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pmz_cli::playground::machine::{Machine, MachineSpec};
use serde_json::Value;

use super::Cluster;
use super::cluster::{Access, said};
use super::relay::Relay;
use crate::{Ran, eventually, run};

/// Where the kubeconfig lies on the laptop.
const KUBECONFIG: &str = "/run/lab/kubeconfig";
/// What the laptop has before pmz is up: nobody answers there.
const RESOLV_CONF: &str = "# There is no name server on this lan.\n";

/// A set of namespaces. What runs in it ends with it.
pub struct Laptop {
    machine: Machine,
    address: Option<IpAddr>,
    /// The agent's namespace, where it is not pmz's default.
    namespace: Option<String>,
    /// The way to the API server, where the laptop is on no lan.
    relay: Option<Relay>,
}

impl Laptop {
    pub(super) async fn start(cluster: &Cluster, hostname: &str, kubeconfig: &str) -> Result<Self> {
        let program = cluster.program.clone();
        let spec = MachineSpec {
            hostname: hostname.to_owned(),
            hosts: format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n"),
            resolv_conf: RESOLV_CONF.to_owned(),
            sysctls: Vec::new(),
            files: Vec::new(),
        };
        let start = move || Machine::start(&program, &spec);
        let mut laptop = Self {
            machine: tokio::task::spawn_blocking(start).await??,
            address: None,
            namespace: None,
            relay: None,
        };
        match &cluster.access {
            Access::Commands { folder, name } => {
                laptop.address = Some(laptop.plug_in(folder, name).await?);
                laptop
                    .machine
                    .write_file(KUBECONFIG, kubeconfig.as_bytes())?;
            }
            Access::Kubeconfig(_) => {
                laptop.script("ip link set lo up").await?;
                let (relay, kubeconfig) = Relay::start(&laptop.machine, kubeconfig)?;
                laptop.relay = Some(relay);
                laptop.namespace = Some(cluster.namespace.clone());
                laptop
                    .machine
                    .write_file(KUBECONFIG, kubeconfig.as_bytes())?;
            }
        }
        Ok(laptop)
    }

    /// Plugs it into the lan of a cluster of the lab's, and gives its address there.
    async fn plug_in(&self, folder: &Path, cluster: &str) -> Result<IpAddr> {
        let mut attach = std::process::Command::new(folder.join("attach"));
        let netns = self.machine.netns().as_fd().as_raw_fd();
        attach
            .arg(cluster)
            .arg(format!("/proc/{}/fd/{netns}", std::process::id()));
        let address = said(run(attach).await?).context("plug the laptop in")?;
        address.trim().parse().context("its address")
    }

    /// Plugs it into another cluster's lan, too, and gives its address there.
    ///
    /// # Errors
    /// Where that fails, or the cluster is none of the lab's.
    pub async fn attach(&self, cluster: &Cluster) -> Result<IpAddr> {
        match &cluster.access {
            Access::Commands { folder, name } => self.plug_in(folder, name).await,
            Access::Kubeconfig(_) => bail!("a cluster that somebody else runs has no lan here"),
        }
    }

    /// Its namespaces, for what is not here.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its IPv4 address on the cluster's lan; none where the cluster is not the lab's.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// A command on it, with the kubeconfig in its environment.
    pub fn command(&self, program: &str) -> std::process::Command {
        let mut command = self.machine.command(program);
        command.env("KUBECONFIG", KUBECONFIG);
        command
    }

    /// pmz on it, with the agent's namespace among its arguments where that is another one than usual.
    pub fn pmz(&self) -> std::process::Command {
        let mut command = self.machine.pmz();
        command.env("KUBECONFIG", KUBECONFIG);
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command
    }

    /// Runs pmz with those arguments to its end, whatever that is.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn run_pmz(&self, arguments: &[&str]) -> Result<Ran> {
        let mut command = self.pmz();
        command.args(arguments);
        run(command).await
    }

    /// `pmz up`, and that it goes well.
    ///
    /// # Errors
    /// Where it fails, with its words.
    pub async fn up(&self, arguments: &[&str]) -> Result<Ran> {
        let ran = self.run_pmz(&[&["up"], arguments].concat()).await?;
        ensure!(
            ran.code == Some(0),
            "`pmz up` failed ({:?}): {}",
            ran.code,
            ran.stderr.trim()
        );
        Ok(ran)
    }

    /// Runs a shell script, and gives what it wrote.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn script(&self, script: &str) -> Result<String> {
        let mut command = self.command("sh");
        command.args(["-ec", script]);
        said(run(command).await?).with_context(|| script.to_owned())
    }

    /// The body of what a GET answers, by curl, which resolves names as every program does.
    ///
    /// # Errors
    /// Where there is no answer in ten seconds, or no 200.
    pub async fn get(&self, url: &str) -> Result<String> {
        let mut command = self.command("curl");
        // A new Service refuses until kube-proxy has heard of its pod.
        command.args(["--retry", "5", "--retry-connrefused", "--retry-delay", "1"]);
        command.args(["-sS", "--fail", "--max-time", "10", url]);
        said(run(command).await?).with_context(|| format!("GET {url}"))
    }

    /// `pmz status -o json`.
    ///
    /// # Errors
    /// Where that is no JSON.
    pub async fn status(&self) -> Result<Value> {
        let ran = self.run_pmz(&["status", "-o", "json"]).await?;
        serde_json::from_str(&ran.stdout).with_context(|| format!("status: {ran:?}"))
    }

    /// Waits until the status is as `is` wants it, and gives it.
    ///
    /// # Errors
    /// When it is not in time, with the last status.
    pub async fn wait_for(
        &self,
        what: &str,
        within: Duration,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let found = eventually(what, within, async || {
            last = self.status().await?;
            Ok(is(&last).then(|| last.clone()))
        })
        .await;
        found.with_context(|| format!("the last status: {last}"))
    }
}
