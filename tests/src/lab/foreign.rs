//! A cluster that somebody else runs: what can be done with an administrator's kubeconfig alone.

use std::ffi::OsString;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Cluster;
use super::cluster::{Access, succeed};
use super::reaper::{self, Reaper};
use crate::pmz_binary;

/// Removes the agent, which has objects outside its namespace, and then what has been put beside it.
const CLEAN_UP: &str = r#"pmz=$1 config=$2 namespace=$4; shift 3
"$pmz" agent delete --kubeconfig "$config" -n "$namespace"
kubectl --kubeconfig "$config" delete namespace "$@" --ignore-not-found"#;
/// Before that, where pmz has connected this machine to it, or something else that has its home among this run's files.
const DISCONNECT: &str = r#""$1" down >/dev/null 2>&1
for process in /proc/[0-9]*; do
    if tr '\0' '\n' <"$process/environ" | grep -q "^HOME=${3:?}/"; then kill "${process#/proc/}"; fi
done 2>/dev/null
"#;

/// A cluster with an agent of this run's own, which goes with this process.
pub struct Foreign {
    cluster: Cluster,
    /// For files that go with it.
    scratch: PathBuf,
    reaper: Reaper,
}

impl Deref for Foreign {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Foreign {
    /// For tests, whose laptops are no part of this machine: with the image that `PMZ_IMAGE` names, else the one of this
    /// version. Blocks.
    pub(super) fn connect(kubeconfig: &Path) -> Result<Self> {
        let namespace = format!("pmz-e2e-{}", std::process::id());
        let clean_up = (CLEAN_UP.to_owned(), Vec::new());
        Self::deploy(kubeconfig, namespace, pmz_binary()?, clean_up, None)
    }

    /// For a run that connects this machine itself, by a program that acts as pmz: with this image, else as
    /// `pmz agent deploy` does it. `beside` are namespaces that go with the agent's. Blocks.
    ///
    /// # Errors
    /// Where the agent is not ready in time.
    pub fn of(
        kubeconfig: &Path,
        namespace: String,
        beside: &[&str],
        program: PathBuf,
        image: Option<&str>,
    ) -> Result<Self> {
        let beside = beside.iter().map(OsString::from).collect();
        let clean_up = (format!("{DISCONNECT}{CLEAN_UP}"), beside);
        Self::deploy(kubeconfig, namespace, program, clean_up, image)
    }

    fn deploy(
        kubeconfig: &Path,
        namespace: String,
        pmz: PathBuf,
        (script, beside): (String, Vec<OsString>),
        image: Option<&str>,
    ) -> Result<Self> {
        let kubeconfig = std::path::absolute(kubeconfig)?;
        let scratch = reaper::files(&namespace)?;
        let mut clean_up: Vec<OsString> = vec![
            "sh".into(),
            "-c".into(),
            script.into(),
            "clean-up".into(),
            (&pmz).into(),
            (&kubeconfig).into(),
            (&scratch).into(),
            (&namespace).into(),
        ];
        clean_up.extend(beside);
        let reaper = Reaper::start(&namespace, &clean_up)?;
        let mut deploy = Command::new(&pmz);
        deploy
            .args(["agent", "deploy", "-n", &namespace, "--kubeconfig"])
            .arg(&kubeconfig)
            .args(image.iter().flat_map(|image| ["--image", image]))
            .stdin(Stdio::null());
        succeed(deploy).context("deploy the agent")?;
        Ok(Self {
            cluster: Cluster {
                access: Access::Kubeconfig(kubeconfig),
                namespace,
                program: pmz,
            },
            scratch,
            reaper,
        })
    }

    /// A folder for files, which goes with what was put into the cluster.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Takes away what was put into it, and waits until it is gone. Blocks.
    ///
    /// # Errors
    /// Where something stays.
    pub fn end(self) -> Result<()> {
        self.reaper.end()
    }
}
