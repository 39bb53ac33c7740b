//! The section `cluster`: into a real Kubernetes, beside `kubectl port-forward` and beside what the node itself gets.

mod goals;
mod http;
mod load;
mod measure;
mod row;
mod scene;
mod server;
mod way;

use anyhow::{Context, Result};
use async_trait::async_trait;

use crate::chart::Chart;
use crate::goal::Goal;
use crate::lab::APPLICATIONS;
use crate::reading::Reading;
use crate::section::{self, Absent, Run, Section};
use scene::Scene;
pub(crate) use server::serve;

/// The section.
#[derive(Default)]
pub(crate) struct Cluster {
    /// While it is open.
    scene: Option<Scene>,
}

#[async_trait(?Send)]
impl Section for Cluster {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn title(&self) -> String {
        format!(
            "from a laptop on the lan of a Kubernetes of one node to a pod; nginx, iperf3 on {APPLICATIONS}, hey, h2load"
        )
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
        let folder = run.kube.as_deref().filter(|folder| folder.is_dir());
        let folder = folder.ok_or_else(|| {
            Absent(
                "it takes a folder that boots a cluster (--kube), whose node is this machine"
                    .into(),
            )
        })?;
        self.scene = Some(Scene::new(folder).await?);
        Ok(())
    }

    async fn measure(&mut self, row: usize, run: &Run) -> Result<Vec<Reading>> {
        let scene = self.scene.as_ref().context("there is no cluster")?;
        row::ALL[row].measure(scene, run).await
    }

    async fn close(&mut self) -> Result<()> {
        self.scene = None;
        Ok(())
    }
}
