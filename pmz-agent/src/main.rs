//! The agent as a program of its own.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "pmz-agent", version, about = "The in-cluster end of pmz")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve clients, until SIGTERM
    Serve(Box<pmz_agent::Args>),
    /// Tell by the exit code whether the agent in this pod serves
    Probe(pmz_agent::ProbeArgs),
    /// `pmz agent serve` and `probe`, as the manifests call them: this program may stand for pmz in an image
    #[command(subcommand, hide = true)]
    Agent(Box<Self>),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut verb = Cli::parse().verb;
    loop {
        match verb {
            Verb::Agent(inner) => verb = *inner,
            Verb::Serve(args) => {
                start_log();
                pmz_agent::run(*args).await?;
                return Ok(ExitCode::SUCCESS);
            }
            Verb::Probe(args) => {
                // The kubelet puts what is printed into an event.
                return Ok(match pmz_agent::probe(&args) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        eprintln!("{error}");
                        ExitCode::FAILURE
                    }
                });
            }
        }
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_env("PMZ_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
