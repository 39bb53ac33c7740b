//! `pmz agent deploy`.

use std::process::ExitCode as Code;
use std::time::Duration;

use clap::Args;

use super::super::Global;
use super::with_progress;
use crate::config::Config;
use crate::deploy::{AgentOptions, DeployError, Manifest, READY_WITHIN, deploy_agent, image};
use crate::failure::Failure;

/// Options of `pmz agent deploy`.
#[derive(Debug, Args)]
pub(super) struct DeployArgs {
    #[command(flatten)]
    agent: AgentOptions,
    /// Take over fields that others have changed
    #[arg(long)]
    force_conflicts: bool,
    /// How long the pods may take to be ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = READY_WITHIN.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

pub(super) fn run(global: &Global, args: &DeployArgs) -> Result<Code, Failure> {
    let config = Config::load()?;
    let image = image::choose(args.agent.image.as_deref(), &config).map_err(DeployError::from)?;
    let manifest =
        Manifest::new(&args.agent, global.namespace(), &image).map_err(DeployError::from)?;
    with_progress(global, async |cluster, board| {
        let within = Duration::from_secs(args.timeout);
        deploy_agent(&cluster, &manifest, args.force_conflicts, within, &board).await?;
        Ok(())
    })?;
    eprintln!("The agent is ready. `pmz up` connects this machine to it.");
    Ok(Code::SUCCESS)
}
