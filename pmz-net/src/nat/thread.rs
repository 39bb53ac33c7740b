//! The NAT's thread: how it is made, started and ended.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use mio::Poll;

use super::alarm::Alarm;
use super::queue::Queue;
use super::seat::Seat;
use super::worker::{ALARM, WAKE, Worker};
use super::{Egress, Inbox, NatConfig, NatCounters, Waker};

/// A NAT whose thread has not started yet: its handles exist, so that the [`Egress`] can be made with them.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    poll: Poll,
    alarm: Alarm,
    seat: Arc<Seat>,
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
        let queue = Queue::new(config.inbox_frames, config.inbox_bytes, waker);
        let seat = Arc::new(Seat::new(queue));
        Ok(Self {
            config,
            poll,
            alarm,
            seat,
            counters: Arc::default(),
        })
    }

    /// Where packets go in.
    pub fn inbox(&self) -> Inbox {
        Inbox(Arc::clone(&self.seat))
    }

    /// How the engine says that a carrier has room again.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.seat))
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
            seat,
            counters,
        } = self;
        let worker = Worker::new(
            config,
            poll.registry().try_clone()?,
            alarm,
            Arc::clone(&seat.queue),
            Arc::clone(&counters),
            egress,
        );
        seat.take(worker);
        let own = Arc::clone(&seat);
        let thread = std::thread::Builder::new()
            .name("pmz-nat".into())
            .spawn(move || own.run(poll))
            .inspect_err(|_| seat.leave())?;
        Ok(RunningNat {
            seat,
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
    seat: Arc<Seat>,
    counters: Arc<NatCounters>,
    thread: Option<JoinHandle<()>>,
}

impl RunningNat {
    /// Where packets go in.
    pub fn inbox(&self) -> Inbox {
        Inbox(Arc::clone(&self.seat))
    }

    /// How the engine says that a carrier has room again.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.seat))
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
        self.seat.queue.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the NAT's thread panicked");
        }
    }
}
