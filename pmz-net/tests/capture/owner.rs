//! Other processes: programs that ask, and one that holds the programs and is killed.

use std::process::{Command, ExitStatus};

use crate::machine::Machine;

/// Leaves the test where there is no Python.
macro_rules! need_python {
    () => {
        if std::process::Command::new("python3")
            .arg("--version")
            .output()
            .is_err()
        {
            crate::skip::skipped("there is no python3 here");
            return;
        }
    };
}
pub(crate) use need_python;

/// Runs a script in another process on that machine.
pub(crate) fn python(machine: &Machine, script: &str) -> std::io::Result<ExitStatus> {
    machine.run(|| Command::new("python3").args(["-c", script]).status())
}
