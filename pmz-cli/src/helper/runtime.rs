//! The runtime directory: one pmz per machine, its control socket, its journal.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{Mode, umask};
use tokio::sync::oneshot;

use super::message::Refusal;

/// How long a pmz that is just ending may hold the lock.
const LOCK_WITHIN: Duration = Duration::from_secs(3);

/// Where the helper's files are. Never taken from the wire.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `/run/pmz`: lock, control socket, journal.
    pub runtime: PathBuf,
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            runtime: PathBuf::from("/run/pmz"),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

impl Paths {
    /// The daemon's control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("pmz.sock")
    }

    /// The old content of resolv.conf, while it is changed.
    pub fn journal(&self) -> PathBuf {
        self.runtime.join("resolv.journal")
    }

    fn lock(&self) -> PathBuf {
        self.runtime.join("lock")
    }
}

/// The runtime directory, held: nobody else changes the machine meanwhile. The lock goes with the process.
#[derive(Debug)]
pub(super) struct Runtime {
    paths: Paths,
    socket: Option<(PathBuf, u64)>,
    _lock: Flock<File>,
}

impl Runtime {
    /// Makes the directory where it is missing, and takes the lock.
    pub(super) async fn claim(paths: &Paths) -> Result<Self, Refusal> {
        let failed = |error: io::Error| Refusal::Failed {
            message: format!("prepare {}: {error}", paths.runtime.display()),
        };
        make_directory(&paths.runtime).map_err(failed)?;
        let path = paths.lock();
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        let lock = lock(file).await.ok_or_else(|| Refusal::Running {
            path: path.display().to_string(),
        })?;
        Ok(Self {
            paths: paths.clone(),
            socket: None,
            _lock: lock,
        })
    }

    /// Listens on the control socket, which `owner` and root can open. A stale one is replaced: while the
    /// lock is held, nobody can be behind it.
    pub(super) fn control_socket(&mut self, owner: u32) -> io::Result<OwnedFd> {
        let path = self.paths.control_socket();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody may open it between bind and chown.
        let before = umask(Mode::from_bits_truncate(0o777));
        let listener = UnixListener::bind(&path);
        umask(before);
        let listener = listener?;
        std::os::unix::fs::lchown(&path, Some(owner), None)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&path)?.ino();
        self.socket = Some((path, inode));
        Ok(listener.into())
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let Some((path, inode)) = self.socket.take() else {
            return;
        };
        if fs::symlink_metadata(&path).is_ok_and(|found| found.ino() == inode)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::warn!(path = %path.display(), %error, "the control socket stays behind");
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    let ours = found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if !found.is_dir() || !ours {
        let message = "somebody else can write there";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    // The umask took bits away, or a daemon of root's made it first, for its log.
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

async fn lock(file: File) -> Option<Flock<File>> {
    let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => return Some(lock),
        Err((file, _)) => file,
    };
    // A thread of its own, since a blocked flock can't be called off and must not hold the runtime's end up.
    let (locked, lock) = oneshot::channel();
    std::thread::spawn(move || locked.send(Flock::lock(file, FlockArg::LockExclusive).ok()));
    tokio::time::timeout(LOCK_WITHIN, lock).await.ok()?.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &tempfile::TempDir) -> Paths {
        Paths {
            runtime: dir.path().join("pmz"),
            resolv_conf: dir.path().join("resolv.conf"),
        }
    }

    #[tokio::test]
    async fn a_second_pmz_is_told_that_one_is_running() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Runtime::claim(&paths(&dir)).await.unwrap();
        let second = Runtime::claim(&paths(&dir)).await.unwrap_err();
        assert!(matches!(second, Refusal::Running { .. }), "{second:?}");
    }

    #[tokio::test]
    async fn a_pmz_that_is_just_ending_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = Runtime::claim(&paths(&dir)).await.unwrap();
        let paths = paths(&dir);
        let second = Runtime::claim(&paths);
        tokio::pin!(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn the_control_socket_replaces_a_stale_one_and_goes_with_the_helper() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(&dir);
        let mut runtime = Runtime::claim(&paths).await.unwrap();
        fs::write(paths.control_socket(), "stale").unwrap();
        let _socket = runtime
            .control_socket(nix::unistd::getuid().as_raw())
            .unwrap();
        assert_eq!(
            fs::symlink_metadata(paths.control_socket()).unwrap().mode() & 0o777,
            0o600
        );
        drop(runtime);
        assert!(!paths.control_socket().exists());
    }

    #[tokio::test]
    async fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths(&dir);
        fs::create_dir(&paths.runtime).unwrap();
        fs::set_permissions(&paths.runtime, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            Runtime::claim(&paths).await,
            Err(Refusal::Failed { .. })
        ));
    }
}
