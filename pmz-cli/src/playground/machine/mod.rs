//! A machine of the playground: a set of namespaces with an init process of its own.
//!
//! Nothing names it: no file in /run/netns, no entry anywhere. Its init holds the namespaces, and holds
//! one end of a socket whose other end is in the playground's process only. When that process ends, in
//! whatever way, init reads end-of-file and exits; it is pid 1 of its pid namespace, so the kernel kills
//! what else runs there, and the namespaces with their interfaces, routes and mounts go.

mod config;
mod enter;
mod fds;
mod init;
mod limits;
mod mounts;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};

pub use config::{MachineFile, MachineSpec};
pub use enter::{ENTER_COMMAND, enter_main};
pub(crate) use fds::{recv_with_fds, send_with_fds};
pub use init::{INIT_COMMAND, init_main};
pub(crate) use limits::raise_open_files;

use super::netns::{NetNs, on_a_thread};

/// How long init may take to set a machine up, or to end.
const INIT_TIMEOUT: Duration = Duration::from_secs(20);

/// The kinds of namespaces that a machine has of its own, in the order in which they can be entered:
/// the mount namespace last, since /proc changes with it.
const KINDS: [(&str, CloneFlags); 5] = [
    ("pid", CloneFlags::CLONE_NEWPID),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// The namespaces of a machine, one descriptor for each of [`KINDS`].
#[derive(Debug)]
pub(crate) struct Namespaces([OwnedFd; KINDS.len()]);

impl Namespaces {
    /// Takes descriptors in the order of [`KINDS`].
    pub(crate) fn from_fds(fds: Vec<OwnedFd>) -> Result<Self> {
        match <[OwnedFd; KINDS.len()]>::try_from(fds) {
            Ok(fds) => Ok(Self(fds)),
            Err(fds) => bail!("got {} namespaces instead of {}", fds.len(), KINDS.len()),
        }
    }

    /// The descriptors in the order of [`KINDS`].
    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; KINDS.len()] {
        std::array::from_fn(|i| self.0[i].as_fd())
    }

    fn net(&self) -> BorrowedFd<'_> {
        self.0[3].as_fd()
    }

    fn enter(&self, except: CloneFlags) -> io::Result<()> {
        for (fd, (_, kind)) in self.0.iter().zip(KINDS) {
            if !except.contains(kind) {
                setns(fd, kind)?;
            }
        }
        Ok(())
    }
}

/// A running machine. Dropping it ends everything in it.
#[derive(Debug)]
pub struct Machine {
    name: String,
    program: PathBuf,
    namespaces: Arc<Namespaces>,
    net: NetNs,
    lifetime: UnixStream,
    init: Child,
    ended: bool,
}

impl Machine {
    /// Makes a machine. `program` is the pmz binary, whose hidden commands are its init and the way into
    /// it. Needs root; blocks for some ten milliseconds.
    pub fn start(program: &Path, spec: &MachineSpec) -> Result<Self> {
        let name = &spec.hostname;
        Self::try_start(program, spec).with_context(|| format!("machine {name}"))
    }

    fn try_start(program: &Path, spec: &MachineSpec) -> Result<Self> {
        let (lifetime, theirs) = UnixStream::pair()?;
        lifetime.set_read_timeout(Some(INIT_TIMEOUT))?;
        lifetime.set_write_timeout(Some(INIT_TIMEOUT))?;
        let mut init = Command::new(program)
            .arg(INIT_COMMAND)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .current_dir("/")
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let namespaces = config::send(&lifetime, spec)
            .and_then(|()| init::receive_namespaces(&lifetime))
            .inspect_err(|_| {
                // Without this process's end of the socket init exits by itself; killing it only saves
                // the wait where it hangs.
                let _ = init.kill();
                let _ = init.wait();
            })?;
        let net = NetNs::from_fd(namespaces.net().try_clone_to_owned()?)?;
        Ok(Self {
            name: spec.hostname.clone(),
            program: program.to_owned(),
            namespaces: Arc::new(namespaces),
            net,
            lifetime,
            init,
            ended: false,
        })
    }

    /// Its hostname.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn netns(&self) -> &NetNs {
        &self.net
    }

    pub(crate) fn namespaces(&self) -> &Arc<Namespaces> {
        &self.namespaces
    }

    /// A command that will run inside, in all of its namespaces. Arguments, environment, working
    /// directory and standard streams are set as for any other command; the program is looked up by the
    /// machine's own file system.
    ///
    /// The process that this spawns waits for the one inside, passes signals on to it (those that a
    /// terminal sends reach it anyway) and ends as it ends, by exit code or by signal. If it is killed,
    /// so is the one inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command_in(&self.program, &self.namespaces, program.as_ref())
    }

    /// [`Self::command`] for pmz itself.
    pub fn pmz(&self) -> Command {
        self.command(&self.program)
    }

    /// Runs `f` in its network namespace, on a thread made for it: for making sockets.
    ///
    /// # Errors
    /// As for [`NetNs::run`].
    pub fn in_netns<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.net.run(f)
    }

    /// Runs `f` in all of its namespaces but the pid namespace, on a thread made for it: files are the
    /// machine's, too.
    ///
    /// # Errors
    /// If a namespace can't be entered or the thread can't be made.
    pub fn run_in<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(
            || {
                // A mount namespace can be entered only by a thread that shares its root and working
                // directory with no other.
                unshare(CloneFlags::CLONE_FS)?;
                self.namespaces.enter(CloneFlags::CLONE_NEWPID)
            },
            f,
        )
    }

    /// Writes a file of the machine, in place if it is there: only below /run and for the files of /etc
    /// that are its own is that a private one.
    ///
    /// # Errors
    /// As for [`Self::run_in`], and what writing gives.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let path = path.as_ref();
        self.run_in(|| {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::write(path, bytes)
        })?
    }

    /// Tells init to end, without waiting: see [`Self::wait_ended`].
    pub(crate) fn begin_end(&self) {
        let _ = self.lifetime.shutdown(Shutdown::Write);
    }

    /// Waits until nothing runs in the machine any more.
    pub(crate) fn wait_ended(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.begin_end();
        // The last process that holds the other end has gone when this gives end-of-file.
        match self.lifetime.read(&mut [0]) {
            Ok(0) => {}
            // Whoever held the other end went without reading what was written to it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Ok(_) | Err(_) => {
                tracing::warn!(machine = %self.name, "init does not end; killing it");
                let _ = self.init.kill();
            }
        }
        let _ = self.init.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.wait_ended();
    }
}

/// A command that runs `inside` in the namespaces.
pub(crate) fn command_in(program: &Path, namespaces: &Arc<Namespaces>, inside: &OsStr) -> Command {
    let namespaces = Arc::clone(namespaces);
    let numbers: Vec<String> = namespaces
        .fds()
        .iter()
        .map(|fd| fd.as_raw_fd().to_string())
        .collect();
    let mut command = Command::new(program);
    command
        .arg(ENTER_COMMAND)
        .arg(numbers.join(","))
        .arg(inside);
    let open_files = limits::open_files_before();
    // SAFETY: between fork and exec this only calls fcntl and setrlimit, which are async-signal-safe; it
    // allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            for fd in namespaces.fds() {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            if let Some((soft, hard)) = open_files {
                setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            }
            Ok(())
        });
    }
    command
}
