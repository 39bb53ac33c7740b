//! The agent in the cluster: its manifest, deploying it, deleting it.
//!
//! The manifests are the files in the repository's `deploy/` folder, embedded. Options change them
//! ([`Manifest`]), a server-side apply with the field manager `pmz` brings them into the cluster
//! ([`deploy_agent`]), and [`delete_agent`] takes away what bears pmz's label.

mod apply;
mod delete;
mod error;
pub mod image;
mod manifest;
mod object;
mod options;
mod quantity;
mod reason;
mod rollout;
mod status;

use std::time::Duration;

use crate::cluster::{Cluster, ClusterError};
use crate::config::Config;
use crate::daemon::Board;
use crate::failure::Failure;

pub use delete::{Deleted, delete_agent};
pub use error::{BadOption, DeployError};
pub use image::DEFAULT_IMAGE;
pub use manifest::Manifest;
pub use options::{AgentOptions, Amount, Expose, Label, NatMode, PullPolicy, Toleration};
pub use quantity::Quantity;
pub use status::{AgentReport, Exposure, PodReport, Replicas, Warning, agent_report};

/// How long pods may take to be ready, where nothing else is said: a pull by a slow registry included.
pub const READY_WITHIN: Duration = Duration::from_secs(120);

/// Applies a manifest and waits until its pods serve; tells how many do. Steps are shown on `board`.
///
/// # Errors
/// See [`DeployError`].
pub async fn deploy_agent(
    cluster: &Cluster,
    manifest: &Manifest,
    force_conflicts: bool,
    within: Duration,
    board: &Board,
) -> Result<i32, DeployError> {
    let namespace = &manifest.namespace;
    board.step("applying the agent's manifest");
    apply::apply(cluster, manifest, force_conflicts, board).await?;
    board.restate("applying the agent's manifest");
    board.done(format!("{} in namespace {namespace}", manifest.image));
    board.step("waiting for the agent");
    let ready = rollout::wait(cluster, namespace, within, board).await?;
    board.restate("waiting for the agent");
    let pods = if ready == 1 { "pod" } else { "pods" };
    board.done(format!("{ready} {pods} ready"));
    Ok(ready)
}

/// Deploys an agent with the user's configuration, where the cluster has none.
///
/// # Errors
/// As [`deploy_agent`]; where the config file can't be used.
pub async fn deploy_missing(cluster: &Cluster, board: &Board) -> Result<(), Failure> {
    match cluster.find_agents().await {
        Err(ClusterError::NoAgent { .. }) => {}
        // One that is there, but not ready, is not this one's to change; who connects hears of it.
        Ok(_) | Err(ClusterError::AgentNotReady { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let config = Config::load()?;
    let named = std::env::var(image::VARIABLE).ok();
    let image = image::choose(named.as_deref(), &config).map_err(DeployError::from)?;
    let manifest = Manifest::new(&AgentOptions::default(), cluster.namespace(), &image)
        .map_err(DeployError::from)?;
    deploy_agent(cluster, &manifest, false, READY_WITHIN, board).await?;
    Ok(())
}
