//! An endpoint and a socket joined: bytes move while both sides can take them.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::super::config::NatConfig;
use super::super::flow::FlowKey;
use super::super::outlet::Outlet;
use super::super::sockets::{recv, send};
use super::Endpoint;

/// Bytes read from a service before they are sent on: they are still in the cache then.
const READ: usize = 128 << 10;
/// The client must end the handshake in this time.
const HANDSHAKE: Duration = Duration::from_secs(60);

pub(super) struct Joint {
    pub(super) endpoint: Box<dyn Endpoint>,
    pub(super) isn: u32,
    pub(super) ring_bytes: usize,
    /// The service has closed its direction, and the endpoint knows.
    pub(super) service_closed: bool,
    /// The client has closed its direction, and the service knows.
    pub(super) client_closed: bool,
    pub(super) since: Instant,
    pub(super) heard_client: Instant,
    pub(super) heard_any: Instant,
}

impl Joint {
    /// Gives the service what was received from the client.
    pub(super) fn forward(&mut self, now: Instant, socket: &Socket, writable: &mut bool) {
        while *writable {
            let bytes = self.endpoint.received();
            if bytes.is_empty() {
                break;
            }
            let len = bytes.len();
            match send(socket, bytes) {
                Ok(n) => {
                    self.endpoint.consume(now, n);
                    self.heard_any = now;
                    // A short write means that the buffer is full, and an event will follow.
                    *writable = n == len;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => *writable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.endpoint.abort();
                    return;
                }
            }
        }
        if !self.client_closed && self.endpoint.is_receive_finished() {
            self.client_closed = true;
            // Fails only where the service has reset the connection, which reading finds out.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }

    /// Takes bytes of the service, as many as the endpoint wants; how many.
    pub(super) fn fetch(
        &mut self,
        now: Instant,
        socket: &Socket,
        readable: &mut bool,
        hangup: bool,
    ) -> usize {
        let mut total = 0;
        while *readable && total < READ {
            let room = self.endpoint.room();
            let allowed = room.len().min(READ - total);
            if allowed == 0 {
                break;
            }
            let got = recv(socket, &mut room[..allowed]);
            self.endpoint.commit(*got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => {
                    *readable = false;
                    self.service_closed = true;
                    self.endpoint.close();
                }
                Ok(n) => {
                    self.heard_any = now;
                    total += n;
                    // A short read means that nothing is left, and an event will follow; unless the end
                    // was announced already.
                    *readable = n == allowed || hangup;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => *readable = false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    *readable = false;
                    self.endpoint.abort();
                }
            }
        }
        total
    }

    /// Sends what the endpoint has; true when the carrier has no room for it.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        key: &FlowKey,
        hash: u32,
        outlet: &mut Outlet,
    ) -> bool {
        loop {
            if !outlet.has_room(key.peer, hash) {
                return self.endpoint.poll_timeout(now).is_some_and(|t| t <= now);
            }
            let Some(segment) = self.endpoint.poll_transmit(now, outlet.packet()) else {
                return false;
            };
            let mss = self.endpoint.segment_size();
            outlet.segment(key, hash, segment, mss, self.endpoint.payload());
        }
    }

    /// When the connection is given up if nothing happens.
    pub(super) fn expiry(&self, config: &NatConfig) -> Instant {
        if !self.endpoint.is_established() {
            return self.since + HANDSHAKE;
        }
        let idle = if self.service_closed || self.client_closed {
            config.tcp_half_closed_idle
        } else {
            config.tcp_idle
        };
        let idle = self.heard_any + idle;
        if self.endpoint.awaits_acknowledgement() {
            idle.min(self.heard_client + config.tcp_unacked)
        } else {
            idle
        }
    }
}
