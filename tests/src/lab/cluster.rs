//! A cluster as its administrator has it: kubectl, users, laptops.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::cluster::AGENT_SELECTOR;
use tokio::io::AsyncWriteExt;

use super::Laptop;
use super::users::{self, Subject};
use crate::{Ran, run, run_for};

/// Nothing that is applied is refused later than this.
const APPLY_WITHIN: Duration = Duration::from_secs(30);
/// A node that was booted a moment ago, on a machine that also builds, may not look at a pod for half a minute.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// All that a user of `pmz up` needs, in the agent's namespace.
pub const NEEDED: [&str; 2] = ["pods:get,list", "pods/portforward:get,create"];

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub(super) enum Access {
    /// By the commands in a folder, which know it by a name.
    Commands { folder: PathBuf, name: String },
    /// By an administrator's kubeconfig, from this machine alone: laptops are led there by a relay.
    Kubeconfig(PathBuf),
}

/// A running cluster with an agent in it.
pub struct Cluster {
    pub(super) access: Access,
    /// Where the agent is that all tests share.
    pub(super) namespace: String,
    /// What runs as pmz on laptops.
    pub(super) program: PathBuf,
}

impl Cluster {
    /// The namespace of the agent that all tests share.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// kubectl, as the cluster's administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = match &self.access {
            Access::Commands { folder, name } => {
                let mut command = Command::new(folder.join("kubectl"));
                command.args(["--name", name]);
                command
            }
            Access::Kubeconfig(path) => {
                let mut command = Command::new("kubectl");
                command.arg("--kubeconfig").arg(path);
                command
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// Runs kubectl as the administrator, with those words as arguments, and gives what it wrote.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub async fn ask(&self, words: &str) -> Result<String> {
        let mut command = self.kubectl();
        command.args(words.split_whitespace());
        said(run(command).await?).with_context(|| format!("kubectl {words}"))
    }

    /// `kubectl apply`, of the objects in a text.
    ///
    /// # Errors
    /// Where one is refused, with the reason.
    pub async fn apply(&self, manifest: &str) -> Result<()> {
        let mut command = tokio::process::Command::from(self.kubectl());
        let mut child = command
            .args(["apply", "--server-side", "--force-conflicts", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = child.stdin.take().context("no input")?;
        input.write_all(manifest.as_bytes()).await?;
        drop(input);
        let output = tokio::time::timeout(APPLY_WITHIN, child.wait_with_output())
            .await
            .context("kubectl does not end")??;
        ensure!(
            output.status.success(),
            "kubectl apply: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// A kubeconfig for that user, who may do what RBAC says: nothing at first.
    ///
    /// # Errors
    /// Where the cluster makes no credentials.
    pub async fn kubeconfig(&self, user: &str) -> Result<String> {
        match &self.access {
            Access::Commands { folder, name } => {
                let mut command = Command::new(folder.join("kubeconfig"));
                command.args(["--name", name, "--user", user]);
                said(run(command).await?)
            }
            Access::Kubeconfig(_) => users::service_account(self, user).await,
        }
    }

    /// Lets a user do that in a namespace: rules like `pods:get,list`.
    ///
    /// # Errors
    /// Where the API server refuses the role.
    pub async fn allow(&self, user: &str, namespace: &str, rules: &[&str]) -> Result<()> {
        self.allow_as(user, user, namespace, rules).await
    }

    /// [`Self::allow`] for a user whose name is none for an object: `name` is its roles'.
    ///
    /// # Errors
    /// Where the API server refuses the role.
    pub async fn allow_as(
        &self,
        name: &str,
        user: &str,
        namespace: &str,
        rules: &[&str],
    ) -> Result<()> {
        let subject = match &self.access {
            Access::Commands { .. } => Subject::User(user),
            Access::Kubeconfig(_) => Subject::ServiceAccount(user, &self.namespace),
        };
        let roles = users::roles(name, subject, namespace, rules)?;
        self.apply(&roles).await
    }

    /// A user who may do what `pmz up` needs, and no more; gives the kubeconfig.
    ///
    /// # Errors
    /// As [`Self::kubeconfig`] and [`Self::allow`].
    pub async fn developer(&self, user: &str) -> Result<String> {
        self.allow(user, &self.namespace, &NEEDED).await?;
        self.kubeconfig(user).await
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// When it is not in [`READY_WITHIN`], with its events.
    pub async fn ready(&self, namespace: &str, pod: &str) -> Result<()> {
        let seconds = READY_WITHIN.as_secs();
        let wait =
            format!("wait --for=condition=Ready --timeout={seconds}s -n {namespace} pod/{pod}");
        let mut command = self.kubectl();
        command.args(wait.split_whitespace());
        let ran = run_for(command, READY_WITHIN + APPLY_WITHIN).await?;
        let Err(error) = said(ran).with_context(|| format!("kubectl {wait}")) else {
            return Ok(());
        };
        let describe = format!("describe -n {namespace} pod/{pod}");
        Err(error.context(self.ask(&describe).await.unwrap_or_default()))
    }

    /// The node of the agent that all share.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn agent_node(&self) -> Result<String> {
        let namespace = &self.namespace;
        let get = format!("get pods -n {namespace} -l {AGENT_SELECTOR}");
        let node = format!("{get} -o jsonpath={{.items[0].spec.nodeName}}");
        let node = self.ask(&node).await?;
        ensure!(!node.is_empty(), "the agent is on no node");
        Ok(node)
    }

    /// A laptop that reaches the cluster's API server, with that kubeconfig: where the cluster is the lab's,
    /// on its lan. It ends when dropped.
    ///
    /// # Errors
    /// Where it can't be made or plugged in.
    pub async fn laptop(&self, hostname: &str, kubeconfig: &str) -> Result<Laptop> {
        Laptop::start(self, hostname, kubeconfig).await
    }
}

/// What a command wrote, if it went well.
pub(super) fn said(ran: Ran) -> Result<String> {
    ensure!(
        ran.code == Some(0),
        "exit code {:?}: {}",
        ran.code,
        ran.stderr.trim()
    );
    Ok(ran.stdout)
}

/// Runs a command to its end, blocking, and gives what it wrote.
pub(super) fn succeed(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| command.get_program().display().to_string())?;
    ensure!(
        output.status.success(),
        "{}: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
