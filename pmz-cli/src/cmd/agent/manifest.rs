//! `pmz agent manifest`.

use std::io::Write;
use std::process::ExitCode as Code;

use clap::Args;

use super::super::Global;
use crate::config::Config;
use crate::deploy::{AgentOptions, DeployError, Manifest, image};
use crate::failure::{ExitCode, Failure};

/// Options of `pmz agent manifest`.
#[derive(Debug, Args)]
pub(super) struct ManifestArgs {
    #[command(flatten)]
    agent: AgentOptions,
}

pub(super) fn run(global: &Global, args: &ManifestArgs) -> Result<Code, Failure> {
    let config = Config::load()?;
    let image = image::choose(args.agent.image.as_deref(), &config).map_err(DeployError::from)?;
    let manifest =
        Manifest::new(&args.agent, global.namespace(), &image).map_err(DeployError::from)?;
    let yaml = manifest.to_yaml().map_err(DeployError::from)?;
    std::io::stdout()
        .write_all(yaml.as_bytes())
        .map_err(|error| {
            Failure::new(
                ExitCode::General,
                format!("The manifest could not be written: {error}"),
                "",
            )
        })?;
    Ok(Code::SUCCESS)
}
