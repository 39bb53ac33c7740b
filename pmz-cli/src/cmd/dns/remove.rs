//! `pmz dns remove`.

use std::process::ExitCode as Code;

use clap::Args;

use super::super::Global;
use super::{Asked, ask_daemon, domain, done, named_context};
use crate::daemon::{Ask, RemoveDomain};
use crate::domains::take;
use crate::failure::Failure;

/// Options of `pmz dns remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The name, or the wildcard, as it was added
    #[arg(long, value_name = "DOMAIN")]
    domain: String,
}

pub(super) fn run(global: &Global, args: &RemoveArgs) -> Result<Code, Failure> {
    let domain = domain(&args.domain)?;
    let wish = RemoveDomain {
        domain: domain.clone(),
        context: named_context(global)?,
    };
    let (entry, why) = match ask_daemon(global, &Ask::RemoveDomain(wish))? {
        Asked::Told(told) => (done(told)?.1.entry, None),
        Asked::Nobody(kept) => {
            let taken = kept
                .store
                .change(|entries| take(entries, &kept.context, &domain))?;
            (taken, Some(kept.why))
        }
    };
    let why = why.map(|why| format!(" in context {:?}: {why}", entry.context));
    eprintln!(
        "{} does not lead to {} any more{}.",
        entry.domain,
        entry.target(),
        why.unwrap_or_default()
    );
    Ok(Code::SUCCESS)
}
