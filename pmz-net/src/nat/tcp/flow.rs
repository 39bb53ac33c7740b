//! One TCP connection: the dial, then an endpoint and a socket joined, with back-pressure both ways.

use std::time::{Duration, Instant};

use smoltcp::wire::TcpControl;
use socket2::Socket;

use super::super::config::NatConfig;
use super::super::flow::FlowKey;
use super::super::outlet::Outlet;
use super::super::sockets::Failure;
use super::joint::Joint;
use super::ring::{Ring, RingPool};
use super::smol::{Setup, SmolEndpoint};
use super::syn::Syn;
use super::{BadSegment, Challenge, End};

/// Bytes that a flow may move in one turn, so that others get theirs.
const TURN: usize = 1 << 20;
/// No timer is finer.
const TICK: Duration = Duration::from_millis(1);

enum Stage {
    Dialing { syn: Syn, until: Instant },
    Open(Box<Joint>),
}

/// What a turn came to.
#[derive(Debug)]
pub(in super::super) enum Outcome {
    /// The flow goes on.
    Wait {
        /// When it wants a turn whatever happens.
        deadline: Instant,
        /// It has more to do right now.
        again: bool,
        /// It has something to send and the carrier has no room.
        blocked: bool,
    },
    /// It is over.
    End(End),
}

pub(in super::super) struct TcpFlow {
    key: FlowKey,
    hash: u32,
    socket: Socket,
    stage: Stage,
    readable: bool,
    writable: bool,
    /// The kernel said that the service's direction is closed: reading goes on until its end.
    hangup: bool,
    failed: bool,
}

impl TcpFlow {
    pub(in super::super) fn new(key: FlowKey, socket: Socket, syn: Syn, until: Instant) -> Self {
        Self {
            key,
            hash: key.flow_hash(),
            socket,
            stage: Stage::Dialing { syn, until },
            readable: false,
            writable: false,
            hangup: false,
            failed: false,
        }
    }

    pub(in super::super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(in super::super) fn is_dialing(&self) -> bool {
        matches!(self.stage, Stage::Dialing { .. })
    }

    pub(in super::super) fn ring_bytes(&self) -> usize {
        match &self.stage {
            Stage::Dialing { .. } => 0,
            Stage::Open(open) => open.ring_bytes,
        }
    }

    pub(in super::super) fn syn(&self) -> Option<&Syn> {
        match &self.stage {
            Stage::Dialing { syn, .. } => Some(syn),
            Stage::Open(_) => None,
        }
    }

    pub(in super::super) fn dial_deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Dialing { until, .. } => Some(*until),
            Stage::Open(_) => None,
        }
    }

    /// The client tries again, perhaps anew: its last SYN is the one that counts.
    pub(in super::super) fn retry(&mut self, new: Syn) {
        if let Stage::Dialing { syn, .. } = &mut self.stage {
            *syn = new;
        }
    }

    /// Notes what the kernel says of the socket.
    pub(in super::super) fn event(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        self.hangup |= event.is_read_closed() || event.is_error();
        self.failed |= event.is_error();
    }

    /// How the dial went: `None` while it is on its way.
    pub(in super::super) fn dial_result(&mut self) -> Option<Result<(), Failure>> {
        if !self.writable {
            return None;
        }
        match self.socket.take_error() {
            Ok(Some(e)) | Err(e) => return Some(Err(Failure::of(&e))),
            Ok(None) => {}
        }
        self.failed = false;
        match self.socket.peer_addr() {
            Ok(_) => Some(Ok(())),
            Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {
                self.writable = false;
                None
            }
            Err(e) => Some(Err(Failure::of(&e))),
        }
    }

    /// The service has taken the connection: makes the endpoint, with rings of this size each.
    /// False where that is impossible.
    pub(in super::super) fn open(
        &mut self,
        now: Instant,
        pool: &RingPool,
        ring_size: usize,
        config: &NatConfig,
        outlet: &Outlet,
    ) -> bool {
        let Stage::Dialing { syn, .. } = &self.stage else {
            return false;
        };
        let rings: [Ring; 2] = [pool.take(ring_size), pool.take(ring_size)];
        let [receive, send] = rings;
        let isn = syn.isn();
        let setup = Setup {
            client: self.key.client,
            service: self.key.service,
            syn: syn.options,
            mtu: outlet.mtu(self.key.peer),
            receive,
            send,
            seed: rand::random(),
            keep_alive: config.tcp_idle / 2,
        };
        let Some(endpoint) = SmolEndpoint::open(now, setup) else {
            return false;
        };
        self.stage = Stage::Open(Box::new(Joint {
            endpoint: Box::new(endpoint),
            isn,
            ring_bytes: 2 * ring_size,
            service_closed: false,
            client_closed: false,
            since: now,
            heard_client: now,
            heard_any: now,
        }));
        true
    }

    /// Takes a segment of this connection: an IP packet without options, its TCP header checked.
    pub(in super::super) fn segment(
        &mut self,
        now: Instant,
        packet: &mut [u8],
        outlet: &mut Outlet,
    ) -> Result<(), BadSegment> {
        let Stage::Open(open) = &mut self.stage else {
            return Ok(());
        };
        open.heard_client = now;
        open.heard_any = now;
        let reply = outlet.packet();
        if let Some(segment) = open.endpoint.handle_segment(now, packet, reply)? {
            let mss = open.endpoint.segment_size();
            outlet.segment(&self.key, self.hash, segment, mss);
        }
        Ok(())
    }

    /// Takes a SYN for a connection that is there already: a copy of its own is nothing, another one is
    /// challenged, so that a client that lost its state can reset what is left here (RFC 5961, 4).
    pub(in super::super) fn another_syn(&mut self, isn: u32, outlet: &mut Outlet) {
        let Stage::Open(open) = &mut self.stage else {
            return;
        };
        if isn == open.isn && !open.endpoint.is_established() {
            return;
        }
        let Challenge { seq, ack, window } = open.endpoint.challenge();
        outlet.bare_segment(&self.key, TcpControl::None, seq, Some(ack), window);
    }

    /// Moves bytes and segments, as many as there are and fit.
    pub(in super::super) fn turn(
        &mut self,
        now: Instant,
        config: &NatConfig,
        outlet: &mut Outlet,
    ) -> Outcome {
        let Stage::Open(open) = &mut self.stage else {
            let deadline = self.dial_deadline().unwrap_or(now);
            return Outcome::Wait {
                deadline,
                again: false,
                blocked: false,
            };
        };
        if self.failed && !matches!(self.socket.take_error(), Ok(None)) {
            open.endpoint.abort();
        }
        self.failed = false;

        // First what was received: that opens the window which the next segment announces.
        open.forward(now, &self.socket, &mut self.writable);
        let mut moved = 0;
        let blocked = loop {
            let read = if open.service_closed {
                0
            } else {
                let limit = outlet.in_flight_limit(self.key.peer);
                open.fetch(now, &self.socket, &mut self.readable, self.hangup, limit)
            };
            moved += read;
            let blocked = open.transmit(now, &self.key, self.hash, outlet);
            if blocked || read == 0 || moved >= TURN {
                break blocked;
            }
        };
        if let Some(end) = open.endpoint.end() {
            if matches!(end, End::Reset | End::Aborted) {
                self.reset_service();
            }
            return Outcome::End(end);
        }

        let expiry = open.expiry(config);
        if expiry <= now {
            open.endpoint.abort();
            open.transmit(now, &self.key, self.hash, outlet);
            self.reset_service();
            return Outcome::End(End::Aborted);
        }
        let timer = if blocked {
            None
        } else {
            // All that was to be sent is sent: a timer that says otherwise must not keep the thread busy.
            let timer = open.endpoint.poll_timeout(now);
            timer.map(|at| at.max(now + TICK))
        };
        Outcome::Wait {
            deadline: timer.map_or(expiry, |t| t.min(expiry)),
            again: moved >= TURN && !blocked,
            blocked,
        }
    }

    /// Resets the connection towards both, because the peer is gone or the NAT ends.
    pub(in super::super) fn abort(&mut self, now: Instant, outlet: Option<&mut Outlet>) {
        if let Stage::Open(open) = &mut self.stage
            && let Some(outlet) = outlet
        {
            open.endpoint.abort();
            open.transmit(now, &self.key, self.hash, outlet);
        }
        self.reset_service();
    }

    /// Closing the socket is a reset then, and not the end of a stream that was cut short.
    fn reset_service(&self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }
}
