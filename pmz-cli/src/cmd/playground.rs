//! `pmz playground`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode as Code;

use clap::{Args, Subcommand};

use crate::daemon::DnsChoice;
use crate::failure::{ExitCode, Failure};
use crate::playground::link::LinkSpec;
use crate::playground::shell_command;
use crate::playground::tour::Run;

/// Options of `pmz playground`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PlaygroundArgs {
    #[command(subcommand)]
    pub(super) verb: Option<PlaygroundVerb>,
    /// What the link between laptop and cluster is like, such as delay=20ms,loss=1%,rate=100mbit
    #[arg(long, value_name = "SPEC")]
    pub(super) link: Option<LinkSpec>,
    /// Where the link's chances come from
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u64,
    /// How DNS queries reach pmz on the laptop
    #[arg(long, value_enum, value_name = "HOW")]
    dns: Option<DnsChoice>,
    /// Run this on the laptop with the tunnel up, instead of the tour, and exit with its code
    #[arg(last = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(super) enum PlaygroundVerb {
    /// Open a shell in a machine of the playground that is running
    Shell {
        /// laptop, node, or a pod such as echo-0
        name: Option<String>,
        /// The playground's process, where several are running
        #[arg(long, value_name = "PID")]
        process: Option<u32>,
        /// Run this instead of a shell
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
}

pub(super) fn run(
    args: PlaygroundArgs,
    verbose: u8,
    playground: fn(Run) -> Result<Code, Failure>,
) -> Result<Code, Failure> {
    match args.verb {
        Some(PlaygroundVerb::Shell {
            name,
            process,
            command,
        }) => Err(shell(name.as_deref(), &command, process)),
        None => playground(Run {
            link: args.link,
            seed: args.seed,
            dns: args.dns,
            command: args.command,
            verbose,
        }),
    }
}

/// Becomes the shell; returns only when it can't.
fn shell(name: Option<&str>, inside: &[OsString], process: Option<u32>) -> Failure {
    let error = match shell_command(Path::new("/proc/self/exe"), name, inside, process) {
        Ok(mut command) => command.exec().into(),
        Err(error) => error,
    };
    let code = if nix::unistd::geteuid().is_root() {
        ExitCode::General
    } else {
        ExitCode::Permission
    };
    Failure::new(code, format!("{error:#}"), "")
}
