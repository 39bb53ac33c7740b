//! `pmz agent`: the in-cluster end, a file per verb.

mod delete;
mod deploy;
mod image;
mod manifest;
mod probe;
mod serve;
mod status;

use std::future::Future;
use std::process::ExitCode as Code;

use clap::{Args, Subcommand};

use super::Global;
use crate::cluster::Cluster;
use crate::daemon::Board;
use crate::failure::Failure;
use crate::show::Progress;

/// Verbs of the agent.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(subcommand)]
    verb: AgentVerb,
}

#[derive(Debug, Subcommand)]
enum AgentVerb {
    /// Deploy the agent into the cluster, or change the one that is there
    ///
    /// What no option names has its default, also where an agent is deployed already.
    Deploy(Box<deploy::DeployArgs>),
    /// Print the manifest that `deploy` applies, for kubectl and GitOps
    Manifest(Box<manifest::ManifestArgs>),
    /// Tell how the agent in the cluster does
    Status(status::StatusArgs),
    /// Delete what `deploy` made, and nothing else
    Delete(delete::DeleteArgs),
    /// Write the agent's container image, without Docker
    Image(image::ImageArgs),
    /// Serve clients, until SIGTERM
    #[command(hide = true)]
    Serve(Box<pmz_agent::Args>),
    /// Tell by the exit code whether the agent in this pod serves
    #[command(hide = true)]
    Probe(pmz_agent::ProbeArgs),
}

impl AgentArgs {
    /// Whether it is the agent itself, which sets up its own log.
    pub(super) fn is_serve(&self) -> bool {
        matches!(self.verb, AgentVerb::Serve(_))
    }
}

pub(super) fn run(global: &Global, args: AgentArgs) -> Result<Code, Failure> {
    match args.verb {
        AgentVerb::Deploy(args) => deploy::run(global, &args),
        AgentVerb::Manifest(args) => manifest::run(global, &args),
        AgentVerb::Delete(args) => delete::run(global, &args),
        AgentVerb::Status(args) => status::run(global, &args),
        AgentVerb::Image(args) => image::run(&args),
        AgentVerb::Serve(args) => serve::run(*args, global.verbose),
        AgentVerb::Probe(args) => Ok(probe::run(&args)),
    }
}

/// Opens the cluster and does `work` on it, whose steps are shown on stderr.
fn with_progress<T, W>(
    global: &Global,
    work: impl FnOnce(Cluster, Board) -> W,
) -> Result<T, Failure>
where
    W: Future<Output = Result<T, Failure>>,
{
    super::runtime()?.block_on(async {
        let cluster = Cluster::open(&global.target(), None).await?;
        let board = Board::default();
        let mut views = board.watch();
        let mut progress = Progress::new();
        let work = work(cluster, board.clone());
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                Some(view) = views.next() => progress.show(&view),
            }
        };
        progress.show(&board.view());
        progress.finish();
        result
    })
}
