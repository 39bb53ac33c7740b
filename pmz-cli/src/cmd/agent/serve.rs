//! `pmz agent serve`: the in-cluster end, out of the same binary.

use std::process::ExitCode as Code;

use crate::failure::{ExitCode, Failure};
use crate::show::Style;

pub(super) fn run(args: pmz_agent::Args, verbose: u8) -> Result<Code, Failure> {
    let filter = crate::daemon::log_filter(verbose, "info");
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(Style::of(&std::io::stderr()).has_colour())
        .with_writer(std::io::stderr);
    // There is one subscriber per process, and nobody has set it before.
    let _ = log.try_init();
    let failed = |error: anyhow::Error| {
        Failure::new(
            ExitCode::General,
            format!("The agent can't serve: {error:#}"),
            "Its log, above, says how far it got",
        )
    };
    let runtime = tokio::runtime::Runtime::new().map_err(|e| failed(e.into()))?;
    runtime.block_on(pmz_agent::run(args)).map_err(failed)?;
    Ok(Code::SUCCESS)
}
