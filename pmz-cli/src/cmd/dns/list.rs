//! `pmz dns list`.

use std::io::Write;
use std::process::ExitCode as Code;

use clap::{Args, ValueEnum};

use super::super::{Global, broken};
use super::{Asked, ask_daemon, named_context, silent};
use crate::daemon::{Ask, DomainTold, Tell};
use crate::domains::{DomainLine, NamesPage};
use crate::failure::Failure;
use crate::show::{Names, Style, names_only, names_text};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// Names alone, a line for each
    Name,
}

/// Options of `pmz dns list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

pub(super) fn run(
    global: &Global,
    namespace: Option<&str>,
    args: &ListArgs,
) -> Result<Code, Failure> {
    let context = named_context(global)?;
    let mut names = match ask_daemon(global, &Ask::Names { context })? {
        Asked::Told(told) => {
            let names = join(told)?;
            if !names.connected {
                eprintln!(
                    "The cluster is not reached at present: what is shown is what was known of it last."
                );
            }
            names
        }
        Asked::Nobody(kept) => {
            let mut entries = kept.store.read()?;
            entries.retain(|entry| entry.context == kept.context);
            entries.sort_by(|a, b| a.domain.cmp(&b.domain));
            eprintln!(
                "Only the domains of context {:?} are shown, and not where they lead: {}.",
                kept.context, kept.why
            );
            Names {
                context: kept.context,
                domains: entries.into_iter().map(DomainLine::unknown).collect(),
                ..Names::default()
            }
        }
    };
    if let Some(namespace) = namespace {
        names.keep(namespace);
    }
    let text = match args.output {
        Output::Text => names_text(&names, Style::of(&std::io::stdout())),
        Output::Name => names_only(&names),
        Output::Json => {
            let json = serde_json::to_string_pretty(&names).map_err(|e| broken(&e.into()))?;
            format!("{json}\n")
        }
    };
    // Whoever reads may have heard enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(Code::SUCCESS)
}

/// The daemon's pages as one.
fn join(told: Vec<Tell>) -> Result<Names, Failure> {
    let mut names = Names::default();
    for told in told {
        match told {
            Tell::Names(page) => {
                let NamesPage {
                    context,
                    connected,
                    domains,
                    services,
                    last: _,
                } = *page;
                names.context = context;
                names.connected = connected;
                names.domains.extend(domains);
                names.services.extend(services);
            }
            Tell::Domain(DomainTold::Refused { failure }) => return Err(failure),
            Tell::Domain(DomainTold::Done { .. } | DomainTold::Elsewhere { .. })
            | Tell::Status(_)
            | Tell::Traffic(_)
            | Tell::View(_) => return Err(silent()),
        }
    }
    Ok(names)
}
