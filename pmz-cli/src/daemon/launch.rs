//! Starting the two processes of pmz: helper and daemon.
//!
//! As root, both are started here, joined by a socket pair, and the daemon becomes the user behind sudo. As
//! another user, sudo starts the helper, which connects to a socket that only this user can open; each side
//! checks who the other one is.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::geteuid;

use super::options::{RunAs, UpOptions};
use crate::failure::{ExitCode, Failure};
use crate::helper::launch::by_sudo;
use crate::helper::{Channel, Refusal};

/// This program, also when its file has been replaced since.
const SELF: &str = "/proc/self/exe";

/// What was started.
#[derive(Debug)]
pub struct Started {
    /// A control connection to the daemon.
    pub control: UnixStream,
    /// The daemon; the starter waits for it only in the foreground.
    pub daemon: Child,
}

/// Starts helper and daemon. May ask for sudo's password on the terminal.
///
/// # Errors
/// No TUN driver, no way to become root, or no processes left.
pub fn start(mut options: UpOptions) -> Result<Started, Failure> {
    // Nobody should type a password for nothing.
    if !Path::new("/dev/net/tun").exists() {
        return Err(Refusal::NoTun.into());
    }
    if geteuid().is_root() {
        options.run_as = caller();
        let owner = options.run_as.map_or(0, |user| user.uid);
        let (ours, theirs) = Channel::pair().map_err(|e| not_started(&e))?;
        let fd = theirs.as_raw_fd();
        let args = [
            "helper",
            "--fd",
            &fd.to_string(),
            "--owner",
            &owner.to_string(),
        ]
        .map(str::to_owned);
        spawn(&args, &[fd], options.foreground).map_err(|e| not_started(&e))?;
        drop(theirs);
        start_daemon(&options, ours)
    } else {
        let helper = by_sudo()?;
        start_daemon(&options, helper)
    }
}

fn start_daemon(options: &UpOptions, helper: OwnedFd) -> Result<Started, Failure> {
    let (control, theirs) = UnixStream::pair().map_err(|e| not_started(&e))?;
    let options_json = serde_json::to_string(options).map_err(|e| not_started(&e.into()))?;
    let fds = [helper.as_raw_fd(), theirs.as_raw_fd()];
    let args = [
        "daemon".to_owned(),
        format!("--helper-fd={}", fds[0]),
        format!("--control-fd={}", fds[1]),
        format!("--options={options_json}"),
    ];
    let daemon = spawn(&args, &fds, options.foreground).map_err(|e| not_started(&e))?;
    Ok(Started { control, daemon })
}

/// Starts this program with descriptors that it inherits under their numbers; a session of its own keeps
/// the terminal's signals away.
fn spawn(args: &[String], inherit: &[RawFd], foreground: bool) -> io::Result<Child> {
    let mut command = Command::new(SELF);
    command
        .arg0("pmz")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.stderr(if foreground {
        Stdio::inherit()
    } else {
        Stdio::null()
    });
    let inherit = inherit.to_vec();
    // SAFETY: fcntl and setsid are async-signal-safe, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            for fd in &inherit {
                let fd = std::os::fd::BorrowedFd::borrow_raw(*fd);
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
    command.spawn()
}

fn not_started(error: &io::Error) -> Failure {
    Failure::new(
        ExitCode::General,
        format!("pmz can't start its processes: {error}"),
        "The machine may be out of memory, processes or descriptors",
    )
}

/// Who called sudo, where somebody did and this is root.
pub(crate) fn caller() -> Option<RunAs> {
    let named = behind_sudo(|name| std::env::var(name).ok());
    named.filter(|_| geteuid().is_root())
}

/// Who called sudo, where somebody did.
fn behind_sudo(variable: impl Fn(&str) -> Option<String>) -> Option<RunAs> {
    let number = |name| variable(name)?.parse::<u32>().ok();
    let (uid, gid) = (number("SUDO_UID")?, number("SUDO_GID")?);
    (uid != 0).then_some(RunAs { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemon_becomes_whoever_called_sudo() {
        let env = |uid: &'static str, gid: &'static str| {
            behind_sudo(move |name| match name {
                "SUDO_UID" => Some(uid.to_owned()),
                "SUDO_GID" => Some(gid.to_owned()),
                _ => None,
            })
        };
        assert_eq!(
            env("1000", "1001"),
            Some(RunAs {
                uid: 1000,
                gid: 1001
            })
        );
        assert_eq!(env("0", "0"), None);
        assert_eq!(env("-1", "1000"), None);
        assert_eq!(behind_sudo(|_| None), None);
    }
}
