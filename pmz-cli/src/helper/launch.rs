//! The helper as a process, and the way to it through sudo.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, recv, socket,
};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, geteuid, setsid};

use super::{Paths, PutBack, put_back, serve};
use crate::failure::{ExitCode, Failure};

/// From sudo's end to the helper's call: it has nothing to wait for.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Sudo itself gives up on a password after five minutes.
const PASSWORD_WITHIN: Duration = Duration::from_secs(330);

const GREETING: &[u8] = b"pmz helper";

/// What `pmz helper` is started with, by pmz alone.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct HelperHow {
    /// Inherited: the connection to the daemon
    #[arg(long, requires = "owner")]
    pub fd: Option<RawFd>,
    /// The socket of a `pmz up` that runs as the user who called sudo
    #[arg(long)]
    pub connect: Option<PathBuf>,
    /// Only put /etc/resolv.conf back after a pmz that was killed
    #[arg(long)]
    pub put_back: bool,
}

/// As [`HelperHow`], and for whom.
#[derive(Debug, clap::Args)]
pub struct HelperArgs {
    /// How the daemon is reached.
    #[command(flatten)]
    pub how: HelperHow,
    /// User id of the daemon
    #[arg(long)]
    pub owner: Option<u32>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(
        ExitCode::General,
        format!("The helper can't {what}: {error}"),
        "`pmz up` starts it; it is no command for people",
    )
}

/// Runs the helper. The process must have one thread only.
///
/// # Errors
/// When it is not root, or the other end is not who it should be.
pub fn main(args: &HelperArgs) -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Err(not_root());
    }
    let paths = Paths::default();
    if args.how.put_back {
        return put_back_now(&paths).map(drop);
    }
    let (connection, owner) = match (&args.how.connect, args.how.fd, args.owner) {
        (Some(path), _, _) => {
            // What sudo says is the only word on who called it.
            let owner = std::env::var("SUDO_UID")
                .ok()
                .and_then(|uid| uid.parse().ok())
                .unwrap_or(0);
            let connection = call(path, owner).map_err(|e| failed("reach `pmz up`", e))?;
            // sudo waits for this process: the one that goes on is another.
            leave_sudo().map_err(|e| failed("leave the terminal", e))?;
            greet(&connection).map_err(|e| failed("reach `pmz up`", e))?;
            (connection, owner)
        }
        (None, Some(fd), Some(owner)) => {
            // SAFETY: `pmz up` left the descriptor open for this process alone, and says so by the
            // argument. Where somebody else started it, using it fails.
            (unsafe { OwnedFd::from_raw_fd(fd) }, owner)
        }
        _ => return Err(failed("start", "nobody to serve")),
    };
    std::env::set_current_dir("/").map_err(|e| failed("start", e))?;
    runtime()?
        .block_on(serve(connection, owner, paths))
        .map_err(|e| failed("serve", e))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|e| failed("start", e))
}

/// Puts resolv.conf back, where a pmz that was killed could not. As a user, through sudo.
///
/// # Errors
/// When there is something to put back and no way to.
pub fn put_back_now(paths: &Paths) -> Result<PutBack, Failure> {
    if !paths.journal().exists() {
        return Ok(PutBack::Nothing);
    }
    if geteuid().is_root() {
        return Ok(runtime()?.block_on(put_back(paths))?);
    }
    let status = sudo()?
        .args(["helper", "--put-back"])
        .status()
        .map_err(|e| no_sudo(&e))?;
    if status.success() {
        Ok(PutBack::Done)
    } else {
        Err(refused_by_sudo())
    }
}

/// Calls back the `pmz up` that had this started, and makes sure that it is `owner`'s.
fn call(path: &Path, owner: u32) -> io::Result<OwnedFd> {
    let connection = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    connect(connection.as_raw_fd(), &UnixAddr::new(path)?)?;
    expect_peer(&connection, owner)?;
    Ok(connection)
}

fn expect_peer(connection: &OwnedFd, uid: u32) -> io::Result<()> {
    let peer = getsockopt(connection, PeerCredentials)?;
    if peer.uid() == uid {
        return Ok(());
    }
    let message = format!("the other end is user {}'s, not {uid}'s", peer.uid());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

/// Says that the helper is content with who the other end is, and serves it from now on.
fn greet(connection: &OwnedFd) -> io::Result<()> {
    nix::unistd::write(connection, GREETING)?;
    Ok(())
}

/// Goes on as a process of its own, without the terminal. What called sudo sees it end.
fn leave_sudo() -> io::Result<()> {
    let (ready, child_ready) = nix::unistd::pipe()?;
    // SAFETY: the process has one thread, so the child is as whole as its parent.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(child_ready);
            // sudo may end the terminal's session with its command: only once the child has left it.
            let _ = nix::unistd::read(&ready, &mut [0]);
            std::process::exit(0);
        }
        ForkResult::Child => {
            setsid()?;
            let null = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open("/dev/null")?;
            dup2_stdin(&null)?;
            dup2_stdout(&null)?;
            dup2_stderr(&null)?;
            Ok(())
        }
    }
}

/// Has sudo start the helper, and waits for its call.
///
/// # Errors
/// When there is no sudo, or it refuses.
pub fn by_sudo() -> Result<OwnedFd, Failure> {
    let meeting = Meeting::open().map_err(|e| failed("be waited for", e))?;
    let mut sudo = sudo()?;
    sudo.arg("helper").arg("--connect").arg(&meeting.path);
    let mut child = sudo.spawn().map_err(|e| no_sudo(&e))?;
    let result = meeting.wait(&mut child);
    if result.is_err() {
        // It may still ask for a password that nobody needs any more. Where root's process can't be
        // ended from here, it finds nobody to call.
        let _ = child.kill();
    }
    let _ = child.try_wait();
    result
}

fn sudo() -> Result<Command, Failure> {
    let program = std::env::current_exe().map_err(|e| failed("be found", e))?;
    let mut command = Command::new("sudo");
    command
        .arg("-p")
        .arg("[sudo] password for %p (pmz opens a TUN device): ")
        .arg("--")
        .arg(program);
    command.stdout(Stdio::null());
    Ok(command)
}

fn no_sudo(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::NotFound {
        return not_root();
    }
    Failure::new(
        ExitCode::Permission,
        format!("sudo can't be run: {error}"),
        "Run `pmz up` as root",
    )
}

/// What a user without root and without sudo is told.
pub fn not_root() -> Failure {
    Failure::new(
        ExitCode::Permission,
        "pmz needs root for the tunnel's network device, and there is no sudo on this machine",
        "Run `pmz up` as root, or install sudo and allow yourself to use it; only a small helper runs as \
         root, all else as you",
    )
}

fn refused_by_sudo() -> Failure {
    Failure::new(
        ExitCode::Permission,
        "sudo did not start pmz's helper, which opens the tunnel's network device",
        "`sudo -v` shows whether you may use sudo; without it, run `pmz up` as root",
    )
}

/// Where the helper calls: a socket that only this user and root can open, gone as soon as it was used.
struct Meeting {
    path: PathBuf,
    folder: Option<PathBuf>,
    listener: OwnedFd,
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Meeting {
    fn open() -> io::Result<Self> {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let name = format!("pmz-{}-{:016x}", std::process::id(), rand::random::<u64>());
        let (path, folder) = match runtime.filter(|dir| dir.is_absolute() && dir.is_dir()) {
            Some(dir) => (dir.join(name), None),
            None => {
                let folder = std::env::temp_dir().join(name);
                DirBuilder::new().mode(0o700).create(&folder)?;
                (folder.join("helper"), Some(folder))
            }
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new(&path)?)?;
        let meeting = Self {
            path,
            folder,
            listener,
        };
        fs::set_permissions(&meeting.path, Permissions::from_mode(0o600))?;
        listen(&meeting.listener, Backlog::new(1)?)?;
        Ok(meeting)
    }

    fn wait(&self, sudo: &mut Child) -> Result<OwnedFd, Failure> {
        let mut deadline = Instant::now() + PASSWORD_WITHIN;
        let mut ended = false;
        let mut caller: Option<OwnedFd> = None;
        loop {
            caller = match caller.take() {
                Some(caller) => match greeted(&caller) {
                    Some(true) => return Ok(caller),
                    Some(false) => None,
                    None => Some(caller),
                },
                None => self.accept().map_err(|e| failed("be heard", e))?,
            };
            if !ended && let Some(status) = sudo.try_wait().map_err(|e| failed("be started", e))? {
                if !status.success() {
                    return Err(refused_by_sudo());
                }
                // It ends once the helper has called.
                ended = true;
                deadline = Instant::now() + CALL_WITHIN;
            }
            if Instant::now() >= deadline {
                return Err(refused_by_sudo());
            }
            // A child's end can't be polled for together with a socket without a handler for SIGCHLD; a
            // look at it ten times a second costs nothing while somebody types.
            let next = caller.as_ref().map_or(self.listener.as_fd(), AsFd::as_fd);
            let mut wait = [PollFd::new(next, PollFlags::POLLIN)];
            let _ = poll(&mut wait, PollTimeout::from(100u8));
        }
    }

    fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept4(&self.listener, SockFlag::SOCK_CLOEXEC) {
            Ok(connection) => Ok(expect_peer(&connection, 0).is_ok().then_some(connection)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the caller has greeted; `None` while it has said nothing.
fn greeted(caller: &OwnedFd) -> Option<bool> {
    let mut heard = [0; 64];
    match recv(caller.as_raw_fd(), &mut heard, MsgFlags::MSG_DONTWAIT) {
        Ok(len) => Some(heard.get(..len) == Some(GREETING)),
        Err(Errno::EAGAIN | Errno::EINTR) => None,
        Err(_) => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_meeting_place_is_the_users_alone_and_goes_again() {
        let meeting = Meeting::open().unwrap();
        let path = meeting.path.clone();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        drop(meeting);
        assert!(!path.exists());
    }

    #[test]
    fn a_caller_who_is_not_root_is_not_taken_for_the_helper() {
        let meeting = Meeting::open().unwrap();
        let me = geteuid().as_raw();
        let caller = call(&meeting.path, me).unwrap();
        assert_eq!(meeting.accept().unwrap().is_some(), me == 0);
        assert!(
            call(&meeting.path, me + 1).is_err(),
            "a stranger's socket was taken"
        );
        drop(caller);
    }

    #[test]
    fn a_caller_counts_once_it_has_greeted() {
        let (ours, theirs) = super::super::Channel::pair().unwrap();
        assert_eq!(greeted(&ours), None);
        greet(&theirs).unwrap();
        assert_eq!(greeted(&ours), Some(true));
        nix::unistd::write(&theirs, b"hello").unwrap();
        assert_eq!(greeted(&ours), Some(false));
        drop(theirs);
        assert_eq!(greeted(&ours), Some(false));
    }

    #[test]
    fn a_helper_that_never_calls_is_sudos_no() {
        let meeting = Meeting::open().unwrap();
        let mut sudo = Command::new("false").spawn().unwrap();
        let failure = meeting.wait(&mut sudo).unwrap_err();
        assert_eq!(failure.code, ExitCode::Permission);
        let text = failure.to_string();
        assert!(
            text.contains("sudo did not start") && text.contains("`sudo -v`"),
            "{text}"
        );
    }

    #[test]
    fn without_root_and_without_sudo_the_way_out_is_named() {
        let text = no_sudo(&io::ErrorKind::NotFound.into()).to_string();
        assert!(text.contains("there is no sudo on this machine"), "{text}");
        assert!(text.contains("Run `pmz up` as root"), "{text}");
    }
}
