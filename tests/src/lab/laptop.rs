//! A developer's machine beside the cluster: it reaches the nodes, and no pod and no service.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::machine::{Machine, MachineFile, MachineSpec};
use serde_json::Value;

use super::Lab;
use super::cluster::said;
use crate::{Ran, eventually, pmz_binary, run};

/// Where the kubeconfig lies on the laptop.
const KUBECONFIG: &str = "/run/lab/kubeconfig";
/// What the laptop has before pmz is up: nobody answers there.
const RESOLV_CONF: &str = "# There is no name server on this lan.\n";

/// A set of namespaces on the cluster's lan. What runs in it ends with it.
pub struct Laptop {
    machine: Machine,
    address: IpAddr,
}

impl Laptop {
    pub(super) async fn start(lab: &Lab, hostname: &str, kubeconfig: &str) -> Result<Self> {
        let program = pmz_binary()?;
        let spec = MachineSpec {
            hostname: hostname.to_owned(),
            hosts: format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n"),
            resolv_conf: RESOLV_CONF.to_owned(),
            sysctls: Vec::new(),
            files: vec![MachineFile {
                path: KUBECONFIG.into(),
                content: kubeconfig.as_bytes().to_vec(),
            }],
        };
        let start = move || Machine::start(&program, &spec);
        let machine = tokio::task::spawn_blocking(start).await??;
        let mut attach = lab.command("attach");
        let netns = machine.netns().as_fd().as_raw_fd();
        attach
            .arg(lab.name())
            .arg(format!("/proc/{}/fd/{netns}", std::process::id()));
        let address = said(run(attach).await?).context("plug the laptop in")?;
        let address = address.trim().parse().context("its address")?;
        Ok(Self { machine, address })
    }

    /// Its namespaces, for what is not here.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its IPv4 address on the lan.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// A command on it, with the kubeconfig in its environment.
    pub fn command(&self, program: &str) -> std::process::Command {
        let mut command = self.machine.command(program);
        command.env("KUBECONFIG", KUBECONFIG);
        command
    }

    /// pmz on it.
    pub fn pmz(&self) -> std::process::Command {
        let mut command = self.machine.pmz();
        command.env("KUBECONFIG", KUBECONFIG);
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
