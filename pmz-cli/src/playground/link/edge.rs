//! The link's thread: carries packets between the TUNs and the pipes, and keeps their time.
//!
//! As a network card does, it takes super-packets and cuts them, and joins the TCP segments that arrive
//! together: that changes nothing of what is on the link, and makes a gigabit cheap.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::time::TimeSpec;

use pmz_net::device::Tun;
use pmz_net::packet::{Coalescer, MAX_FRAME, Segmenter, VNET_HDR_LEN, VnetHdr};

use super::Shared;
use super::pipe::Pipe;
use super::transit::Packet;

/// Frames that are read from one TUN before the other gets its turn.
const BATCH: usize = 64;
/// Buffers that are kept for the next packets.
const MAX_SPARE: usize = 4096;
/// Packets that follow others within this time are carried together, as a network card does that joins
/// its interrupts: waking for each one costs more than carrying it.
const TOGETHER: Duration = Duration::from_micros(50);

pub(super) struct Edge {
    tuns: [Tun; 2],
    /// From the first TUN to the second, and back.
    pipes: [Pipe; 2],
    mtu: u16,
    frame: Box<[u8]>,
    packet: Box<[u8]>,
    coalescer: Coalescer,
    spare: Vec<Vec<u8>>,
    shared: Arc<Shared>,
    /// Of the state that the pipes are as.
    version: u64,
    stopped: bool,
}

/// What the thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// A packet, or that one arrives.
    Event,
    /// A short time, since more packets are about to come.
    More,
    /// Nothing: there were more packets than were carried.
    Rest,
}

impl Edge {
    pub(super) fn new(tuns: Vec<Tun>, mtu: u32, seed: u64, shared: Arc<Shared>) -> Result<Self> {
        let tuns = <[Tun; 2]>::try_from(tuns).map_err(|_| anyhow!("a link has two ends"))?;
        let spec = shared.state.lock().spec.clone();
        Ok(Self {
            tuns,
            pipes: [Pipe::new(spec.clone(), seed), Pipe::new(spec, !seed)],
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            frame: vec![0; MAX_FRAME].into_boxed_slice(),
            packet: vec![0; MAX_FRAME].into_boxed_slice(),
            // Datagrams stay alone: not every receiver of many is prepared for one.
            coalescer: Coalescer::new(false, false),
            spare: Vec::new(),
            shared,
            version: 0,
            stopped: false,
        })
    }

    pub(super) fn run(mut self) {
        // The kernel may else wake this thread 50 µs late, to save power. Without it the link is only less
        // exact.
        let _ = prctl::set_timerslack(1);
        let mut next = Next::Event;
        while !self.stopped {
            if let Err(error) = self.wait(next) {
                tracing::error!(%error, "the emulated link has ended");
                return;
            }
            next = self.carry();
            // Who looks at the counters holds up no packets that follow, and misses none before a pause.
            let state = match next {
                Next::Event => Some(self.shared.state.lock()),
                Next::More | Next::Rest => self.shared.state.try_lock(),
            };
            if let Some(mut state) = state {
                state.counters = [self.pipes[0].counters(), self.pipes[1].counters()];
            }
        }
    }

    fn wait(&self, next: Next) -> nix::Result<()> {
        let due = match next {
            Next::Event => self.pipes.iter().filter_map(Pipe::poll_timeout).min(),
            Next::More => Some(Instant::now() + TOGETHER),
            Next::Rest => return Ok(()),
        };
        let timeout = due.map(|due| TimeSpec::from(due.saturating_duration_since(Instant::now())));
        let changed = self.shared.changed();
        let mut fds = [
            PollFd::new(changed.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.tuns[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(self.tuns[1].as_fd(), PollFlags::POLLIN),
        ];
        let fds = match next {
            Next::Event => &mut fds[..],
            _ => &mut fds[..1],
        };
        match ppoll(fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        // An interface that somebody has deleted stays so.
        let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let is_gone = |fd: &PollFd| fd.revents().is_some_and(|events| events.intersects(gone));
        if fds.iter().any(is_gone) {
            return Err(Errno::ENODEV);
        }
        Ok(())
    }

    /// Takes all that is there to the pipes, and from them what has arrived.
    fn carry(&mut self) -> Next {
        self.take_changes();
        let read = [self.read(0), self.read(1)];
        let written = self.write();
        if read.contains(&BATCH) {
            Next::Rest
        } else if read != [0, 0] || written > 0 {
            Next::More
        } else {
            Next::Event
        }
    }

    fn take_changes(&mut self) {
        if self.shared.version.load(Ordering::Acquire) == self.version {
            return;
        }
        let _ = self.shared.changed.read();
        let state = self.shared.state.lock();
        // Changed under the lock only.
        self.version = self.shared.version.load(Ordering::Acquire);
        for pipe in &mut self.pipes {
            pipe.set_spec(state.spec.clone());
        }
        self.stopped = state.stopped;
    }

    /// How many frames were read.
    fn read(&mut self, side: usize) -> usize {
        for count in 0..BATCH {
            // No packet left, or an interface that is down.
            let Ok(len) = self.tuns[side].recv(&mut self.frame) else {
                return count;
            };
            // What was sent after a change meets it.
            self.take_changes();
            let now = Instant::now();
            let Some(mut packets) = Segmenter::new(&self.frame[..len], self.mtu) else {
                continue;
            };
            while let Some(len) = packets.next_into(&mut self.packet) {
                let mut packet = self.spare.pop().unwrap_or_default();
                packet.clear();
                packet.extend_from_slice(&self.packet[..len]);
                let back = self.pipes[side].handle_packet(now, packet);
                self.spare.extend(back);
            }
        }
        BATCH
    }

    /// How many packets were written.
    fn write(&mut self) -> usize {
        let mut count = 0;
        for side in 0..2 {
            let now = Instant::now();
            let tun = &self.tuns[1 - side];
            // What the other side does not take (its interface is down) is lost, as on a cable.
            let mut send = |frame: &mut [u8]| drop(tun.send(frame));
            while let Some(Packet { bytes, corrupt }) = self.pipes[side].poll_transmit(now) {
                if corrupt {
                    // Joining would make sound what is not.
                    self.coalescer.flush(&mut send);
                    VnetHdr::default().emit(&mut self.packet);
                    let frame = &mut self.packet[..VNET_HDR_LEN + bytes.len()];
                    frame[VNET_HDR_LEN..].copy_from_slice(&bytes);
                    send(frame);
                } else {
                    self.coalescer.push(&bytes, &mut send);
                }
                count += 1;
                if self.spare.len() < MAX_SPARE {
                    self.spare.push(bytes);
                }
            }
            self.coalescer.flush(&mut send);
        }
        count
    }
}
