//! Waiting for a descriptor, and being told to stop while waiting.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Tells threads that wait in [`Stop::wait_readable`] to end. Clones are the same one.
#[derive(Clone)]
pub struct Stop(Arc<Inner>);

struct Inner {
    event: EventFd,
    stopped: AtomicBool,
}

impl Stop {
    /// One that nobody has pulled.
    ///
    /// # Errors
    /// Where the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(Arc::new(Inner {
            event,
            stopped: AtomicBool::new(false),
        })))
    }

    /// Ends all waiting, now and later.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        // Only a counter that is full can't be written, and then the waiters wake all the same.
        let _ = self.0.event.write(1);
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Waits until `fd` can be read. False where it is time to end.
    ///
    /// # Errors
    /// As poll(2); also where the descriptor reports an error or was hung up.
    pub fn wait_readable(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        loop {
            if self.is_stopped() {
                return Ok(false);
            }
            let mut fds = [
                PollFd::new(fd, PollFlags::POLLIN),
                PollFd::new(self.0.event.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            if events.contains(PollFlags::POLLIN) {
                return Ok(true);
            }
            if events.intersects(PollFlags::POLLHUP | PollFlags::POLLNVAL) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // POLLERR alone: a pending socket error, which the next read reports and clears.
            if events.contains(PollFlags::POLLERR) {
                return Ok(true);
            }
        }
    }
}
