//! Throughput and round trips of pmz beside what it is measured against, in one run on one machine.
//!
//! The program is pmz, too: the playground's machines, the agent and `pmz up` are this same file, so that
//! a release build of the bench measures a release build of all of it.

mod agent;
mod bare;
mod chart;
mod cluster;
mod congestion;
mod cpu;
mod dns;
mod goal;
mod iperf;
mod kube;
mod lab;
mod link;
mod load;
mod machine;
mod process;
mod processes;
mod reading;
mod report;
mod rest;
mod run;
mod search;
mod section;
mod stats;
mod table;
mod tcp;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use pmz_cli::cmd::{self, Hooks};
use pmz_cli::daemon::ClusterConnector;
use serde::Serialize;

use section::{Choice, Section};

/// What the playground and pmz's own processes call this program for.
const PMZ_VERBS: [&str; 7] = [
    "up", "down", "status", "agent", "helper", "daemon", "lookup",
];

/// Measures pmz, and its peers, on namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "pmz-bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Measure only this section; may be given several times
    #[arg(long, value_name = "NAME")]
    section: Vec<String>,
    /// Measure only rows whose names contain this; may be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// How often each row is measured; the medians are shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each flow is measured
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Write every sample there, with what the machine is
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw charts of the medians into this folder
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "docs/images")]
    charts: Option<PathBuf>,
    #[command(flatten)]
    kube: kube::KubeArgs,
    /// Let the agent and `pmz up` say what they do, on stderr
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures the agent's TCP beside Linux's, on emulated links and without one
    Tcp(tcp::Args),
    /// Measures the name server on one core, with few services and with many
    Dns(dns::Args),
    /// Writes the image of the load for a cluster that is not booted here, to be pushed or loaded into its nodes
    Image(cluster::image::Args),
    /// Serves bytes, in a pod of the cluster that is measured
    #[command(hide = true)]
    ServeBytes,
    /// Makes a load, in a pod of the cluster that is measured
    #[command(hide = true)]
    Load {
        /// Which
        name: String,
        /// What it is to be like, as JSON
        load: String,
    },
}

fn main() -> ExitCode {
    if let Some(code) = pmz_cli::playground::hidden_command(std::env::args_os()) {
        return code;
    }
    let verb = std::env::args_os().nth(1);
    if verb.is_some_and(|verb| PMZ_VERBS.iter().any(|known| verb == *known)) {
        return cmd::main(&Hooks {
            connector: |_| ClusterConnector::default(),
            playground: pmz_cli::playground::tour::run,
        });
    }
    match execute(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(args: &Args) -> Result<ExitCode> {
    if let Some(Command::Dns(args)) = &args.command {
        let report = dns::measure(args)?;
        show(&report)?;
        write_json(args.json.as_deref(), &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Image(args)) = &args.command {
        let written = cluster::image::make(args)?;
        show(&format_args!("{} {}\n", written.name, written.digest))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Load { name, load }) = &args.command {
        show(&cluster::make(name, load)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::ServeBytes) = &args.command {
        cluster::serve()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Command::Tcp(args)) = &args.command {
        let cells = tcp::chosen(args)?;
        if !args.only_list() {
            prepare()?;
        }
        let runtime = tokio::runtime::Runtime::new()?;
        let report = runtime.block_on(tcp::measure(args, cells));
        show(&report)?;
        write_json(args.json.as_deref(), &report)?;
        return Ok(exit(report.failed()));
    }
    let choice = Choice {
        sections: args.section.clone(),
        rows: args.only.clone(),
    };
    let chosen = run::chosen(sections(), &choice)?;
    prepare()?;
    let runtime = tokio::runtime::Runtime::new()?;
    // On this thread, and not on one of the runtime's: what is started here ends with this thread.
    let report = runtime.block_on(run::measure(args, chosen))?;
    show(&report)?;
    write_json(args.json.as_deref(), &report)?;
    Ok(exit(report.failed()))
}

/// All that can be measured, in the table's order.
fn sections() -> Vec<Box<dyn Section>> {
    vec![
        Box::new(bare::Bare),
        Box::<cluster::Cluster>::default(),
        Box::new(link::Link),
        Box::new(rest::Rest),
    ]
}

/// Writes a report to standard output. Whoever has seen enough of it may have closed that.
fn show(report: &impl Display) -> Result<()> {
    match write!(std::io::stdout(), "{report}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("write the report")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Says what is missing before anything is measured.
fn prepare() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench is made of network namespaces, and making them needs root. Run this, which builds nothing as \
         root and leaves nothing behind:\n\n    sudo {}",
        command_line()
    );
    // Ten thousand connections take more than most shells leave.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    if cfg!(debug_assertions) {
        eprintln!("warning: this is no release build; its figures say little");
    }
    Ok(())
}

fn write_json(path: Option<&Path>, report: &impl Serialize) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let json = serde_json::to_vec_pretty(report)?;
    std::fs::write(path, json).with_context(|| format!("write {}", path.display()))
}

fn exit(failed: bool) -> ExitCode {
    match failed {
        false => ExitCode::SUCCESS,
        true => ExitCode::FAILURE,
    }
}

fn command_line() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "pmz-bench".into());
    let mut line = program.display().to_string();
    for argument in std::env::args_os().skip(1) {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
