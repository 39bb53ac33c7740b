//! One ICMP echo flow: an unprivileged echo socket, whose identifier is the kernel's and not the client's.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Instant;

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet};
use socket2::Socket;

use super::counters::{NatCounters, bump};
use super::flow::FlowKey;
use super::outlet::Outlet;
use super::sockets::{recv, send};
use super::udp::DatagramOutcome;
use super::wire::ip_header_len;

/// Answers received in one turn.
const TURN: usize = 32;
/// Type, code, checksum, identifier and sequence number.
pub(super) const ECHO_HEADER_LEN: usize = 8;

/// The identifier of an echo request; `None` for other messages.
pub(super) fn request_ident(destination: IpAddr, message: &[u8]) -> Option<u16> {
    match destination {
        IpAddr::V4(_) => {
            let icmp = Icmpv4Packet::new_checked(message).ok()?;
            (icmp.msg_type() == Icmpv4Message::EchoRequest && message.len() >= ECHO_HEADER_LEN)
                .then(|| icmp.echo_ident())
        }
        IpAddr::V6(_) => {
            let icmp = Icmpv6Packet::new_checked(message).ok()?;
            (icmp.msg_type() == Icmpv6Message::EchoRequest && message.len() >= ECHO_HEADER_LEN)
                .then(|| icmp.echo_ident())
        }
    }
}

/// Makes the request an answer, in place.
pub(super) fn make_reply(destination: IpAddr, message: &mut [u8]) {
    if let Some(kind) = message.first_mut() {
        *kind = match destination {
            IpAddr::V4(_) => Icmpv4Message::EchoReply.into(),
            IpAddr::V6(_) => Icmpv6Message::EchoReply.into(),
        };
    }
}

pub(super) struct EchoFlow {
    key: FlowKey,
    hash: u32,
    socket: Socket,
    readable: bool,
    active: Instant,
}

impl EchoFlow {
    pub(super) fn new(key: FlowKey, socket: Socket, now: Instant) -> Self {
        Self {
            key,
            hash: key.flow_hash(),
            socket,
            readable: false,
            active: now,
        }
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn active(&self) -> Instant {
        self.active
    }

    pub(super) fn event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_error();
    }

    /// Sends a request on. The kernel puts its identifier and the checksum in.
    pub(super) fn forward(&mut self, now: Instant, message: &[u8], counters: &NatCounters) {
        self.active = now;
        if send(&self.socket, message).is_err() {
            bump(&counters.datagrams_dropped);
        }
    }

    /// Sends answers to the client, under its own identifier.
    pub(super) fn turn(&mut self, now: Instant, outlet: &mut Outlet) -> DatagramOutcome {
        let (src, dst) = (self.key.service.ip(), self.key.client.ip());
        let ip = ip_header_len(src);
        for _ in 0..TURN {
            if !self.readable {
                return DatagramOutcome::Idle;
            }
            if !outlet.has_room(self.key.peer, self.hash) {
                return DatagramOutcome::Blocked;
            }
            let message = &mut outlet.packet()[ip..];
            match recv(&self.socket, message) {
                Ok(len) if len >= ECHO_HEADER_LEN => {
                    self.active = now;
                    message[4..6].copy_from_slice(&self.key.client.port().to_be_bytes());
                    outlet.icmp(self.key.peer, self.hash, src, dst, len);
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // An error of an earlier request; the client hears nothing, as from a lossy network.
                Err(_) => {}
            }
        }
        DatagramOutcome::Again
    }
}
