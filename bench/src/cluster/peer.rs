//! Other products that lead into a cluster, as whoever measures has set them up: the program in the PATH, and its server in the
//! cluster.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

use super::laptop::Laptop;
use super::scene::{Scene, served};
use crate::process;
use crate::processes::Processes;
use crate::section::Absent;

/// They are connected, or gone, by then.
const CONNECTED: Duration = Duration::from_secs(60);
const GONE: Duration = Duration::from_secs(30);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Telepresence,
    Kubevpn,
}

impl Peer {
    /// The program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Telepresence => "telepresence",
            Self::Kubevpn => "kubevpn",
        }
    }

    /// The server's Deployment.
    fn server(self) -> &'static str {
        match self {
            Self::Telepresence => "traffic-manager",
            Self::Kubevpn => "kubevpn-traffic-manager",
        }
    }

    fn connect<'a>(self, server: &'a str, pods: &'a str) -> Vec<&'a str> {
        match self {
            Self::Telepresence => {
                vec![
                    "connect",
                    "--manager-namespace",
                    server,
                    "--namespace",
                    pods,
                ]
            }
            // It looks for its server in the namespace that it connects to.
            Self::Kubevpn => vec!["connect", "--namespace", server],
        }
    }

    /// Ends what runs in the background, too.
    fn quit(self) -> &'static [&'static str] {
        match self {
            Self::Telepresence => &["quit", "--stop-daemons"],
            Self::Kubevpn => &["quit"],
        }
    }

    /// The namespace of its server, of the namespaces that have such a Deployment. None is put into the cluster for it:
    /// whose has one knows what else it changes there, and how to get rid of that.
    ///
    /// # Errors
    /// [`Absent`] where something is missing.
    fn server_of(self, installed: bool, found: &str) -> Result<&str, Absent> {
        let program = self.program();
        if !installed {
            return Err(Absent(format!("{program} is not installed")));
        }
        let server = self.server();
        let none = || {
            Absent(format!(
                "no Deployment {server} of {program}'s is in the cluster"
            ))
        };
        found.split_whitespace().next().ok_or_else(none)
    }
}

/// A peer that has connected a machine to the cluster.
pub(super) struct Connected {
    peer: Peer,
    laptop: Laptop,
    /// Its home directory, by which its processes are known.
    home: PathBuf,
}

impl Connected {
    /// On a laptop of its own, or on this machine.
    ///
    /// # Errors
    /// [`Absent`] where it is not there, or does not connect.
    pub(super) async fn new(scene: &Scene, peer: Peer) -> Result<Self> {
        let name = format!("metadata.name={}", peer.server());
        let namespaces = "jsonpath={.items[*].metadata.namespace}";
        let find = format!("get deployments -A --field-selector {name} -o {namespaces}");
        let installed = process::is_installed(peer.program());
        let found = match installed {
            true => scene.cluster().ask(&find).await?,
            false => String::new(),
        };
        let server = peer.server_of(installed, &found)?;
        let home = scene.scratch().join(peer.program());
        fs::create_dir_all(&home)?;
        let connected = Self {
            peer,
            laptop: scene.laptop(peer.program()).await?,
            home,
        };
        let connect = peer.connect(server, &scene.namespace);
        let mut connects = connected.run(&connect, CONNECTED).await;
        if connects.is_ok() {
            let from = scene.host(connected.laptop.netns());
            connects = served(&from, scene.cluster_ip).await;
        }
        if let Err(error) = connects {
            connected.end().await?;
            let why = format!("{} does not connect: {error:#}", peer.program());
            return Err(Absent(why).into());
        }
        Ok(connected)
    }

    pub(super) fn laptop(&self) -> &Laptop {
        &self.laptop
    }

    /// Disconnects, and leaves nothing that runs.
    ///
    /// # Errors
    /// Where something can't be ended.
    pub(super) async fn end(&self) -> Result<()> {
        if let Err(error) = self.run(self.peer.quit(), GONE).await {
            eprintln!("{} is killed: {error:#}", self.peer.program());
        }
        Processes::of_home(&self.home)?.kill();
        Ok(())
    }

    /// What it says goes into a file: a pipe would stay open for as long as what it leaves in the background runs.
    async fn run(&self, arguments: &[&str], within: Duration) -> Result<()> {
        let path = self.home.join("said");
        let said = File::create(&path)?;
        let mut command = self.laptop.command(self.peer.program());
        command.args(arguments).env("HOME", &self.home);
        for variable in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(variable);
        }
        command
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said);
        let mut command = Command::from(command);
        let ended = timeout(within, command.kill_on_drop(true).status()).await;
        let said = fs::read_to_string(&path)?;
        let last = said.lines().rfind(|line| !line.trim().is_empty());
        let last = last.unwrap_or("it says nothing").trim();
        match ended {
            Ok(status) if status.as_ref().is_ok_and(ExitStatus::success) => Ok(()),
            Ok(status) => bail!("{}: {last}", status?),
            Err(_) => bail!("not within {within:?}: {last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_missing_without_its_program_or_without_its_server_and_says_which() {
        let peer = Peer::Telepresence;
        let why = |installed, found| peer.server_of(installed, found).unwrap_err().to_string();
        assert_eq!(why(false, ""), "telepresence is not installed");
        assert_eq!(
            why(true, "\n"),
            "no Deployment traffic-manager of telepresence's is in the cluster"
        );
        assert_eq!(peer.server_of(true, "ambassador b").unwrap(), "ambassador");
    }

    #[test]
    fn each_peer_is_told_where_its_server_is() {
        for peer in [Peer::Telepresence, Peer::Kubevpn] {
            assert!(peer.connect("there", "pods").contains(&"there"), "{peer:?}");
        }
    }
}
