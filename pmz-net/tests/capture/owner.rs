//! When the process that holds the programs is killed.

use std::process::{Command, ExitStatus};

use crate::machine::Machine;

/// Runs a script in another process on that machine; `None`, and a line that says so, where there is no Python.
pub(crate) fn python(machine: &Machine, script: &str) -> Option<ExitStatus> {
    let run = machine.run(|| Command::new("python3").args(["-c", script]).status());
    if run.is_err() {
        crate::skip::skipped("there is no python3 here");
    }
    run.ok()
}
