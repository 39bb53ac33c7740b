//! `pmz status`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode as Code;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{broken, daemon, runtime};
use crate::daemon::{Ask, ControlClient, State, Status, Tell, TrafficReport};
use crate::failure::{ExitCode, Failure};
use crate::show::{Style, status_text, traffic_text};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at the traffic: enough for a rate, and when it is watched.
const SHORTLY: Duration = Duration::from_millis(300);
const EACH: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its first line (ECMA-48, ED and CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

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
    /// Show what went to and came from each service, the newest first
    #[arg(long)]
    traffic: bool,
    /// Go on showing it, once a second
    #[arg(short, long, requires = "traffic")]
    watch: bool,
}

pub(super) fn run(args: &StatusArgs) -> Result<Code, Failure> {
    let runtime = runtime()?;
    if args.traffic {
        return runtime.block_on(show_traffic(args));
    }
    let Some(status) = runtime.block_on(status())? else {
        return Err(not_running(args.output));
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

fn not_running(output: Output) -> Failure {
    if output == Output::Json {
        print("{\"state\":\"not-running\"}\n");
    }
    Failure::new(
        ExitCode::NotRunning,
        "pmz is not running",
        "`pmz up` connects this machine to a cluster",
    )
}

async fn status() -> Result<Option<Status>, Failure> {
    let Some(mut client) = daemon().await? else {
        return Ok(None);
    };
    match ask(&mut client, &Ask::Status).await? {
        Some(Tell::Status(status)) => Ok(Some(*status)),
        None => Ok(None),
        Some(Tell::View(_) | Tell::Traffic(_) | Tell::Domain(_) | Tell::Names(_)) => Err(silent()),
    }
}

/// Two looks, for the rates; on demand more, one each second, until interrupted or nobody reads.
async fn show_traffic(args: &StatusArgs) -> Result<Code, Failure> {
    let Some(mut client) = daemon().await? else {
        return Err(not_running(args.output));
    };
    let Some(mut before) = traffic(&mut client).await? else {
        return Err(not_running(args.output));
    };
    let terminal = std::io::stdout().is_terminal() && args.output == Output::Text;
    let pause = if args.watch { EACH } else { SHORTLY };
    let mut looks = tokio::time::interval(pause);
    looks.tick().await;
    loop {
        looks.tick().await;
        let Some(mut report) = traffic(&mut client).await? else {
            return if args.watch {
                Ok(Code::SUCCESS)
            } else {
                Err(not_running(args.output))
            };
        };
        report.rate_since(&before);
        let text = match args.output {
            Output::Text => traffic_text(&report, Style::of(&std::io::stdout())),
            Output::Json if args.watch => {
                let json = serde_json::to_string(&report).map_err(|e| broken(&e.into()))?;
                format!("{json}\n")
            }
            Output::Json => {
                let json = serde_json::to_string_pretty(&report).map_err(|e| broken(&e.into()))?;
                format!("{json}\n")
            }
        };
        let start = if args.watch && terminal { CLEAR } else { "" };
        let shown = std::io::stdout().write_all(format!("{start}{text}").as_bytes());
        if !args.watch || shown.is_err() {
            return Ok(Code::SUCCESS);
        }
        before = report;
    }
}

async fn traffic(client: &mut ControlClient) -> Result<Option<TrafficReport>, Failure> {
    match ask(client, &Ask::Traffic).await? {
        Some(Tell::Traffic(report)) => Ok(Some(*report)),
        None => Ok(None),
        Some(Tell::View(_) | Tell::Status(_) | Tell::Domain(_) | Tell::Names(_)) => Err(silent()),
    }
}

/// What the daemon tells; `None` where it ended meanwhile.
pub(super) async fn ask(client: &mut ControlClient, what: &Ask) -> Result<Option<Tell>, Failure> {
    let answer = async {
        client.ask(what).await.ok()?;
        client.next().await.transpose()
    };
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Some(Ok(told))) => Ok(Some(told)),
        Ok(Some(Err(error))) => Err(broken(&error)),
        Ok(None) => Ok(None),
        Err(_) => Err(silent()),
    }
}

pub(super) fn silent() -> Failure {
    Failure::new(
        ExitCode::General,
        "The daemon runs, but does not answer",
        "`pmz down` ends it",
    )
}
