//! The section `cluster`: into a real Kubernetes, beside `kubectl port-forward` and beside what the node itself gets.

mod goals;
mod host;
mod http;
pub(crate) mod image;
mod laptop;
mod load;
mod many;
mod measure;
mod peer;
mod reading;
mod row;
mod scene;
mod server;
mod way;

use anyhow::{Context, Result};
use async_trait::async_trait;
use tokio::task::block_in_place;

use crate::congestion::APPLICATIONS;
use crate::goal::Goal;
use crate::reading::Reading;
use crate::section::{self, Absent, Chart, Run, Section};
pub(crate) use host::make;
use scene::Scene;
pub(crate) use server::serve;

/// The section.
#[derive(Default)]
pub(crate) struct Cluster {
    /// While it is open.
    scene: Option<Scene>,
    /// Of the cluster, once it is known.
    described: Option<String>,
}

#[async_trait(?Send)]
impl Section for Cluster {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn title(&self) -> String {
        let to = self.described.as_deref().unwrap_or("into a Kubernetes");
        format!("{to}; nginx, iperf3 on {APPLICATIONS}, hey, h2load")
    }

    fn rows(&self) -> Vec<section::Row> {
        let row = |row: row::Row| section::Row {
            name: row.name(),
            description: row.description().into(),
        };
        row::ALL.map(row).to_vec()
    }

    fn goals(&self) -> Vec<Goal> {
        goals::all()
    }

    fn charts(&self) -> Vec<Chart> {
        vec![goals::requests()]
    }

    async fn open(&mut self, run: &Run) -> Result<()> {
        let kube = run.kube.find()?.ok_or_else(|| {
            Absent("it takes a cluster: --kube FOLDER, which boots one here, or --kube FILE, a kubeconfig".into())
        })?;
        let scene = Scene::new(kube).await?;
        self.described = Some(scene.description().await?);
        self.scene = Some(scene);
        Ok(())
    }

    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>> {
        let scene = self.scene.as_ref().context("there is no cluster")?;
        row::ALL[row].measure(scene, run).await
    }

    async fn close(&mut self) -> Result<()> {
        match self.scene.take() {
            Some(scene) => block_in_place(|| scene.end()),
            None => Ok(()),
        }
    }
}
