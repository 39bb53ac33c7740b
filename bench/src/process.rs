//! Programs of others in a namespace of the bench, which end with it however it ends.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use pmz_cli::playground::netns::NetNs;

/// A command that will run there. It is killed when the thread that starts it ends: start it on the main
/// thread, which ends last.
pub(crate) fn within(netns: &NetNs, program: impl AsRef<OsStr>) -> Command {
    enter(Command::new(program), netns)
}

/// As [`within`], of a command that is there already.
pub(crate) fn enter(mut command: Command, netns: &NetNs) -> Command {
    let netns = netns.clone();
    // SAFETY: between fork and exec this only calls setns and prctl; it allocates nothing and takes no
    // lock.
    unsafe {
        command.pre_exec(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    command
}

/// Where such a program is in the PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found = env::split_paths(&path).map(|folder| folder.join(program));
    found.find(|file| file.is_file())
}

/// Whether there is such a program in the PATH.
pub(crate) fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_program_ends_with_the_thread_that_started_it() {
        let here = NetNs::current().unwrap();
        if here.run(|| ()).is_err() {
            pmz_tests::skipped(
                "a_program_ends_with_the_thread_that_started_it",
                "no right to enter a network namespace",
            );
            return;
        }
        let started = std::thread::spawn(move || {
            let mut command = within(&here, "cat");
            // It waits for more, for as long as somebody may write.
            command.stdin(Stdio::piped()).spawn().unwrap()
        });
        let mut program = started.join().unwrap();
        let input = program.stdin.take();
        let ended = program.wait().unwrap();
        assert!(!ended.success(), "{ended}");
        drop(input);
    }
}
