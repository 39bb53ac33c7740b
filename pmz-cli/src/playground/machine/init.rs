//! The first process of a machine.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, sethostname, setsid};

use super::config::{self, MachineSpec};
use super::{KINDS, Namespaces, fds, mounts};

/// The hidden command of `pmz` that runs [`init_main`].
pub const INIT_COMMAND: &str = "playground-init";

/// First byte of init's answer: the namespaces come with it.
const READY: u8 = b'R';
/// First byte of init's answer: the reason why there is no machine follows.
const FAILED: u8 = b'E';

/// Runs a machine's init, with the socket to the playground as standard input. Must be called while the
/// process has one thread only.
pub fn init_main() -> ExitCode {
    let socket = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => return ExitCode::FAILURE,
    };
    match outer(&socket) {
        Ok(code) => code,
        Err(error) => {
            let mut message = vec![FAILED];
            message.extend_from_slice(format!("{error:#}").as_bytes());
            let _ = (&socket).write_all(&message);
            ExitCode::FAILURE
        }
    }
}

/// Waits for init's answer.
pub(super) fn receive_namespaces(init: &UnixStream) -> Result<Namespaces> {
    let mut answer = [0; 4096];
    let (len, fds) = fds::recv_with_fds(init, &mut answer).context("waiting for init")?;
    match answer[..len].split_first() {
        Some((&READY, _)) => Namespaces::from_fds(fds),
        Some((_, reason)) => bail!("{}", String::from_utf8_lossy(reason)),
        None => bail!("init ended at once; is it a pmz binary?"),
    }
}

/// What the process that the playground has started does: it stands in the machine's namespaces but for
/// the pid namespace, which begins with its child, and waits for that one.
fn outer(socket: &UnixStream) -> Result<ExitCode> {
    // Ctrl-C in the playground's terminal is the playground's, which then ends its machines in order.
    setsid().context("setsid")?;
    let spec = config::receive(socket).context("reading what the machine is to be")?;
    // This /proc can still say what is mounted; the machine's own can't before it is mounted.
    let leftovers = mounts::namespaces_kept_by_mounts()?;
    let mut kinds = CloneFlags::empty();
    for (_, kind) in KINDS {
        kinds |= kind;
    }
    unshare(kinds).context("unshare")?;
    // SAFETY: the process has one thread, so the child may do what it likes.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Child => {
            inner(socket, &spec, &leftovers)?;
            Ok(ExitCode::SUCCESS)
        }
        ForkResult::Parent { child } => {
            // The descriptors of `socket` and stdin stay open until this process ends: end-of-file at
            // the other end means that both have gone.
            match waitpid(child, None).context("waiting for init")? {
                WaitStatus::Exited(_, 0) => Ok(ExitCode::SUCCESS),
                _ => Ok(ExitCode::FAILURE),
            }
        }
    }
}

/// What pid 1 of the machine does.
fn inner(socket: &UnixStream, spec: &MachineSpec, leftovers: &[std::path::PathBuf]) -> Result<()> {
    // SAFETY: ignoring a signal installs no handler. It makes the kernel reap orphans by itself.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.context("ignoring SIGCHLD")?;
    sethostname(&spec.hostname).context("sethostname")?;
    mounts::set_up(spec, leftovers)?;
    for (name, value) in &spec.sysctls {
        ensure!(!name.contains(".."), "sysctl {name}");
        let path = format!("/proc/sys/{name}");
        std::fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))?;
    }
    let mut namespaces = Vec::<OwnedFd>::new();
    for (name, _) in KINDS {
        let path = format!("/proc/self/ns/{name}");
        namespaces.push(File::open(&path).with_context(|| path.clone())?.into());
    }
    let borrowed: Vec<_> = namespaces.iter().map(|fd| fd.as_fd()).collect();
    fds::send_with_fds(socket, &[READY], &borrowed).context("handing the namespaces over")?;
    drop(namespaces);
    // Nothing more will come: this ends when the playground ends, or says so.
    let mut end = socket;
    while end.read(&mut [0]).is_ok_and(|n| n > 0) {}
    Ok(())
}
