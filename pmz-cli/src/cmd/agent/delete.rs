//! `pmz agent delete`.

use std::process::ExitCode as Code;
use std::time::Duration;

use clap::Args;

use super::super::Global;
use super::with_progress;
use crate::deploy::{Deleted, delete_agent};
use crate::failure::Failure;

/// Options of `pmz agent delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// How long pods and namespace may take to be gone, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

pub(super) fn run(global: &Global, args: &DeleteArgs) -> Result<Code, Failure> {
    let within = Duration::from_secs(args.timeout);
    let done = with_progress(global, async |cluster, board| {
        Ok(delete_agent(&cluster, within, &board).await?)
    })?;
    eprintln!("{}", summary(global.namespace(), &done));
    Ok(Code::SUCCESS)
}

fn summary(namespace: &str, done: &Deleted) -> String {
    let mut text = if done.deleted.is_empty() {
        format!("There is nothing of pmz's in namespace {namespace:?} to delete.")
    } else {
        format!("The agent in namespace {namespace:?} is deleted.")
    };
    let left: Vec<&str> = done
        .left
        .iter()
        .map(String::as_str)
        .filter(|title| !title.starts_with("Namespace "))
        .collect();
    if !left.is_empty() {
        text.push_str(&format!(
            " Left, since pmz did not make it: {}.",
            left.join(", ")
        ));
    }
    if let Some(why) = &done.namespace {
        text.push_str(&format!(" The namespace stays: {why}."));
    }
    text
}
