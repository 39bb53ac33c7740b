//! A real Kubernetes for the tests: one cluster for the whole run, with an agent in it, and for each test
//! laptops of its own.

mod cluster;
mod image;
mod laptop;
mod programs;
mod reaper;

use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};

pub use cluster::{AGENT_NAMESPACE, Lab, NEEDED};
pub use laptop::Laptop;
pub use programs::Programs;

/// The folder with the lab's commands: up, down, attach, load-image, kubectl, kubeconfig, node.
const LAB: &str = "PMZ_LAB";
/// A test that takes longer hangs.
const WITHIN: Duration = Duration::from_secs(120);

/// What a test does to the cluster that others use at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// Nothing that another test of another namespace would notice.
    Shared,
    /// It takes away what others need, or measures: no other test runs meanwhile.
    Alone,
}

/// Tests that share the cluster hold it for reading.
static TURNS: RwLock<()> = RwLock::new(());

/// Runs a test on the cluster, which is booted for the first of them. Says so and does nothing where
/// there is none, or without root.
///
/// # Panics
/// When the test fails, or does not end.
pub fn on_cluster<F>(test: &str, uses: Uses, play: F)
where
    F: AsyncFnOnce(&'static Lab) -> Result<()>,
{
    let Some(folder) = std::env::var_os(LAB).filter(|folder| !folder.is_empty()) else {
        println!("skipped: {test}: no cluster (set {LAB} or KUBECONFIG_E2E)");
        return;
    };
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: {test}: needs root to make network namespaces");
        return;
    }
    let result = lab(folder.into()).and_then(|lab| {
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
        let result = runtime.block_on(async { tokio::time::timeout(WITHIN, play(lab)).await });
        // A command that hangs, on a thread of its own, must not keep the test from failing.
        runtime.shutdown_background();
        result.with_context(|| format!("not over after {WITHIN:?}"))?
    });
    if let Err(error) = result {
        panic!("{error:?}");
    }
}

fn lab(folder: PathBuf) -> Result<&'static Lab> {
    static CLUSTER: OnceLock<Result<Lab, String>> = OnceLock::new();
    let lab = CLUSTER.get_or_init(|| Lab::boot(folder).map_err(|error| format!("{error:?}")));
    lab.as_ref()
        .map_err(|error| anyhow::anyhow!("no cluster for any test: {error}"))
}
