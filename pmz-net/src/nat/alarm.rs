//! Wakes the thread at a time that epoll's milliseconds are too coarse for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

#[derive(Debug)]
pub(super) struct Alarm {
    timer: TimerFd,
    /// What it is set to.
    set: Option<Instant>,
}

impl Alarm {
    /// An alarm that this token tells of.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
        )?;
        registry.register(
            &mut SourceFd(&timer.as_fd().as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self { timer, set: None })
    }

    /// Rings at that time at the latest; `None`: it need not.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        let Some(at) = at else { return };
        // An alarm that rings too early is looked at and set again.
        if self.set.is_some_and(|set| set <= at) {
            return;
        }
        // Zero would turn it off.
        let wait = at
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
        // Fails for times that no timer can be set to, and none of ours is one.
        if self
            .timer
            .set(expiration, TimerSetTimeFlags::empty())
            .is_ok()
        {
            self.set = Some(at);
        }
    }

    /// It rang.
    pub(super) fn rang(&mut self) {
        self.set = None;
        // Only takes back that it is readable.
        let _ = self.timer.wait();
    }
}
