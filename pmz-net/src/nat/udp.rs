//! One UDP flow: a connected socket, datagrams both ways.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use smoltcp::wire::IpProtocol;
use socket2::Socket;

use super::config::NatConfig;
use super::counters::{NatCounters, bump};
use super::flow::FlowKey;
use super::outlet::{Outlet, UDP_HEADER_LEN};
use super::sockets::{Failure, Unreachable, control_room, cut_sends, recv_joined, send};
use super::wire::{emit_ip, ip_header_len};

/// Datagrams received in one turn.
const TURN: usize = 64;
/// The kernel cuts no more than this out of one send (UDP_MAX_SEGMENTS before Linux 6.9).
const MAX_SEGMENTS: usize = 64;
/// The largest payload of one send.
const MAX_DATAGRAM: usize = 65_507;

pub(super) struct UdpFlow {
    key: FlowKey,
    hash: u32,
    socket: Socket,
    /// The size that the kernel cuts what is sent into; 0: it does not.
    cut: u16,
    /// Whether it can.
    cuts: bool,
    control: Vec<u8>,
    readable: bool,
    answered: bool,
    active: Instant,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DatagramOutcome {
    /// Everything was taken.
    Idle,
    /// There is more to receive.
    Again,
    /// The carrier has no room; what is to be received waits in the kernel.
    Blocked,
    /// The flow is of no more use.
    End,
}

impl UdpFlow {
    pub(super) fn new(key: FlowKey, socket: Socket, now: Instant) -> Self {
        Self {
            key,
            hash: key.flow_hash(),
            socket,
            cut: 0,
            cuts: true,
            control: control_room(),
            readable: false,
            answered: false,
            active: now,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn active(&self) -> Instant {
        self.active
    }

    pub(super) fn expiry(&self, config: &NatConfig) -> Instant {
        let idle: Duration = if self.answered {
            config.udp_stream_idle
        } else {
            config.udp_idle
        };
        self.active + idle
    }

    pub(super) fn event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_error();
    }

    /// Sends a client's datagrams on: one, or as many as `segment` cuts the payload into.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        payload: &[u8],
        segment: Option<u16>,
        outlet: &mut Outlet,
        counters: &NatCounters,
    ) {
        self.active = now;
        let Some(size) = segment.filter(|size| *size > 0) else {
            // What the kernel still cuts for the super-packets before must not be larger than they were.
            if payload.len() > usize::from(self.cut) && self.cut > 0 {
                self.cut_sends(0);
            }
            self.send(payload, outlet, counters);
            return;
        };
        if self.cuts && self.cut != size {
            self.cut_sends(size);
        }
        let size = usize::from(size);
        let at_once = if self.cuts {
            size * MAX_SEGMENTS.min(MAX_DATAGRAM / size).max(1)
        } else {
            size
        };
        for datagrams in payload.chunks(at_once) {
            self.send(datagrams, outlet, counters);
        }
    }

    fn cut_sends(&mut self, size: u16) {
        match cut_sends(&self.socket, size) {
            Ok(()) => self.cut = size,
            Err(_) => self.cuts = false,
        }
    }

    fn send(&mut self, datagrams: &[u8], outlet: &mut Outlet, counters: &NatCounters) {
        // The first error may be the answer to an earlier datagram.
        for _ in 0..2 {
            match send(&self.socket, datagrams) {
                Ok(_) => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // A device on the way to the service can't do checksums: the kernel then doesn't cut.
                Err(e) if e.raw_os_error() == Some(libc::EIO) && self.cut > 0 => {
                    let size = usize::from(self.cut);
                    self.cut_sends(0);
                    self.cuts = false;
                    for datagram in datagrams.chunks(size) {
                        self.send(datagram, outlet, counters);
                    }
                    return;
                }
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => break,
                Err(e) => match Failure::of(&e) {
                    Failure::Refused => self.unreachable(Unreachable::Port, outlet),
                    Failure::Unreachable(why) => {
                        self.unreachable(why, outlet);
                        return;
                    }
                    Failure::Exhausted => break,
                },
            }
        }
        bump(&counters.datagrams_dropped);
    }

    /// Sends what the service answered to the client.
    pub(super) fn turn(&mut self, now: Instant, outlet: &mut Outlet) -> DatagramOutcome {
        let headers = ip_header_len(self.key.service.ip()) + UDP_HEADER_LEN;
        for _ in 0..TURN {
            if !self.readable {
                return DatagramOutcome::Idle;
            }
            if !outlet.has_room(self.key.peer, self.hash) {
                return DatagramOutcome::Blocked;
            }
            let room = &mut outlet.packet()[headers..];
            match recv_joined(&self.socket, room, &mut self.control) {
                Ok((len, size)) => {
                    self.active = now;
                    self.answered = true;
                    outlet.datagrams(&self.key, self.hash, len, size.unwrap_or(len));
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => match Failure::of(&e) {
                    Failure::Refused => self.unreachable(Unreachable::Port, outlet),
                    Failure::Unreachable(why) => self.unreachable(why, outlet),
                    Failure::Exhausted => return DatagramOutcome::End,
                },
            }
        }
        DatagramOutcome::Again
    }

    /// Tells the client; the quoted packet is made up, since the one that failed is gone.
    fn unreachable(&self, why: Unreachable, outlet: &mut Outlet) {
        let mut quote = [0; 48];
        let (src, dst) = (self.key.client, self.key.service);
        let len = UDP_HEADER_LEN;
        let Some(ip) = emit_ip(&mut quote, src.ip(), dst.ip(), IpProtocol::Udp, len) else {
            return;
        };
        quote[ip..ip + 2].copy_from_slice(&src.port().to_be_bytes());
        quote[ip + 2..ip + 4].copy_from_slice(&dst.port().to_be_bytes());
        quote[ip + 4..ip + 6].copy_from_slice(&(UDP_HEADER_LEN as u16).to_be_bytes());
        outlet.unreachable(&self.key, why, &quote[..ip + len]);
    }
}
