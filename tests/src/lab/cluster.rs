//! The cluster: its commands, and what is deployed in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pmz_cli::cluster::AGENT_SELECTOR;
use tokio::io::AsyncWriteExt;

use super::reaper::{self, Reaper};
use super::{Laptop, image};
use crate::{Ran, run};

/// Where the agent that all tests share is.
pub const AGENT_NAMESPACE: &str = "pmz";

/// Nothing that is applied is refused later than this.
const APPLY_WITHIN: Duration = Duration::from_secs(30);

/// A running cluster of two nodes and both families, with an agent in namespace [`AGENT_NAMESPACE`]. It
/// goes with this process.
pub struct Lab {
    folder: PathBuf,
    name: String,
    /// Files that go with this.
    scratch: tempfile::TempDir,
    _reaper: Reaper,
}

impl Lab {
    /// Boots it. Blocks for ten to twenty seconds.
    pub(super) fn boot(folder: PathBuf) -> Result<Self> {
        let begun = Instant::now();
        let folder = std::path::absolute(&folder)?;
        reaper::clear_leftovers(&folder)?;
        let name = format!("l{}", std::process::id());
        let reaper = Reaper::start(&folder, &name)?;
        let lab = Self {
            folder,
            name,
            scratch: tempfile::tempdir()?,
            _reaper: reaper,
        };
        let archive = lab.scratch.path().join("pmz.tar");
        // The one mostly waits, the other computes.
        let (up, image) = thread::scope(|scope| {
            let image = scope.spawn(|| image::write(&archive));
            let mut up = lab.command("up");
            up.args(["--name", &lab.name, "--nodes", "2", "--dual-stack"]);
            let up = succeed(up);
            let image = image.join().map_err(|_| anyhow!("a panic"));
            (up, image)
        });
        up.context("boot the cluster")?;
        image?.context("make the agent's image")?;
        lab.load_image(&archive)?;
        lab.deploy()?;
        eprintln!("cluster {}: up after {:.1?}", lab.name, begun.elapsed());
        Ok(lab)
    }

    fn deploy(&self) -> Result<()> {
        let manifest = include_str!("agent.yaml").replace("IMAGE", image::NAME);
        let path = self.scratch.path().join("agent.yaml");
        std::fs::write(&path, manifest)?;
        let mut apply = self.kubectl();
        apply.args(["apply", "--server-side", "-f"]).arg(&path);
        succeed(apply)?;
        let mut wait = self.kubectl();
        wait.args(["rollout", "status", "deployment/pmz-agent"])
            .args(["-n", AGENT_NAMESPACE, "--timeout=60s"]);
        succeed(wait).context("the agent does not become ready")?;
        Ok(())
    }

    /// Imports an image's archive on every node. Blocks.
    ///
    /// # Errors
    /// Where a node can't read it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let mut load = self.command("load-image");
        load.args(["--name", &self.name]).arg(archive);
        succeed(load).map(drop)
    }

    /// The name by which the lab's commands know it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A folder for tests' files, which goes with the cluster.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// One of the lab's commands.
    pub fn command(&self, command: &str) -> Command {
        let mut command = Command::new(self.folder.join(command));
        command.stdin(Stdio::null());
        command
    }

    /// kubectl, as the cluster's administrator.
    pub fn kubectl(&self) -> Command {
        let mut command = self.command("kubectl");
        command.args(["--name", &self.name]);
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
            .args(["apply", "--server-side", "-f", "-"])
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

    /// A command in all namespaces of a node, the first of which is 1.
    pub fn node(&self, number: u8, program: &str) -> Command {
        let mut command = self.command("node");
        command.args(["--name", &self.name, &number.to_string(), program]);
        command
    }

    /// A kubeconfig for that user, who may do what RBAC says: nothing at first.
    ///
    /// # Errors
    /// Where no certificate can be made.
    pub async fn kubeconfig(&self, user: &str) -> Result<String> {
        let mut command = self.command("kubeconfig");
        command.args(["--name", &self.name, "--user", user]);
        said(run(command).await?)
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
        let mut manifest = String::new();
        for (i, rule) in rules.iter().enumerate() {
            let (resource, verbs) = rule.split_once(':').context("a rule without verbs")?;
            manifest += &format!(
                "---\n\
                 apiVersion: rbac.authorization.k8s.io/v1\n\
                 kind: Role\n\
                 metadata: {{name: {name}-{i}, namespace: {namespace}}}\n\
                 rules:\n\
                 - {{apiGroups: [\"\"], resources: [{resource}], verbs: [{verbs}]}}\n\
                 ---\n\
                 apiVersion: rbac.authorization.k8s.io/v1\n\
                 kind: RoleBinding\n\
                 metadata: {{name: {name}-{i}, namespace: {namespace}}}\n\
                 roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}-{i}}}\n\
                 subjects:\n\
                 - {{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}\n"
            );
        }
        self.apply(&manifest).await
    }

    /// A user who may do what `pmz up` needs, and no more; gives the kubeconfig.
    ///
    /// # Errors
    /// As [`Self::kubeconfig`] and [`Self::allow`].
    pub async fn developer(&self, user: &str) -> Result<String> {
        self.allow(user, AGENT_NAMESPACE, &NEEDED).await?;
        self.kubeconfig(user).await
    }

    /// Waits until a pod is ready.
    ///
    /// # Errors
    /// When it is not in 25 seconds, with its events.
    pub async fn ready(&self, namespace: &str, pod: &str) -> Result<()> {
        let wait = format!("wait --for=condition=Ready --timeout=25s -n {namespace} pod/{pod}");
        let Err(error) = self.ask(&wait).await else {
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
        let get = format!("get pods -n {AGENT_NAMESPACE} -l {AGENT_SELECTOR}");
        let node = format!("{get} -o jsonpath={{.items[0].spec.nodeName}}");
        let node = self.ask(&node).await?;
        ensure!(!node.is_empty(), "the agent is on no node");
        Ok(node)
    }

    /// A laptop on the cluster's lan, with that kubeconfig. It ends when dropped.
    ///
    /// # Errors
    /// Where it can't be made or plugged in.
    pub async fn laptop(&self, hostname: &str, kubeconfig: &str) -> Result<Laptop> {
        Laptop::start(self, hostname, kubeconfig).await
    }
}

/// All that a user of `pmz up` needs, in the agent's namespace.
pub const NEEDED: [&str; 2] = ["pods:get,list", "pods/portforward:get,create"];

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
