//! A cluster that somebody else runs: what can be tested with an administrator's kubeconfig alone.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Cluster;
use super::cluster::{Access, succeed};
use super::reaper::Reaper;
use crate::pmz_binary;

/// Removes the agent, which has objects outside its namespace, and then what tests have put beside it.
const CLEAN_UP: &str = r#""$1" agent delete --kubeconfig "$2" -n "$3"; kubectl --kubeconfig "$2" delete namespace "$3" --ignore-not-found"#;

/// A cluster with an agent of this run's own, which goes with this process.
pub(super) struct Foreign {
    pub(super) cluster: Cluster,
    _reaper: Reaper,
}

impl Foreign {
    /// Deploys the agent: the image that `PMZ_IMAGE` names, else the one of this version. Blocks.
    pub(super) fn connect(kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = std::path::absolute(kubeconfig)?;
        let namespace = format!("pmz-e2e-{}", std::process::id());
        let pmz = pmz_binary()?;
        let clean_up: [OsString; 7] = [
            "sh".into(),
            "-c".into(),
            CLEAN_UP.into(),
            "clean-up".into(),
            (&pmz).into(),
            (&kubeconfig).into(),
            (&namespace).into(),
        ];
        let reaper = Reaper::start(&namespace, &clean_up)?;
        let mut deploy = Command::new(&pmz);
        deploy
            .args(["agent", "deploy", "-n", &namespace, "--kubeconfig"])
            .arg(&kubeconfig);
        succeed(deploy).context("deploy the agent")?;
        Ok(Self {
            cluster: Cluster {
                access: Access::Kubeconfig(kubeconfig),
                namespace,
                program: pmz,
            },
            _reaper: reaper,
        })
    }
}
