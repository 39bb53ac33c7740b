//! Network namespaces of a test's own.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::Handle;

/// A network namespace. It goes with this value and what was opened in it.
pub(crate) struct Namespace(pub(super) OwnedFd);

impl Namespace {
    pub(crate) fn new() -> Self {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                Self(File::open("/proc/thread-self/ns/net").unwrap().into())
            });
            made.join().unwrap()
        })
    }

    /// Runs `f` inside.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs `f` inside, on a tokio runtime.
    pub(crate) fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        f: impl FnOnce() -> F + Send,
    ) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async { f().await })
        })
    }

    /// Runs `f` inside, with rtnetlink.
    pub(crate) fn with_links<F: Future<Output = ()>>(&self, f: impl FnOnce(Handle) -> F + Send) {
        self.block_on(|| async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            let connection = tokio::spawn(connection);
            f(handle).await;
            connection.abort();
        });
    }
}
