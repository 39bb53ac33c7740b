//! `pmz-bench dns`: the name server on one core, asked from another one, with few services in the mirror and with many.
//! And a server beside it on the same core, asked by way of it and directly.

mod load;
mod report;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

use load::Heard;
use report::Report;
use server::{Serving, Way};

/// Services of a small cluster.
const FEW: u32 = 10;

/// What is to be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Questions a second
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: u32,
    /// Services in the larger mirror
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    services: u32,
    /// How often each is measured; the medians are shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each is measured
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Write every sample there, with what the machine is
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What is asked, by which way, and how many services there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Cell {
    way: Way,
    services: u32,
}

/// What came of one round of a cell.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Seconds, from when a question was due until its answer was there.
    p50: f64,
    p99: f64,
    /// The share of questions that had no answer.
    lost: f64,
    /// The share of the server's core that it took.
    core: f64,
    /// Answers a second to a client that always has some questions open.
    peak: f64,
}

/// Each round measures all cells, so that a change of the machine's load hits all of them. Blocks.
///
/// # Errors
/// Where one of them can't be measured.
pub(crate) fn measure(args: &Args) -> Result<Report> {
    let of = |way: Way| [FEW, args.services].map(|services| Cell { way, services });
    let ways = [Way::Server, Way::Captured, Way::Outside, Way::Direct];
    let cells: Vec<Cell> = ways.into_iter().flat_map(of).collect();
    let mut report = Report::new(args.rate, args.rounds, args.seconds, &cells);
    for round in 0..args.rounds {
        for cell in &cells {
            let sample = cell.measure(args.rate, Duration::from_secs(args.seconds))?;
            eprintln!(
                "round {} of {}: {cell:?}: {sample:?}",
                round + 1,
                args.rounds
            );
            report.add(*cell, sample);
        }
    }
    Ok(report)
}

impl Cell {
    fn measure(&self, rate: u32, duration: Duration) -> Result<Sample> {
        let [serving_core, asking_core] = two_cores()?;
        let questions = server::questions(self.way, self.services)?;
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| -> Result<Sample> {
                on_core(asking_core)?;
                let serving = Serving::start(self.way, self.services, serving_core)?;
                let heard = load::steadily(serving.address(), &questions, rate, duration)?;
                let Heard {
                    mut waits,
                    asked,
                    took,
                } = heard;
                let cpu = serving.stop()?;
                let serving = Serving::start(self.way, self.services, serving_core)?;
                let peak = load::as_fast_as_answered(serving.address(), &questions, duration)?;
                serving.stop()?;
                waits.sort_by(f64::total_cmp);
                let wait = |percent| {
                    crate::stats::percentile(&waits, percent).context("nothing was answered")
                };
                Ok(Sample {
                    p50: wait(50)?,
                    p99: wait(99)?,
                    lost: 1.0 - waits.len() as f64 / asked as f64,
                    core: cpu.div_duration_f64(took),
                    peak,
                })
            });
            asked
                .join()
                .map_err(|_| anyhow::anyhow!("the client panicked"))?
        })
    }
}

/// Two cores that this process may use; one twice where there is only one.
fn two_cores() -> Result<[usize; 2]> {
    let may = sched_getaffinity(Pid::from_raw(0))?;
    let mut cores = (0..CpuSet::count()).filter(|core| may.is_set(*core) == Ok(true));
    let first = cores.next().context("no core to run on")?;
    Ok([first, cores.next().unwrap_or(first)])
}

/// Keeps the calling thread on a core.
fn on_core(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("stay on one core")
}
