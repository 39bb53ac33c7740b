//! The TUN as an engine's local side.

use std::future::Future;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::outbound::Outbound;
use super::stop::Stop;
use super::{Engine, Local};
use crate::device::Tun;
use crate::packet::{MAX_FRAME, PooledFrame};
use crate::tunnel::PeerId;

/// Packets are read until the TUN is empty, but what is ready leaves after this many at the latest.
const READ_BATCH: usize = 64;

/// Writes what came through the tunnel to a TUN.
pub struct TunLocal {
    tun: Arc<Tun>,
    failures: AtomicU64,
}

impl TunLocal {
    /// For this TUN.
    pub fn new(tun: Arc<Tun>) -> Self {
        Self {
            tun,
            failures: AtomicU64::new(0),
        }
    }

    /// Packets that the kernel refused: not IP, or the device is down.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

impl Local for TunLocal {
    fn deliver(&self, _: PeerId, frame: &[u8]) -> bool {
        // The kernel queues or drops as for any device; there is nothing to wait for.
        if self.tun.send(frame).is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn deliver_waiting<'a>(
        &'a self,
        peer: PeerId,
        frame: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.deliver(peer, frame);
        Box::pin(std::future::ready(()))
    }
}

/// Reads the TUN until told to stop: the body of a thread.
///
/// # Errors
/// Where the TUN fails for good: the device is gone.
pub fn run(engine: &Engine, tun: &Tun, stop: &Stop) -> io::Result<()> {
    let mut reader = Reader {
        engine,
        tun,
        outbound: Outbound::default(),
        frame: None,
        spare: vec![0; MAX_FRAME].into_boxed_slice(),
    };
    while stop.wait_readable(tun.as_fd())? {
        for _ in 0..READ_BATCH {
            match reader.read() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        engine.flush(&mut reader.outbound);
    }
    Ok(())
}

struct Reader<'a> {
    engine: &'a Engine,
    tun: &'a Tun,
    outbound: Outbound,
    /// What is read into, so that a stream's queue can keep it as it is.
    frame: Option<PooledFrame>,
    /// What is read into while the pool has nothing left.
    spare: Box<[u8]>,
}

impl Reader<'_> {
    fn read(&mut self) -> io::Result<()> {
        if self.frame.is_none() {
            self.frame = self.engine.pool.take();
        }
        match &mut self.frame {
            Some(frame) => {
                let len = self.tun.recv(frame.space())?;
                frame.set_len(len);
                self.engine
                    .route_taking(&mut self.outbound, &mut self.frame);
            }
            None => {
                let len = self.tun.recv(&mut self.spare)?;
                self.engine.route(&mut self.outbound, &self.spare[..len]);
            }
        }
        Ok(())
    }
}
