//! The way into a machine: the process that stands outside for one that runs inside.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, raise, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};

use super::{KINDS, Namespaces};

/// The hidden command of `pmz` that runs [`enter_main`].
pub const ENTER_COMMAND: &str = "playground-enter";

/// Exit code for: the program can't be run. As the shell has it (POSIX, 2.8.2).
const CANNOT_RUN: u8 = 126;
/// Exit code for: there is no such program.
const NOT_FOUND: u8 = 127;

/// What is passed on to the process inside.
const FORWARDED: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// Runs a program in a machine: the arguments after the command's name are the machine's namespaces as
/// numbers of inherited descriptors, the program and its arguments. Must be called while the process has
/// one thread only.
pub fn enter_main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let entered = inherited(args.next().as_deref()).and_then(|namespaces| {
        let program = args.next().context("no program to run")?;
        Ok((namespaces, program))
    });
    match entered {
        Ok((namespaces, program)) => run(&namespaces, &program, args),
        Err(error) => {
            eprintln!("pmz {ENTER_COMMAND}: {error:#}");
            ExitCode::from(CANNOT_RUN)
        }
    }
}

/// Runs a program in the namespaces, and ends as it ends.
fn run(namespaces: &Namespaces, program: &OsStr, args: impl Iterator<Item = OsString>) -> ExitCode {
    match try_run(namespaces, program, args) {
        Ok(status) => end_like(status),
        Err(error) => {
            eprintln!("pmz playground: {error:#}");
            let missing = error
                .downcast_ref::<io::Error>()
                .is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
            ExitCode::from(if missing { NOT_FOUND } else { CANNOT_RUN })
        }
    }
}

fn inherited(numbers: Option<&OsStr>) -> Result<Namespaces> {
    let numbers = numbers.and_then(OsStr::to_str).context("no namespaces")?;
    let numbers = numbers
        .split(',')
        .map(str::parse)
        .collect::<Result<Vec<RawFd>, _>>()?;
    ensure!(numbers.len() == KINDS.len(), "{} namespaces", numbers.len());
    let mut fds = Vec::with_capacity(numbers.len());
    for number in numbers {
        ensure!(number > 2, "descriptor {number} is not a namespace");
        // SAFETY: who runs this hidden command has left these descriptors open for it alone; where that
        // is not so, the fcntl below says so.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
            .with_context(|| format!("descriptor {number}"))?;
        fds.push(fd);
    }
    Namespaces::from_fds(fds)
}

fn try_run(
    namespaces: &Namespaces,
    program: &OsStr,
    args: impl Iterator<Item = OsString>,
) -> Result<ExitStatus> {
    let mut signals = SigSet::from_iter(FORWARDED);
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("blocking signals")?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).context("signalfd")?;

    let folder = std::env::current_dir();
    namespaces
        .enter(CloneFlags::empty())
        .context("entering the machine (is this root?)")?;
    // Entering a mount namespace leads to its root.
    if let Ok(folder) = folder {
        let _ = std::env::set_current_dir(folder);
    }
    let mut command = Command::new(program);
    command.args(args);
    // SAFETY: prctl and getppid are async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // A parent in another pid namespace is 0 while it lives; one that went before the line above
            // can no longer kill this process, and the machine's init is its parent now.
            if getppid() != Pid::from_raw(0) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
    // std gives the child an empty signal mask.
    let mut child = command
        .spawn()
        .with_context(|| program.to_string_lossy().into_owned())?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let Some(info) = signals.read_signal()? else {
            continue;
        };
        let Ok(signal) = Signal::try_from(i32::try_from(info.ssi_signo)?) else {
            continue;
        };
        // What the terminal sends goes to the whole foreground group, the child included.
        let from_a_process = info.ssi_code <= 0;
        if signal != Signal::SIGCHLD && from_a_process {
            let _ = kill(pid, signal);
        }
    }
}

/// Ends this process as the one inside has ended.
fn end_like(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        die_by(signal);
        return ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(0)));
    }
    ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    )
}

fn die_by(number: i32) {
    // The one inside has dumped core if that was wished for.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let Ok(wanted) = Signal::try_from(number) else {
        return;
    };
    if !matches!(wanted, Signal::SIGKILL | Signal::SIGSTOP) {
        // SAFETY: the default disposition installs no handler.
        let _ = unsafe { signal(wanted, SigHandler::SigDfl) };
    }
    let _ = SigSet::from_iter([wanted]).thread_unblock();
    let _ = raise(wanted);
}
