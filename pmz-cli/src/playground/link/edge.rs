//! The link's thread: carries packets between the TUNs and the pipes, and keeps their time.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::time::TimeSpec;

use super::Shared;
use super::pipe::Pipe;

/// Packets that are read from one TUN before the other gets its turn.
const BATCH: usize = 64;
/// Buffers that are kept for the next packets.
const MAX_SPARE: usize = 4096;

pub(super) struct Edge {
    tuns: [File; 2],
    /// From the first TUN to the second, and back.
    pipes: [Pipe; 2],
    spare: Vec<Vec<u8>>,
    mtu: usize,
    shared: Arc<Shared>,
}

impl Edge {
    pub(super) fn new(tuns: Vec<File>, mtu: u32, seed: u64, shared: Arc<Shared>) -> Result<Self> {
        let tuns = <[File; 2]>::try_from(tuns).map_err(|_| anyhow!("a link has two ends"))?;
        let spec = shared.state.lock().spec.clone();
        Ok(Self {
            tuns,
            pipes: [Pipe::new(spec.clone(), seed), Pipe::new(spec, !seed)],
            spare: Vec::new(),
            mtu: mtu as usize,
            shared,
        })
    }

    pub(super) fn run(mut self) {
        // The kernel may else wake this thread 50 µs late, to save power. Without it the link is only less
        // exact.
        let _ = prctl::set_timerslack(1);
        loop {
            let events = match self.wait() {
                Ok(events) => events,
                Err(error) => {
                    tracing::error!(%error, "the emulated link has ended");
                    return;
                }
            };
            if events.changed && !self.take_changes() {
                return;
            }
            for side in 0..2 {
                if events.readable[side] {
                    self.read(side);
                }
            }
            self.write();
            if let Some(mut state) = self.shared.state.try_lock() {
                state.counters = [self.pipes[0].counters(), self.pipes[1].counters()];
            }
        }
    }

    fn wait(&self) -> nix::Result<Events> {
        let due = self.pipes.iter().filter_map(Pipe::poll_timeout).min();
        let timeout = due.map(|due| TimeSpec::from(due.saturating_duration_since(Instant::now())));
        let changed = self.shared.changed();
        let mut fds = [
            PollFd::new(self.tuns[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(self.tuns[1].as_fd(), PollFlags::POLLIN),
            PollFd::new(changed.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let is = |i: usize, flags| {
            fds[i]
                .revents()
                .is_some_and(|events: PollFlags| events.intersects(flags))
        };
        // An interface that somebody has deleted stays so.
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        if is(0, gone) || is(1, gone) {
            return Err(Errno::ENODEV);
        }
        Ok(Events {
            readable: [is(0, PollFlags::POLLIN), is(1, PollFlags::POLLIN)],
            changed: is(2, PollFlags::POLLIN),
        })
    }

    /// Whether to go on.
    fn take_changes(&mut self) -> bool {
        let _ = self.shared.changed.read();
        let state = self.shared.state.lock();
        for pipe in &mut self.pipes {
            pipe.set_spec(state.spec.clone());
        }
        !state.stopped
    }

    fn read(&mut self, side: usize) {
        for _ in 0..BATCH {
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.resize(self.mtu, 0);
            // No packet left, or an interface that is down.
            let Ok(len) = (&self.tuns[side]).read(&mut packet) else {
                self.spare.push(packet);
                return;
            };
            packet.truncate(len);
            let back = self.pipes[side].handle_packet(Instant::now(), packet);
            self.spare.extend(back);
        }
    }

    fn write(&mut self) {
        for side in 0..2 {
            let now = Instant::now();
            while let Some(packet) = self.pipes[side].poll_transmit(now) {
                // One that the other side does not take (its interface is down) is lost, as on a cable.
                let _ = (&self.tuns[1 - side]).write(&packet);
                if self.spare.len() < MAX_SPARE {
                    self.spare.push(packet);
                }
            }
        }
    }
}

struct Events {
    readable: [bool; 2],
    changed: bool,
}
