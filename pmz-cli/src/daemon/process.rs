//! The daemon as a process: becomes the user, sets its log up, and runs.

use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User, geteuid, initgroups, setresgid, setresuid};

use super::domains::Domains;
use super::log::{LogFile, filter};
use super::options::{RunAs, UpOptions};
use super::run::{Connector, run};
use crate::domains::Store;
use crate::environment::Environment;
use crate::failure::{ExitCode, Failure};
use crate::helper::HelperClient;
use crate::show::Style;

/// What `pmz daemon` is started with, by `pmz up` alone.
#[derive(Debug, clap::Args)]
pub struct DaemonArgs {
    /// Inherited: the connection to the helper
    #[arg(long)]
    pub helper_fd: RawFd,
    /// Inherited: the control connection of `pmz up`
    #[arg(long)]
    pub control_fd: RawFd,
    /// Options as JSON
    #[arg(long)]
    pub options: String,
}

/// Runs the daemon; gives its exit code. The process must have one thread only.
///
/// # Errors
/// When it does not get as far as [`run`], whose failures `pmz up` hears by its control connection.
pub fn main<C: Connector>(
    args: &DaemonArgs,
    connector: impl FnOnce(&UpOptions) -> C,
) -> Result<u8, Failure> {
    let internal = |error: &dyn std::fmt::Display| {
        Failure::new(
            ExitCode::General,
            format!("The daemon can't start: {error}"),
            "`pmz up` starts it; it is no command for people",
        )
    };
    let options: UpOptions = serde_json::from_str(&args.options).map_err(|e| internal(&e))?;
    // SAFETY: `pmz up` left these two descriptors open for this process alone, and says so by the
    // arguments; nothing else in it knows them. Where somebody else started it, using them fails.
    let (helper, control) = unsafe {
        (
            OwnedFd::from_raw_fd(args.helper_fd),
            UnixStream::from_raw_fd(args.control_fd),
        )
    };
    for fd in [args.helper_fd, args.control_fd] {
        close_on_exec(fd).map_err(|e| internal(&e))?;
    }
    if let Some(user) = options.run_as.filter(|_| geteuid().is_root()) {
        // sudo's is root's to read; what is in it is used by the user alone, when no right of root's is left.
        let environment = Environment::behind_sudo();
        become_user(user, environment.as_ref()).map_err(|e| internal(&e))?;
    }
    if !options.foreground {
        std::env::set_current_dir("/").map_err(|e| internal(&e))?;
    }
    start_log(&options);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| internal(&e))?;
    let connector = connector(&options);
    let ended: Result<_, Failure> = runtime.block_on(async {
        let helper = HelperClient::new(helper).map_err(|e| internal(&e))?;
        let domains = Domains::new(Store::of_user());
        Ok(run(helper, options, connector, control, domains).await)
    });
    // Whatever still runs there has nobody to work for.
    runtime.shutdown_background();
    Ok(ended?.map_or_else(|failure| failure.code as u8, |()| 0))
}

fn close_on_exec(fd: RawFd) -> nix::Result<()> {
    // SAFETY: borrowed for this call only.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(fd, flags).map(drop)
}

/// Gives every right of root's up for good, and takes the user's environment. The process must have one thread only.
pub(crate) fn become_user(user: RunAs, environment: Option<&Environment>) -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let entry = User::from_uid(uid)?
        .ok_or_else(|| anyhow::anyhow!("there is no user with the id {uid}"))?;
    initgroups(&CString::new(entry.name.as_bytes())?, gid)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    nix::sys::prctl::set_no_new_privs()?;
    anyhow::ensure!(
        setresuid(Uid::from_raw(0), uid, uid).is_err() || uid.is_root(),
        "still root"
    );
    // SAFETY: the process has one thread yet.
    unsafe {
        for (name, value) in environment.iter().flat_map(|e| e.variables()) {
            std::env::set_var(name, value);
        }
        std::env::set_var("HOME", &entry.dir);
        std::env::set_var("USER", &entry.name);
        std::env::set_var("LOGNAME", &entry.name);
        for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
            std::env::remove_var(name);
        }
        if environment.is_none() {
            // Root's.
            std::env::remove_var("XDG_RUNTIME_DIR");
        }
    }
    Ok(())
}

/// Where a daemon that is not in the foreground logs: root's beside its socket, a user's where the XDG base
/// directories have state.
pub fn log_path(uid: Uid) -> Option<PathBuf> {
    if uid.is_root() {
        return Some(crate::helper::Paths::default().runtime.join("daemon.log"));
    }
    let home = User::from_uid(uid).ok().flatten().map(|user| user.dir);
    let named = std::env::var_os("XDG_STATE_HOME")
        .filter(|_| uid == geteuid())
        .map(PathBuf::from);
    let state = named.filter(|path| path.is_absolute());
    Some(
        state
            .or_else(|| Some(home?.join(".local/state")))?
            .join("pmz/daemon.log"),
    )
}

/// A daemon without a log works, too.
fn start_log(options: &UpOptions) {
    let filter = filter(options.verbose, "info");
    if options.foreground {
        let stderr = std::io::stderr();
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(Style::of(&stderr).has_colour())
            .with_writer(std::io::stderr);
        let _ = log.try_init();
        return;
    }
    let Some(file) = log_path(geteuid()).and_then(|path| LogFile::create(&path).ok()) else {
        return;
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(file);
    let _ = log.try_init();
    // Its stderr leads nowhere.
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}
