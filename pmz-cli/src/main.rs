//! The pmz program.

use std::process::ExitCode;

use pmz_cli::cmd::{self, Hooks};
use pmz_cli::daemon::ClusterConnector;

fn main() -> ExitCode {
    if let Some(code) = pmz_cli::playground::hidden_command(std::env::args_os()) {
        return code;
    }
    cmd::main(&Hooks {
        connector: |_| ClusterConnector::default(),
        playground: pmz_cli::playground::tour::run,
    })
}
