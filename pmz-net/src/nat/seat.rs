//! Who does the NAT's work: its thread, or whoever brings packets while the thread sleeps.

use std::fmt;
use std::io::ErrorKind;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Poll};
use parking_lot::Mutex;

use super::queue::Queue;
use super::worker::Worker;

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Without timers the thread wakes up this often.
const IDLE: Duration = Duration::from_secs(60);
/// Whoever brings packets goes on with its own work after so many passes of the NAT's.
const HELP: usize = 2;

/// The one place of work: whoever has it, the thread or another, sees to what waits in the queue.
pub(super) struct Seat {
    pub(super) queue: Arc<Queue>,
    /// There while the thread runs.
    worker: Mutex<Option<Box<Worker>>>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Seat {
    /// Nobody's yet.
    pub(super) fn new(queue: Queue) -> Self {
        Self {
            queue: Arc::new(queue),
            worker: Mutex::new(None),
        }
    }

    /// Is taken.
    pub(super) fn take(&self, worker: Worker) {
        *self.worker.lock() = Some(Box::new(worker));
    }

    /// Is free again, with nothing undone: what the worker knows knows this.
    pub(super) fn leave(&self) {
        drop(self.worker.lock().take());
    }

    /// The thread: waits for the kernel's events, and works.
    pub(super) fn run(&self, mut poll: Poll) {
        let _end = Ending(self);
        let mut events = Events::with_capacity(EVENTS);
        let mut timeout = Duration::ZERO;
        while !self.queue.stopped() {
            match poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // epoll_wait fails only by misuse; without its events the NAT is of no use.
                Err(e) => {
                    tracing::error!("the NAT's wait for events failed: {e}");
                    return;
                }
            }
            let mut worker = self.worker.lock();
            let Some(worker) = worker.as_mut() else {
                return;
            };
            self.queue.awake();
            worker.pass(&events);
            timeout = match worker.rests() {
                true => IDLE,
                false => Duration::ZERO,
            };
        }
    }

    /// Does what the thread would be woken for, where it sleeps.
    pub(super) fn help(&self) {
        if !self.queue.is_asleep() {
            // Whoever works looks again before it stops.
            return;
        }
        let Some(mut worker) = self.worker.try_lock() else {
            return self.queue.wake_thread();
        };
        let Some(worker) = worker.as_mut() else {
            return;
        };
        let _end = Fault(self);
        self.queue.awake();
        for _ in 0..HELP {
            worker.pass(iter::empty());
            if worker.rests() {
                return;
            }
        }
        self.queue.wake_thread();
    }
}

/// The thread's end, for whatever reason.
struct Ending<'a>(&'a Seat);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.queue.stop();
        let worker = self.0.worker.lock().take();
        if let Some(mut worker) = worker
            && !std::thread::panicking()
        {
            worker.end();
        }
    }
}

/// A panic while somebody else worked ends the thread, too: what it would go on with is in no known state.
struct Fault<'a>(&'a Seat);

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue.stop();
        }
    }
}
