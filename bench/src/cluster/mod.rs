//! Into a real cluster: pmz beside `kubectl port-forward`, and beside what the node itself gets.

mod load;
mod processes;
mod programs;
mod row;
mod scene;
mod server;
mod way;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use row::Row;
use scene::Scene;
pub(crate) use server::serve;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder with the commands that boot a cluster
    #[arg(long, env = "PMZ_LAB")]
    kube: PathBuf,
    #[arg(long)]
    only: Vec<String>,
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// After the rounds, wait for a line
    #[arg(long)]
    hold: bool,
}

pub(crate) async fn measure(args: &Args) -> Result<()> {
    let rows: Vec<Row> = row::ALL
        .into_iter()
        .filter(|row| {
            args.only
                .iter()
                .any(|text| row.name().contains(text.as_str()))
                || (args.only.is_empty() && !matches!(row, Row::Many(_) | Row::Peer(_)))
        })
        .collect();
    ensure!(!rows.is_empty() || args.hold, "no such row");
    let scene = Scene::new(&args.kube).await?;
    for round in 0..args.rounds {
        for row in &rows {
            println!("round {round} {}: {}", row.name(), row.description());
            match row.measure(&scene, Duration::from_secs(args.seconds)).await {
                Ok(readings) => readings.iter().for_each(|it| println!("  {it}")),
                Err(error) => println!("  failed: {error:#}"),
            }
        }
    }
    if args.hold {
        println!("cluster {}, service {}", scene.lab.name(), scene.cluster_ip);
        std::io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}
