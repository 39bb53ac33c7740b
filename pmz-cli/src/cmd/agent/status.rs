//! `pmz agent status`.

use std::io::Write;
use std::process::ExitCode as Code;

use clap::Args;

use super::super::status::Output;
use super::super::{Global, runtime};
use crate::cluster::{Cluster, ClusterError};
use crate::deploy::agent_report;
use crate::failure::{ExitCode, Failure};
use crate::show::{Style, agent_text};

/// Options of `pmz agent status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

pub(super) fn run(global: &Global, args: &StatusArgs) -> Result<Code, Failure> {
    let report = runtime()?.block_on(async {
        let cluster = Cluster::open(&global.target(), None).await?;
        agent_report(&cluster).await
    })?;
    let text = match args.output {
        Output::Text if report.is_empty() => {
            let namespace = report.namespace;
            return Err(ClusterError::NoAgent { namespace }.into());
        }
        Output::Text => agent_text(&report, Style::of(&std::io::stdout())),
        Output::Json => {
            let json = serde_json::to_string_pretty(&report);
            json.map_err(|e| super::super::broken(&e.into()))? + "\n"
        }
    };
    // Whoever reads may have heard enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(if report.serves() {
        Code::SUCCESS
    } else {
        Code::from(ExitCode::NoAgent as u8)
    })
}
