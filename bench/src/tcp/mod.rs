//! `pmz-bench tcp`: the agent's TCP beside Linux's, over the same emulated links in the same run.

mod cells;
mod connects;
pub(crate) mod flows;
mod goal;
mod measure;
mod report;
mod series;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use pmz_net::nat::TcpStack;
use pmz_tests::tcp::Setting;

use crate::congestion::Congestion;
use cells::Cell;
use measure::Run;
use report::Report;

/// What is to be measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measure only cells whose names contain this; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only cells of this congestion control
    #[arg(long, value_name = "NAME")]
    congestion: Option<Congestion>,
    /// How often each cell is measured; the medians are shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each flow is measured; some links want more
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How long connections are made and closed
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    connect_seconds: u64,
    /// Bytes of the largest packet
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1280..=9000))]
    mtu: u16,
    /// IPv6 instead of IPv4
    #[arg(long)]
    ipv6: bool,
    /// The NAT's TCP: own or smoltcp
    #[arg(long, value_name = "NAME", default_value_t)]
    tcp: TcpStack,
    /// Show the cells, and measure nothing
    #[arg(long)]
    list: bool,
    /// Write every sample there, with what the machine is
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl Args {
    /// Whether the cells are only to be shown.
    pub(crate) fn only_list(&self) -> bool {
        self.list
    }
}

/// The cells that are asked for.
///
/// # Errors
/// Where there are none.
pub(crate) fn chosen(args: &Args) -> Result<Vec<Cell>> {
    let is_chosen = |cell: &Cell| {
        let only = &args.only;
        let by_name = only.is_empty() || only.iter().any(|text| cell.name.contains(text.as_str()));
        by_name
            && args
                .congestion
                .is_none_or(|wanted| wanted == cell.congestion)
    };
    let cells: Vec<Cell> = cells::all().into_iter().filter(is_chosen).collect();
    ensure!(
        !cells.is_empty(),
        "no cell is called like that; `pmz-bench tcp --list` shows all"
    );
    Ok(cells)
}

/// Each round measures all cells, so that a change of the machine's load hits all of them.
pub(crate) async fn measure(args: &Args, cells: Vec<Cell>) -> Report {
    let setting = Setting {
        mtu: args.mtu,
        ipv6: args.ipv6,
        stack: args.tcp,
    };
    let mut report = Report::new(setting, args.rounds, args.seconds, &cells);
    if args.list {
        return report;
    }
    for round in 0..args.rounds {
        for cell in &cells {
            if !report.wants(cell) {
                continue;
            }
            let run = Run {
                round,
                duration: Duration::from_secs(args.seconds),
                connects_for: Duration::from_secs(args.connect_seconds),
                setting,
            };
            let measured = match cell.congestion.is_available() {
                Ok(true) => cell.measure(&run).await,
                Ok(false) => Err(anyhow::anyhow!("this kernel has no {}", cell.congestion)),
                Err(error) => Err(error),
            };
            let said = match measured {
                Ok(samples) => report.add(cell, samples),
                Err(error) => report.fail(cell, format!("{error:#}")),
            };
            eprintln!(
                "round {} of {}: {}: {said}",
                round + 1,
                args.rounds,
                cell.name
            );
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn names(line: &[&str]) -> Vec<String> {
        let line = ["tcp"].iter().chain(line);
        let args = Command::try_parse_from(line).unwrap().args;
        let cells = chosen(&args).unwrap_or_default();
        cells.into_iter().map(|cell| cell.name).collect()
    }

    #[test]
    fn cells_are_chosen_by_parts_of_their_names_and_by_their_algorithm() {
        assert_eq!(
            names(&["--only", "policer", "--congestion", "cubic"]),
            ["policer-20m-40ms-cubic-down", "policer-20m-40ms-cubic-up"]
        );
        assert_eq!(names(&["--only", "outage", "--only", "policer"]).len(), 8);
        assert_eq!(names(&[]).len(), cells::all().len());
        assert!(names(&["--only", "nonsense"]).is_empty());
    }
}
