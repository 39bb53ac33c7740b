//! The lab's cluster: booted for the tests, on this machine, with all that it can do.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::cluster::{Access, succeed};
use super::reaper::{self, Reaper};
use super::{Cluster, image};
use crate::pmz_binary;

/// Where the lab's agent is that all tests share.
pub const AGENT_NAMESPACE: &str = "pmz";

/// A running cluster. It goes with this value, and with this process.
pub struct Lab {
    cluster: Cluster,
    /// The administrator's.
    kubeconfig: PathBuf,
    folder: PathBuf,
    name: String,
    /// For files that go with it.
    scratch: PathBuf,
    _reaper: Reaper,
}

impl Deref for Lab {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Lab {
    /// Boots two nodes with both families, and an agent in them. Blocks for ten to twenty seconds.
    pub(super) fn boot(folder: &Path) -> Result<Self> {
        let begun = Instant::now();
        let folder = std::path::absolute(folder)?;
        reaper::clear_leftovers(&folder)?;
        let name = format!("{}{}", reaper::PREFIX, std::process::id());
        let mut lab = Self::named(folder, name)?;
        let archive = lab.scratch.join("pmz.tar");
        // The one mostly waits, the other computes.
        let (up, image) = thread::scope(|scope| {
            let image = scope.spawn(|| image::write(&archive));
            let up = lab.up(&["--nodes", "2", "--dual-stack"]);
            (up, image.join().map_err(|_| anyhow!("a panic")))
        });
        lab.kubeconfig = up?;
        image?.context("make the agent's image")?;
        lab.load_image(&archive)?;
        let mut deploy = lab.pmz()?;
        deploy.args(["agent", "deploy", "-n", AGENT_NAMESPACE]);
        succeed(deploy).context("deploy the agent")?;
        eprintln!("cluster {}: up after {:.1?}", lab.name, begun.elapsed());
        Ok(lab)
    }

    /// A cluster beside this one, with the same addresses inside, of one node, and without an agent.
    /// Blocks for ten to twenty seconds.
    ///
    /// # Errors
    /// Where it does not boot, or is there already.
    pub fn twin(&self) -> Result<Self> {
        let mut twin = Self::named(self.folder.clone(), format!("{}b", self.name))?;
        twin.kubeconfig = twin.up(&["--no-dns"])?;
        Ok(twin)
    }

    /// One of that name, which is to be booted yet.
    fn named(folder: PathBuf, name: String) -> Result<Self> {
        let down = [
            folder.join("down").into(),
            "--name".into(),
            name.clone().into(),
        ];
        let reaper = Reaper::start(&name, &down)?;
        let scratch = reaper::files(&name)?;
        Ok(Self {
            kubeconfig: PathBuf::new(),
            cluster: Cluster {
                access: Access::Commands {
                    folder: folder.clone(),
                    name: name.clone(),
                },
                namespace: AGENT_NAMESPACE.to_owned(),
            },
            folder,
            name,
            scratch,
            _reaper: reaper,
        })
    }

    /// Boots it, and gives its administrator's kubeconfig.
    fn up(&self, options: &[&str]) -> Result<PathBuf> {
        let mut up = self.command("up");
        up.args(["--name", &self.name]).args(options);
        // All that it writes to stdout.
        let kubeconfig = succeed(up).context("boot the cluster")?;
        Ok(kubeconfig.trim().into())
    }

    /// pmz as the cluster's administrator, on this machine, with the image of this build.
    ///
    /// # Errors
    /// Where pmz can't be built.
    pub fn pmz(&self) -> Result<Command> {
        let mut command = Command::new(pmz_binary()?);
        command
            .stdin(Stdio::null())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PMZ_IMAGE", image::NAME)
            // Where the user who runs the tests has a config file, it is not meant.
            .env("XDG_CONFIG_HOME", self.scratch());
        Ok(command)
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
        &self.scratch
    }

    /// One of the lab's commands.
    pub fn command(&self, command: &str) -> Command {
        let mut command = Command::new(self.folder.join(command));
        command.stdin(Stdio::null());
        command
    }

    /// A command in all namespaces of a node, the first of which is 1.
    pub fn node(&self, number: u8, program: &str) -> Command {
        let mut command = self.command("node");
        command.args(["--name", &self.name, &number.to_string(), program]);
        command
    }
}
