//! Where clients of a load run: in a network namespace of this machine, or in a pod.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pmz_cli::playground::netns::NetNs;
use pmz_tests::lab::Programs;
use pmz_tests::run_for;

use super::load::{Connects, Own, Reach, Resets, RoundTrips};
use crate::process::enter;

/// No load takes longer.
pub(super) const WITHIN: Duration = Duration::from_secs(120);
/// This program, in the image of the load.
pub(super) const PROGRAM: &str = "/pmz";
/// What it is called by to make a load of its own.
const LOAD: &str = "load";

/// A place for clients.
#[derive(Clone, Debug)]
pub(super) enum Host {
    Here { netns: NetNs, programs: Programs },
    Pod(Pod),
}

/// A pod that has an image of the load.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) kubeconfig: PathBuf,
    pub(super) namespace: String,
    pub(super) name: &'static str,
    /// kubectl's own.
    pub(super) netns: NetNs,
}

impl Pod {
    fn exec(&self, program: &str) -> Command {
        let mut kubectl = Command::new("kubectl");
        kubectl.arg("--kubeconfig").arg(&self.kubeconfig);
        kubectl.args(["exec", "-n", &self.namespace, self.name]);
        kubectl.args(["--", program]);
        enter(kubectl, &self.netns)
    }
}

impl Host {
    /// A program that others have made, there. Where it runs on this machine it ends with the calling thread.
    pub(super) fn command(&self, program: &str) -> Command {
        match self {
            Self::Here { netns, programs } => enter(programs.here(program), netns),
            Self::Pod(pod) => pod.exec(program),
        }
    }

    /// A load of this program's own. Where it runs on this machine it blocks.
    ///
    /// # Errors
    /// What the load gives, and where it can't be made.
    pub(super) async fn run<L: Own>(&self, load: &L) -> Result<L::Found> {
        let pod = match self {
            Self::Here { netns, .. } => return netns.run(|| load.here())?,
            Self::Pod(pod) => pod,
        };
        let mut command = pod.exec(PROGRAM);
        command.args([LOAD, L::NAME, &serde_json::to_string(load)?]);
        let ran = run_for(command, WITHIN).await?;
        ensure!(ran.code == Some(0), "{}", ran.stderr.trim());
        serde_json::from_str(&ran.stdout).with_context(|| ran.stdout.clone())
    }
}

/// Makes a load where this runs, for [`Host::run`] of another process, and gives what it found as JSON.
///
/// # Errors
/// What the load gives, or where it is none.
pub(crate) fn make(name: &str, load: &str) -> Result<String> {
    match name {
        RoundTrips::NAME => made::<RoundTrips>(load),
        Connects::NAME => made::<Connects>(load),
        Resets::NAME => made::<Resets>(load),
        Reach::NAME => made::<Reach>(load),
        name => bail!("no load is called {name}"),
    }
}

fn made<L: Own>(load: &str) -> Result<String> {
    let load: L = serde_json::from_str(load)?;
    Ok(serde_json::to_string(&load.here()?)?)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_load_is_the_same_in_another_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reach = Reach(vec![listener.local_addr().unwrap()]);
        let text = serde_json::to_string(&reach).unwrap();
        assert_eq!(make(Reach::NAME, &text).unwrap(), "null");
        drop(listener);
        assert!(make(Reach::NAME, &text).is_err());
        assert!(make("no-such-load", &text).is_err());
    }
}
