//! The agent's NAT on a TUN, without tunnel and crypto: what is measured is its TCP.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Result;
use pmz_cli::playground::netns::NetNs;
use pmz_net::device::Tun;
use pmz_net::engine::stop::Stop;
use pmz_net::nat::{Egress, Inbox, Nat, NatConfig, PeerId, RunningNat};
use pmz_net::packet::{Coalescer, GsoKind, MAX_FRAME, VnetHdr};
use tokio::runtime::Handle;

use crate::lab::Congestion;

/// There is one client.
const PEER: PeerId = PeerId(1);
/// Packets are read until the TUN is empty, but what is joined leaves after this many at the latest, as in
/// the engine.
const READ_BATCH: usize = 64;

/// A NAT that runs. It ends when dropped.
pub(crate) struct Harness {
    nat: Option<RunningNat>,
    stop: Stop,
    reader: Option<JoinHandle<()>>,
}

impl Harness {
    /// Joins a TUN to a NAT whose sockets are in `service`. To be called in a tokio runtime.
    pub(crate) fn start(
        tun: Arc<Tun>,
        service: &NetNs,
        mtu: u16,
        congestion: Congestion,
    ) -> Result<Self> {
        let nat = Nat::new(config(congestion))?;
        let inbox = nat.inbox();
        let egress = ToTun {
            tun: Arc::clone(&tun),
            mtu,
        };
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
            std::thread::Builder::new()
                .name("bench-tun".into())
                .spawn(move || {
                    if let Err(error) = from_tun.run(&stop) {
                        eprintln!("the thread that reads the NAT's TUN failed: {error}");
                    }
                })?
        };
        Ok(Self {
            nat: Some(nat),
            stop,
            reader: Some(reader),
        })
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.stop.stop();
        if let (Some(nat), true) = (&self.nat, std::env::var_os("DBG").is_some()) {
            std::thread::sleep(std::time::Duration::from_millis(300));
            eprintln!("{:?}", nat.counters().snapshot());
        }
        // Whoever waits for space in its inbox learns that there will be none.
        self.nat = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// What the NAT is asked for.
fn config(congestion: Congestion) -> NatConfig {
    NatConfig {
        congestion: match congestion {
            Congestion::Bbr => pmz_net::tcp::Congestion::Bbr,
            Congestion::Cubic => pmz_net::tcp::Congestion::Cubic,
        },
        ..NatConfig::default()
    }
}

struct FromTun {
    tun: Arc<Tun>,
    inbox: Inbox,
    runtime: Handle,
}

impl FromTun {
    fn run(&mut self, stop: &Stop) -> io::Result<()> {
        let mut frame = vec![0_u8; MAX_FRAME].into_boxed_slice();
        // What a router forwards comes packet by packet; the engine joins them for the NAT in the same way.
        let mut coalescer = Coalescer::new(true, true);
        while stop.wait_readable(self.tun.as_fd())? {
            for _ in 0..READ_BATCH {
                match self.tun.recv(&mut frame) {
                    Ok(len) => self.take(&mut coalescer, &mut frame[..len]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            coalescer.flush(&mut |frame| self.push(frame));
        }
        Ok(())
    }

    fn take(&self, coalescer: &mut Coalescer, frame: &mut [u8]) {
        let plain = VnetHdr::parse(frame)
            .is_some_and(|header| header.gso == GsoKind::None && !header.needs_csum);
        if plain {
            coalescer.push_in_place(frame, &mut |frame| self.push(frame));
        } else {
            coalescer.flush(&mut |frame| self.push(frame));
            self.push(frame);
        }
    }

    /// Waits where the NAT is behind.
    fn push(&self, frame: &[u8]) {
        let mut owned = self.inbox.frames().take(frame.len());
        owned.extend_from_slice(frame);
        if let Err(owned) = self.inbox.try_push(PEER, owned) {
            // It has stopped; then this ends, too.
            let _ = self.runtime.block_on(self.inbox.push(PEER, owned));
        }
    }
}

struct ToTun {
    tun: Arc<Tun>,
    mtu: u16,
}

impl Egress for ToTun {
    fn has_room(&self, _: PeerId, _: u32) -> bool {
        true
    }

    fn transmit(&mut self, _: PeerId, _: u32, frame: &mut [u8]) {
        // The kernel queues or drops, as on UDP.
        let _ = self.tun.send(frame);
    }

    fn flush(&mut self) {}

    fn mtu(&self, _: PeerId) -> u16 {
        self.mtu
    }

    /// What the algorithm allows is what is measured.
    fn in_flight_limit(&self, _: PeerId) -> usize {
        usize::MAX
    }
}
