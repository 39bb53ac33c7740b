//! The lab's cluster: booted for the tests, on this machine, with all that it can do.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use pmz_cli::playground::netns::NetNs;

use super::cluster::{Access, succeed};
use super::reaper::{self, Reaper};
use super::{Cluster, Programs, image};
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
        let mut lab = Self::fresh(folder, pmz_binary()?)?;
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
        lab.deploy()?;
        eprintln!("cluster {}: up after {:.1?}", lab.name, begun.elapsed());
        Ok(lab)
    }

    /// Boots one node, and an agent in it, out of a program that acts as pmz: on laptops, and in the agent's
    /// image, with the libraries that it is linked to. For what is no test. Blocks for ten to twenty seconds.
    ///
    /// # Errors
    /// Where the cluster does not boot, or the agent is not ready in time.
    pub fn of(folder: &Path, program: &Path, programs: &Programs) -> Result<Self> {
        let mut lab = Self::fresh(folder, program.to_owned())?;
        lab.kubeconfig = lab.up(&[])?;
        programs
            .load(&lab, &program.to_string_lossy(), image::PROGRAM)
            .context("make the agent's image")?;
        lab.deploy()?;
        Ok(lab)
    }

    fn deploy(&self) -> Result<()> {
        let mut deploy = self.pmz();
        deploy.args(["agent", "deploy", "-n", AGENT_NAMESPACE]);
        succeed(deploy).context("deploy the agent").map(drop)
    }

    /// A cluster beside this one, with the same addresses inside, of one node, and without an agent.
    /// Blocks for ten to twenty seconds.
    ///
    /// # Errors
    /// Where it does not boot, or is there already.
    pub fn twin(&self) -> Result<Self> {
        let name = format!("{}b", self.name);
        let mut twin = Self::named(self.folder.clone(), name, self.program.clone())?;
        twin.kubeconfig = twin.up(&["--no-dns"])?;
        Ok(twin)
    }

    /// One that no other process has, which is to be booted yet.
    fn fresh(folder: &Path, program: PathBuf) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        reaper::clear_leftovers(&folder)?;
        let name = format!("{}{}", reaper::PREFIX, std::process::id());
        Self::named(folder, name, program)
    }

    /// One of that name, which is to be booted yet.
    fn named(folder: PathBuf, name: String, program: PathBuf) -> Result<Self> {
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
                program,
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
    pub fn pmz(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .stdin(Stdio::null())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PMZ_IMAGE", image::NAME)
            // Where the user who runs the tests has a config file, it is not meant.
            .env("XDG_CONFIG_HOME", self.scratch());
        command
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

    /// The network namespace of a node, the first of which is 1.
    ///
    /// # Errors
    /// Where there is no such node.
    pub fn node_netns(&self, number: u8) -> Result<NetNs> {
        let path = format!("/run/netns/pmzk-{}-n{number}", self.name);
        let file = File::open(&path).with_context(|| path)?;
        Ok(NetNs::from_fd(file.into())?)
    }

    /// A command in all namespaces of a node, the first of which is 1.
    pub fn node(&self, number: u8, program: &str) -> Command {
        let mut command = self.command("node");
        command.args(["--name", &self.name, &number.to_string(), program]);
        command
    }
}
