//! A developer's machine: one on the lan of a cluster that was booted here, or this one.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::netns::NetNs;
use pmz_tests::{eventually, lab, run};
use serde_json::Value;

use crate::process::enter;

pub(super) enum Laptop {
    /// What runs on it ends with it.
    OnLan(lab::Laptop),
    Here(Here),
}

/// This machine, as the caller of this program has it.
pub(super) struct Here {
    /// What runs as pmz.
    pub(super) program: PathBuf,
    pub(super) kubeconfig: PathBuf,
    /// The agent's.
    pub(super) namespace: String,
    pub(super) netns: NetNs,
}

impl Here {
    /// The verb is to be the first argument: by it the bench is told from pmz.
    fn pmz(&self, arguments: &[&str]) -> Command {
        let mut pmz = Command::new(&self.program);
        pmz.env("KUBECONFIG", &self.kubeconfig);
        pmz.args(arguments).args(["--namespace", &self.namespace]);
        pmz
    }
}

impl Laptop {
    /// Its network.
    pub(super) fn netns(&self) -> &NetNs {
        match self {
            Self::OnLan(laptop) => laptop.machine().netns(),
            Self::Here(here) => &here.netns,
        }
    }

    /// A command on it, with the kubeconfig in its environment.
    pub(super) fn command(&self, program: &str) -> Command {
        match self {
            Self::OnLan(laptop) => laptop.command(program),
            Self::Here(here) => {
                let mut command = Command::new(program);
                command.env("KUBECONFIG", &here.kubeconfig);
                enter(command, &here.netns)
            }
        }
    }

    fn pmz(&self, arguments: &[&str]) -> Command {
        match self {
            Self::OnLan(laptop) => {
                let mut pmz = laptop.pmz();
                pmz.args(arguments);
                pmz
            }
            Self::Here(here) => here.pmz(arguments),
        }
    }

    /// `pmz up`.
    ///
    /// # Errors
    /// Where it fails, with its words.
    pub(super) async fn up(&self, transport: &str) -> Result<()> {
        let mut arguments = vec!["up", "--transport", transport];
        if let Self::Here(_) = self {
            // No names are asked for, and the machine's resolver is left as it is.
            arguments.extend(["--dns", "off"]);
        }
        let ran = run(self.pmz(&arguments)).await?;
        ensure!(
            ran.code == Some(0),
            "`pmz up` failed ({:?}): {}",
            ran.code,
            ran.stderr.trim()
        );
        Ok(())
    }

    /// `pmz down`, where this machine is not one of its own that ends by itself.
    ///
    /// # Errors
    /// Where it does not end.
    pub(super) async fn down(&self) -> Result<()> {
        match self {
            Self::OnLan(_) => Ok(()),
            Self::Here(_) => run(self.pmz(&["down"])).await.map(drop),
        }
    }

    /// Waits until `pmz status` is as `is` wants it; gives the last one, and whether it is.
    ///
    /// # Errors
    /// Where it tells none.
    pub(super) async fn status(
        &self,
        within: Duration,
        is: impl Fn(&Value) -> bool,
    ) -> Result<(Value, bool)> {
        let mut last = Value::Null;
        let found = eventually("such a status", within, async || {
            let ran = run(self.pmz(&["status", "-o", "json"])).await?;
            last = serde_json::from_str(&ran.stdout).with_context(|| format!("status: {ran:?}"))?;
            Ok(is(&last).then_some(()))
        });
        let is = found.await.is_ok();
        ensure!(last != Value::Null, "`pmz status` tells nothing");
        Ok((last, is))
    }
}
