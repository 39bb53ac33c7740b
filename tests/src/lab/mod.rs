//! A real Kubernetes for the tests: one cluster for the whole run, with an agent in it, and for each test
//! laptops of its own.

mod booted;
mod cluster;
mod foreign;
mod image;
mod laptop;
mod programs;
mod reaper;
mod relay;
mod users;

use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};

pub use booted::{AGENT_NAMESPACE, Lab};
pub use cluster::{Cluster, NEEDED};
pub use foreign::Foreign;
pub use image::NAME as AGENT_IMAGE;
pub use laptop::Laptop;
pub use programs::Programs;

/// The folder with the lab's commands: up, down, attach, load-image, kubectl, kubeconfig, node.
const LAB: &str = "PMZ_LAB";
/// The kubeconfig of an administrator of a cluster that runs already.
const KUBECONFIG: &str = "KUBECONFIG_E2E";
/// A test that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(180);

/// What a test does to the cluster that others use at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// Nothing that another test of another namespace would notice.
    Shared,
    /// It takes away what others need, or loads the machine: no other test runs meanwhile.
    Alone,
}

/// Tests that share the cluster hold it for reading.
static TURNS: RwLock<()> = RwLock::new(());

/// Runs a test on the lab's cluster, which is booted for the first of them. Says so and does nothing where
/// there is no lab, or without root.
///
/// # Panics
/// When the test fails, or does not end.
pub fn on_cluster<F>(test: &str, uses: Uses, play: F)
where
    F: AsyncFnOnce(&'static Lab) -> Result<()>,
{
    let Some(folder) = variable(LAB) else {
        crate::skipped(test, &format!("no cluster (set {LAB})"));
        return;
    };
    if is_root(test) {
        run(lab(folder), uses, play);
    }
}

/// As [`on_cluster`], for a test that needs no more than a kubeconfig: it runs on the cluster that
/// `KUBECONFIG_E2E` names, where that is set.
///
/// # Panics
/// As [`on_cluster`].
pub fn on_any_cluster<F>(test: &str, uses: Uses, play: F)
where
    F: AsyncFnOnce(&'static Cluster) -> Result<()>,
{
    let cluster: fn(PathBuf) -> Result<&'static Cluster> = match variable(KUBECONFIG) {
        Some(_) => foreign,
        None => |folder| lab(folder).map(|lab| &**lab),
    };
    let Some(path) = variable(KUBECONFIG).or_else(|| variable(LAB)) else {
        crate::skipped(test, &format!("no cluster (set {LAB} or {KUBECONFIG})"));
        return;
    };
    if is_root(test) {
        run(cluster(path), uses, play);
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

fn is_root(test: &str) -> bool {
    let is = nix::unistd::geteuid().is_root();
    if !is {
        crate::skipped(test, "making network namespaces needs root");
    }
    is
}

fn run<C, F>(cluster: Result<&'static C>, uses: Uses, play: F)
where
    F: AsyncFnOnce(&'static C) -> Result<()>,
{
    let result = cluster.and_then(|cluster| {
        // A test that failed has left its turn poisoned, and the cluster as it should be or not: the
        // others find out by themselves.
        let (_shared, _alone);
        match uses {
            Uses::Shared => _shared = TURNS.read().unwrap_or_else(PoisonError::into_inner),
            Uses::Alone => _alone = TURNS.write().unwrap_or_else(PoisonError::into_inner),
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let result = runtime.block_on(async { tokio::time::timeout(WITHIN, play(cluster)).await });
        // A command that hangs, on a thread of its own, must not keep the test from failing.
        runtime.shutdown_background();
        result.with_context(|| format!("not over after {WITHIN:?}"))?
    });
    if let Err(error) = result {
        panic!("{error:?}");
    }
}

fn lab(folder: PathBuf) -> Result<&'static Lab> {
    static BOOTED: OnceLock<Result<Lab, String>> = OnceLock::new();
    let lab = BOOTED.get_or_init(|| Lab::boot(&folder).map_err(|error| format!("{error:?}")));
    lab.as_ref()
        .map_err(|error| anyhow::anyhow!("no cluster for any test: {error}"))
}

fn foreign(kubeconfig: PathBuf) -> Result<&'static Cluster> {
    static CONNECTED: OnceLock<Result<Foreign, String>> = OnceLock::new();
    let foreign = CONNECTED
        .get_or_init(|| Foreign::connect(&kubeconfig).map_err(|error| format!("{error:?}")));
    match foreign {
        Ok(foreign) => Ok(foreign),
        Err(error) => Err(anyhow::anyhow!("no agent for any test: {error}")),
    }
}
