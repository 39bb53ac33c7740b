//! `pmz status`.

use std::io::Write;
use std::process::ExitCode as Code;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{broken, daemon, runtime};
use crate::daemon::{Ask, State, Status, Tell};
use crate::failure::{ExitCode, Failure};
use crate::show::{Style, status_text};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Options of `pmz status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

pub(super) fn run(args: &StatusArgs) -> Result<Code, Failure> {
    let Some(status) = runtime()?.block_on(ask())? else {
        if args.output == Output::Json {
            print("{\"state\":\"not-running\"}\n");
        }
        return Err(Failure::new(
            ExitCode::NotRunning,
            "pmz is not running",
            "`pmz up` connects this machine to a cluster",
        ));
    };
    match args.output {
        Output::Text => print(&status_text(&status, Style::of(&std::io::stdout()))),
        Output::Json => {
            let json = serde_json::to_string_pretty(&status).map_err(|e| broken(&e.into()))?;
            print(&format!("{json}\n"));
        }
    }
    Ok(match status.state {
        State::Connected => Code::SUCCESS,
        State::Connecting | State::Reconnecting | State::Stopping => {
            Code::from(ExitCode::Unreachable as u8)
        }
    })
}

/// Whoever reads may have heard enough (`pmz status | head -1`).
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

async fn ask() -> Result<Option<Status>, Failure> {
    let Some(mut client) = daemon().await? else {
        return Ok(None);
    };
    let answer = async {
        client.ask(&Ask::Status).await.ok()?;
        client.next().await.transpose()
    };
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Some(Ok(Tell::Status(status)))) => Ok(Some(*status)),
        Ok(Some(Err(error))) => Err(broken(&error)),
        // It ended meanwhile.
        Ok(None) => Ok(None),
        Ok(Some(Ok(Tell::View(_)))) | Err(_) => Err(Failure::new(
            ExitCode::General,
            "The daemon runs, but does not answer",
            "`pmz down` ends it",
        )),
    }
}
