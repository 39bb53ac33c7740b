//! The packet path on this machine: TUN, engine, and their threads.

use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use pmz_net::carrier::choice::Carrier;
use pmz_net::carrier::udp::UdpCarrier;
use pmz_net::device::Tun;
use pmz_net::engine::stop::Stop;
use pmz_net::engine::tun::TunLocal;
use pmz_net::engine::{Direction, Engine, Paths, inbound, probe::Answer, tun};
use pmz_net::session::{Capability, Welcome};
use pmz_net::tunnel::{Peer, Tunnel};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The engine with a TUN on one side. Its threads end when it is dropped.
pub struct Link {
    engine: Arc<Engine>,
    peer: Mutex<Option<Arc<Peer<Paths>>>>,
    stop: Stop,
    /// Cancelled when a thread of the packet path fails.
    failed: CancellationToken,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Link {
    /// Starts the packet path for a tunnel without peers. Answers to probes come out of the receiver.
    ///
    /// # Errors
    /// Where a descriptor can't be set up or a thread not be started.
    pub fn start(
        tunnel: Tunnel<Paths>,
        tun: OwnedFd,
        udp: UdpSocket,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Answer>)> {
        let device = Arc::new(Tun::new(tun).context("set up the TUN")?);
        let udp = UdpCarrier::new(udp).context("set up the tunnel's UDP socket")?;
        let local = Arc::new(TunLocal::new(device.clone()));
        let (engine, answers) = Engine::new(tunnel, Some(udp), local);
        let stop = Stop::new().context("make an eventfd")?;
        let failed = CancellationToken::new();
        let mut link = Self {
            engine,
            peer: Mutex::new(None),
            stop,
            failed,
            threads: Vec::new(),
        };
        let engine = link.engine.clone();
        link.spawn("pmz-udp-in", move |stop| inbound::run(&engine, stop))?;
        let engine = link.engine.clone();
        link.spawn("pmz-tun-out", move |stop| tun::run(&engine, &device, stop))?;
        Ok((link, answers))
    }

    fn spawn(
        &mut self,
        name: &str,
        body: impl FnOnce(&Stop) -> io::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let (stop, failed, thread) = (self.stop.clone(), self.failed.clone(), name.to_owned());
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                if let Err(error) = body(&stop) {
                    tracing::error!(%error, thread, "the packet path failed");
                    failed.cancel();
                }
            })?;
        self.threads.push(handle);
        Ok(())
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// This session's public key, base64.
    pub fn public_key(&self) -> String {
        STANDARD.encode(self.engine.tunnel().public_key())
    }

    /// Ends when a thread of the packet path has failed.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Makes the agent that said `welcome` the one peer, in place of an earlier one.
    ///
    /// # Errors
    /// Where its key is none.
    pub fn attach(&self, welcome: &Welcome) -> anyhow::Result<Arc<Peer<Paths>>> {
        let key: [u8; 32] = STANDARD
            .decode(&welcome.public_key)
            .ok()
            .and_then(|key| key.try_into().ok())
            .context("the agent's public key is not 32 bytes of base64")?;
        let mut current = self.peer.lock();
        if let Some(peer) = current.as_ref()
            && peer.public_key() == key
        {
            return Ok(peer.clone());
        }
        if let Some(old) = current.take() {
            self.engine.tunnel().remove_peer(old.id());
        }
        let everything = ["0.0.0.0/0", "::/0"]
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect();
        let super_packets = welcome.capabilities.contains(&Capability::SuperPackets);
        let paths = Paths::new(
            false,
            super_packets,
            welcome.mtu,
            welcome.agent_addresses.clone(),
        );
        let peer = self.engine.tunnel().add_peer(key, everything, paths)?;
        self.engine.set_own_addresses(welcome.addresses.clone());
        *current = Some(peer.clone());
        Ok(peer)
    }

    /// The agent, while there is one.
    pub fn peer(&self) -> Option<Arc<Peer<Paths>>> {
        self.peer.lock().clone()
    }

    /// Sends packets by this carrier from now on.
    pub fn switch(&self, carrier: Carrier) {
        let direction = match carrier {
            Carrier::Stream => Direction::Stream,
            Carrier::Udp(to) => Direction::Udp(to),
        };
        if let Some(peer) = self.peer() {
            peer.attached.set_direction(direction);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            // It has logged why it ended, where that was a failure.
            let _ = thread.join();
        }
    }
}
