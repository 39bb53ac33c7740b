//! The agent's NAT on a TUN, without tunnel and crypto: what shows is its TCP.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;

use anyhow::Result;
use nix::libc;
use pmz_cli::playground::netns::NetNs;
use pmz_net::device::Tun;
use pmz_net::engine::stop::Stop;
use pmz_net::nat::{
    Egress, Frame, Inbox, Nat, NatConfig, NatCounters, NatSnapshot, PeerId, RunningNat, Way,
};
use pmz_net::packet::checksum::transport_ok;
use pmz_net::packet::{Coalescer, GsoKind, IpView, MAX_FRAME, VNET_HDR_LEN, VnetHdr};
use tokio::runtime::Handle;

/// There is one client.
const PEER: PeerId = PeerId(1);
/// Packets are read until the TUN is empty, but what is joined leaves after this many at the latest, as in
/// the engine.
const READ_BATCH: usize = 64;
/// Frames of fewer bytes are copied, so that the buffer they were read to is there for the next.
const WORTH_A_BUFFER: usize = 4096;

/// A NAT that runs. It ends when dropped.
pub struct NatOnTun {
    nat: Option<RunningNat>,
    counters: Arc<NatCounters>,
    mtu: Arc<AtomicU16>,
    stop: Stop,
    reader: Option<JoinHandle<()>>,
}

impl NatOnTun {
    /// Joins a TUN to a NAT whose sockets are in `service`. To be called in a tokio runtime.
    ///
    /// # Errors
    /// Where the system has no more threads or descriptors.
    pub fn start(tun: Arc<Tun>, service: &NetNs, mtu: u16, config: NatConfig) -> Result<Self> {
        let nat = Nat::new(config)?;
        let mtu = Arc::new(AtomicU16::new(mtu));
        let inbox = nat.inbox();
        let egress = ToTun {
            tun: Arc::clone(&tun),
            mtu: Arc::clone(&mtu),
        };
        let counters = nat.counters();
        // A thread is in the namespace of the one that starts it.
        let nat = service.run(|| nat.start(Box::new(egress)))??;
        let stop = Stop::new()?;
        let mut from_tun = FromTun {
            tun,
            inbox,
            runtime: Handle::current(),
        };
        let reader = {
            let stop = stop.clone();
            let reader = std::thread::Builder::new().name("nat-tun".into());
            // It opens sockets for the NAT.
            service.run(|| {
                reader.spawn(move || {
                    if let Err(error) = from_tun.run(&stop) {
                        eprintln!("the thread that reads the NAT's TUN failed: {error}");
                    }
                })
            })??
        };
        Ok(Self {
            nat: Some(nat),
            counters,
            mtu,
            stop,
            reader: Some(reader),
        })
    }
}

impl NatOnTun {
    /// What the NAT has counted.
    pub fn counters(&self) -> NatSnapshot {
        self.counters.snapshot()
    }

    /// Its packets to the client are at most so large from now on, in bytes.
    pub fn set_mtu(&self, mtu: u16) {
        self.mtu.store(mtu, Ordering::Relaxed);
    }
}

impl Drop for NatOnTun {
    fn drop(&mut self) {
        self.stop.stop();
        // Whoever waits for space in its inbox learns that there will be none.
        self.nat = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

struct FromTun {
    tun: Arc<Tun>,
    inbox: Inbox,
    runtime: Handle,
}

impl FromTun {
    fn run(&mut self, stop: &Stop) -> io::Result<()> {
        let mut frame = self.inbox.frames().take(MAX_FRAME);
        // What a router forwards comes packet by packet; the engine joins them for the NAT in the same way.
        let mut coalescer = Coalescer::new(true, true);
        while stop.wait_readable(self.tun.as_fd())? {
            for _ in 0..READ_BATCH {
                match recv(&self.tun, frame.buffer()) {
                    Ok(()) => frame = self.take(&mut coalescer, frame),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            coalescer.flush(&mut |frame| self.push_copy(frame));
            self.inbox.settle();
        }
        Ok(())
    }

    /// Takes a frame to the NAT; gives one back for the next.
    fn take(&self, coalescer: &mut Coalescer, mut frame: Frame) -> Frame {
        let plain = VnetHdr::parse(&frame)
            .is_some_and(|header| header.gso == GsoKind::None && !header.needs_csum);
        if plain {
            let packet = frame.get(VNET_HDR_LEN..).and_then(IpView::parse);
            if !packet.is_some_and(|packet| transport_ok(&packet)) {
                // A tunnel would not have let it through, and what stands behind one need not look.
                return frame;
            }
            coalescer.push_in_place(&mut frame, &mut |frame| self.push_copy(frame));
            return frame;
        }
        coalescer.flush(&mut |frame| self.push_copy(frame));
        if frame.len() < WORTH_A_BUFFER {
            self.push_copy(&frame);
            return frame;
        }
        self.push(frame);
        self.inbox.frames().take(MAX_FRAME)
    }

    fn push_copy(&self, frame: &[u8]) {
        let mut owned = self.inbox.frames().take(frame.len());
        owned.extend_from_slice(frame);
        self.push(owned);
    }

    /// Waits where the NAT is behind.
    fn push(&self, frame: Frame) {
        if let Err(frame) = self.inbox.try_push(PEER, frame) {
            // It has stopped; then this ends, too.
            let _ = self.runtime.block_on(self.inbox.push(PEER, frame));
        }
    }
}

/// Reads one frame, of up to [`MAX_FRAME`] bytes, in the place of what was in `buffer`.
fn recv(tun: &Tun, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    buffer.reserve(MAX_FRAME);
    let room = buffer.spare_capacity_mut();
    // SAFETY: the descriptor is open, and the kernel writes at most as many bytes as there is room for.
    let len = unsafe {
        libc::read(
            tun.as_fd().as_raw_fd(),
            room.as_mut_ptr().cast(),
            room.len(),
        )
    };
    let Ok(len) = usize::try_from(len) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has written so many bytes, which is not more than there was room for.
    unsafe { buffer.set_len(len) };
    Ok(())
}

struct ToTun {
    tun: Arc<Tun>,
    mtu: Arc<AtomicU16>,
}

impl Egress for ToTun {
    fn has_room(&self, _: PeerId, _: u32) -> bool {
        true
    }

    fn transmit(&mut self, _: PeerId, _: u32, frame: &mut [u8]) {
        // The kernel queues or drops, as on UDP.
        let _ = self.tun.send(frame);
    }

    fn transmit_gathered(&mut self, _: PeerId, _: u32, head: &mut [u8], payload: [&[u8]; 2]) {
        let [first, second] = payload;
        let pieces = [head, first, second].map(io::IoSlice::new);
        let _ = self.tun.send_gathered(&pieces);
    }

    fn flush(&mut self) {}

    fn way(&self, _: PeerId) -> Way {
        Way {
            mtu: self.mtu.load(Ordering::Relaxed),
            lossless: false,
            // What the algorithm allows is what is measured.
            in_flight_limit: usize::MAX,
        }
    }
}
