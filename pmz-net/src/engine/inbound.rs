//! From the tunnel to the local side.

use std::io;
use std::os::fd::AsFd;
use std::thread;

use super::probe::{Answer, Probe};
use super::stop::Stop;
use super::{Engine, Paths, Via, count};
use crate::carrier::udp::{RecvBuffers, UdpCarrier};
use crate::packet::{Coalescer, MAX_FRAME, VNET_HDR_LEN};
use crate::tunnel::{Opened, Peer, PeerId};

/// Room for the largest frame, and for the virtio-net header that may travel behind the packet.
pub(super) const OPEN_BUFFER: usize = MAX_FRAME + VNET_HDR_LEN + 64;

impl Engine {
    /// Opens one message into `out` behind room for a virtio-net header. What concerns the engine itself
    /// (handshakes, probes) is done with. Otherwise returns the peer and the length of the whole frame at
    /// the start of `out`.
    pub(super) fn open(
        &self,
        message: &[u8],
        via: &Via,
        out: &mut [u8],
    ) -> Option<(PeerId, usize)> {
        let opened = self
            .tunnel
            .open(message, via.ip(), &mut out[VNET_HDR_LEN..]);
        let (peer, len) = match opened {
            Opened::Packet { peer, len, newest } => {
                if let Some(probe) = Probe::parse(&out[VNET_HDR_LEN..VNET_HDR_LEN + len]) {
                    self.handle_probe(&peer, via, probe);
                    return None;
                }
                peer.attached.heard(via, newest);
                (peer, len)
            }
            Opened::Empty { peer, newest } => {
                peer.attached.heard(via, newest);
                return None;
            }
            Opened::Reply { len, .. } => {
                let reply = out[VNET_HDR_LEN..VNET_HDR_LEN + len].to_vec();
                self.send_back(via, &reply);
                return None;
            }
            Opened::Dropped(_) => return None,
        };

        // On a stream between two pmz ends the virtio-net header travels behind the packet, where the
        // packet's own length ends it; plain WireGuard has nothing there.
        let sealed = message.len() - crate::tunnel::DATA_OVERHEAD;
        let end = VNET_HDR_LEN + len;
        match via {
            Via::Stream(_) if peer.attached.super_packets() && sealed == len + VNET_HDR_LEN => {
                out.copy_within(end..end + VNET_HDR_LEN, 0);
            }
            Via::Stream(_) | Via::Udp(_) => out[..VNET_HDR_LEN].fill(0),
        }
        Some((peer.id(), end))
    }

    fn handle_probe(&self, peer: &Peer<Paths>, via: &Via, probe: Probe) {
        peer.attached.heard(via, false);
        if probe.is_answer {
            // Where nobody looks at the answers any more, they are of no use.
            let _ = self.answers.try_send(Answer {
                peer: peer.id(),
                via: via.clone(),
                nonce: probe.nonce,
            });
            return;
        }
        if probe.select || peer.attached.direction() == super::Direction::None {
            peer.attached.follow(via);
        }
        let answer = Probe {
            nonce: probe.nonce,
            is_answer: true,
            select: false,
        };
        let own = self.own.read().clone();
        let packet = own
            .iter()
            .find_map(|from| answer.to_packet(*from, peer.attached.address(from.is_ipv4())?));
        if let Some(packet) = packet {
            self.seal_back(peer, via, &packet);
        }
    }
}

/// Receives UDP until told to stop: the body of a thread.
///
/// # Errors
/// Where the socket fails for good.
pub fn run(engine: &Engine, stop: &Stop) -> io::Result<()> {
    let Some(udp) = engine.udp() else {
        return Ok(());
    };
    let mut receiver = Receiver {
        engine,
        buffers: RecvBuffers::default(),
        opened: vec![0; OPEN_BUFFER].into_boxed_slice(),
        coalescer: Coalescer::new(true, true),
        peer: None,
    };
    while stop.wait_readable(udp.as_fd())? {
        receiver.drain(udp)?;
        // On a busy machine more has come by the time that the others have run, and to look costs less than to be woken.
        thread::yield_now();
        receiver.drain(udp)?;
    }
    Ok(())
}

fn is_remote(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::ConnectionReset
    )
}

struct Receiver<'a> {
    engine: &'a Engine,
    buffers: RecvBuffers,
    opened: Box<[u8]>,
    coalescer: Coalescer,
    /// Whose packets the coalescer holds.
    peer: Option<PeerId>,
}

impl Receiver<'_> {
    fn receive(&mut self, udp: &UdpCarrier) -> io::Result<()> {
        let Self {
            engine,
            buffers,
            opened,
            coalescer,
            peer,
        } = self;
        udp.recv(buffers, |from, datagrams| {
            let via = Via::Udp(from);
            for datagram in datagrams {
                if datagram.len() > opened.len() - VNET_HDR_LEN {
                    continue;
                }
                let Some((from, len)) = engine.open(datagram, &via, opened) else {
                    continue;
                };
                if *peer != Some(from) {
                    flush(engine, coalescer, *peer);
                    *peer = Some(from);
                }
                coalescer.push_in_place(&mut opened[..len], &mut |frame: &mut [u8]| {
                    deliver(engine, from, frame);
                });
            }
        })
    }

    /// Receives until nothing is there. Joining ends there: nothing waits for a segment that may not come.
    fn drain(&mut self, udp: &UdpCarrier) -> io::Result<()> {
        let mut any = false;
        loop {
            match self.receive(udp) {
                // Messages come as fast as they are opened: another core may deal with what was in them.
                Ok(()) if any => self.engine.local.settle(true),
                Ok(()) => any = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error about something sent earlier: read, and so cleared.
                Err(error) if is_remote(&error) => break,
                Err(error) => return Err(error),
            }
            self.flush();
        }
        if any {
            self.engine.local.settle(false);
        }
        Ok(())
    }

    fn flush(&mut self) {
        flush(self.engine, &mut self.coalescer, self.peer);
    }
}

fn flush(engine: &Engine, coalescer: &mut Coalescer, peer: Option<PeerId>) {
    if let Some(peer) = peer {
        coalescer.flush(&mut |frame: &mut [u8]| deliver(engine, peer, frame));
    }
}

fn deliver(engine: &Engine, peer: PeerId, frame: &[u8]) {
    if !engine.local.deliver(peer, frame) {
        count(&engine.counters.local_full);
    }
}
