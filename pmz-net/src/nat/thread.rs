//! The NAT's thread: how it is made, started and ended, and how others do its work while it sleeps.

use std::io::{self, ErrorKind};
use std::iter;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Events, Poll};

use super::alarm::Alarm;
use super::inbox::Shared;
use super::worker::{ALARM, WAKE, Worker};
use super::{Egress, Inbox, NatConfig, NatCounters, Waker};

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Without timers the thread wakes up this often.
const IDLE: Duration = Duration::from_secs(60);
/// Whoever brings packets goes on with its own work after so many passes of the NAT's.
const HELP: usize = 2;

impl Shared {
    /// The thread: waits for the kernel's events, and works.
    fn run(&self, mut poll: Poll) {
        let _end = Ending(self);
        let mut events = Events::with_capacity(EVENTS);
        let mut timeout = Duration::ZERO;
        while !self.stopped() {
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
            self.awake();
            worker.pass(&events);
            timeout = match worker.rests() {
                true => IDLE,
                false => Duration::ZERO,
            };
        }
    }

    /// Does what the thread would be woken for, where it sleeps.
    pub(super) fn help(&self) {
        if !self.is_asleep() {
            // Whoever works looks again before it stops.
            return;
        }
        let Some(mut worker) = self.worker.try_lock() else {
            return self.wake_thread();
        };
        let Some(worker) = worker.as_mut() else {
            return;
        };
        let _end = Fault(self);
        self.awake();
        for _ in 0..HELP {
            worker.pass(iter::empty());
            if worker.rests() {
                return;
            }
        }
        self.wake_thread();
    }
}

/// The thread's end, for whatever reason.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop();
        let worker = self.0.worker.lock().take();
        if let Some(mut worker) = worker
            && !std::thread::panicking()
        {
            worker.end();
        }
    }
}

/// A panic while somebody else worked ends the thread, too: what it would go on with is in no known state.
struct Fault<'a>(&'a Shared);

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// A NAT whose thread has not started yet: its handles exist, so that the [`Egress`] can be made with them.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    poll: Poll,
    alarm: Alarm,
    shared: Arc<Shared>,
    counters: Arc<NatCounters>,
}

impl Nat {
    /// Makes the queue and the handles.
    ///
    /// # Errors
    /// When the process has no descriptors left for epoll, eventfd and timerfd.
    pub fn new(config: NatConfig) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKE)?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let shared = Arc::new(Shared::new(config.inbox_frames, config.inbox_bytes, waker));
        Ok(Self {
            config,
            poll,
            alarm,
            shared,
            counters: Arc::default(),
        })
    }

    /// Where packets go in.
    pub fn inbox(&self) -> Inbox {
        Inbox(Arc::clone(&self.shared))
    }

    /// How the engine says that a carrier has room again.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    /// What is counted.
    pub fn counters(&self) -> Arc<NatCounters> {
        Arc::clone(&self.counters)
    }

    /// Starts the thread, called `pmz-nat`.
    ///
    /// # Errors
    /// When the thread can't be made.
    pub fn start(self, egress: Box<dyn Egress>) -> io::Result<RunningNat> {
        let Self {
            config,
            poll,
            alarm,
            shared,
            counters,
        } = self;
        let worker = Worker::new(
            config,
            poll.registry().try_clone()?,
            alarm,
            Arc::clone(&shared),
            Arc::clone(&counters),
            egress,
        );
        *shared.worker.lock() = Some(Box::new(worker));
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("pmz-nat".into())
            .spawn(move || own.run(poll))
            // The worker knows what it is in.
            .inspect_err(|_| drop(shared.worker.lock().take()))?;
        Ok(RunningNat {
            shared,
            counters,
            thread: Some(thread),
        })
    }

    /// [`Nat::new`] and [`Nat::start`] in one, for an egress that needs no [`Waker`] to be made.
    ///
    /// # Errors
    /// As those two.
    pub fn spawn(config: NatConfig, egress: Box<dyn Egress>) -> io::Result<RunningNat> {
        Self::new(config)?.start(egress)
    }
}

/// A running NAT. Dropping it ends the thread, resets its connections and waits until that is done.
#[derive(Debug)]
pub struct RunningNat {
    shared: Arc<Shared>,
    counters: Arc<NatCounters>,
    thread: Option<JoinHandle<()>>,
}

impl RunningNat {
    /// Where packets go in.
    pub fn inbox(&self) -> Inbox {
        Inbox(Arc::clone(&self.shared))
    }

    /// How the engine says that a carrier has room again.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.shared))
    }

    /// What is counted.
    pub fn counters(&self) -> Arc<NatCounters> {
        Arc::clone(&self.counters)
    }

    /// Whether the thread has ended: only after [`RunningNat::stop`], or a fault that it logged.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread and waits for it, as dropping does.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for RunningNat {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the NAT's thread panicked");
        }
    }
}
