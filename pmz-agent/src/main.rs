//! The agent as a program of its own.

use std::io::IsTerminal;

use clap::Parser;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(name = "pmz-agent", version, about = "The in-cluster end of pmz")]
struct Cli {
    #[command(flatten)]
    args: pmz_agent::Args,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("PMZ_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    pmz_agent::run(Cli::parse().args).await
}
