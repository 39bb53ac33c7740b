//! A network namespace as a value: an identity, and a way to do something inside.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};

/// A network namespace. It lives at least as long as this value, whoever else leaves it. Clones are the
/// same namespace.
#[derive(Clone)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
    id: NetNsId,
}

/// What tells one namespace from another (`ioctl_ns(2)`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetNsId {
    device: u64,
    inode: u64,
}

impl NetNs {
    /// The one that the calling thread is in.
    pub fn current() -> io::Result<Self> {
        Self::from_fd(File::open("/proc/thread-self/ns/net")?.into())
    }

    /// The one that a descriptor (of `/proc/*/ns/net`) stands for.
    ///
    /// # Errors
    /// Only if the descriptor can't be looked at; that it is something else shows in [`Self::run`].
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let metadata = file.metadata()?;
        let id = NetNsId {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        Ok(Self {
            fd: Arc::new(file.into()),
            id,
        })
    }

    /// What tells it from others.
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// Runs `f` inside, on a thread made for it: sockets that `f` opens belong to this namespace for
    /// good, whichever thread uses them later.
    ///
    /// Where the calling thread is in a tokio runtime, `f` is too, so that it may make tokio's sockets.
    /// The calling thread blocks meanwhile, so `f` should be short.
    ///
    /// # Errors
    /// If the namespace can't be entered (that needs CAP_SYS_ADMIN) or the thread can't be made.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(
            || setns(self.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from),
            f,
        )
    }
}

/// Runs `f` on a thread made for it, once `enter` has prepared that thread.
pub(crate) fn on_a_thread<T: Send>(
    enter: impl FnOnce() -> io::Result<()> + Send,
    f: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    let runtime = tokio::runtime::Handle::try_current().ok();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, move || {
                enter()?;
                let _entered = runtime.as_ref().map(|runtime| runtime.enter());
                Ok(f())
            })?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PartialEq for NetNs {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for NetNs {}

impl fmt::Debug for NetNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetNs({:?})", self.id)
    }
}

impl fmt::Debug for NetNsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}
