//! One TCP connection: the dial, then an endpoint and a socket joined, with back-pressure both ways.

use std::time::{Duration, Instant};

use smoltcp::wire::TcpControl;
use socket2::Socket;

use super::super::config::NatConfig;
use super::super::flow::FlowKey;
use super::super::outlet::Outlet;
use super::super::sockets::{Failure, send};
use super::joint::Joint;
use super::opening::Opening;
use super::own::OwnEndpoint;
use super::ring::RingPool;
use super::smol::{Setup, SmolEndpoint};
use super::{BadSegment, Challenge, End, Endpoint};
use crate::tcp;

/// Bytes that a flow may move in one turn, so that others get theirs.
const TURN: usize = 1 << 20;
/// Received bytes that come in such pieces go to the service without being kept in between; for smaller
/// ones a copy costs less than a system call each.
const DIRECT: usize = 8 << 10;

enum Stage {
    Dialing { opening: Opening, until: Instant },
    Open(Box<Joint>),
}

/// Where an endpoint's memory comes from.
pub(in super::super) enum Memory<'a> {
    /// For smoltcp: two rings of this size.
    Rings(&'a RingPool, usize),
    Blocks(&'a tcp::Account),
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
    pub(in super::super) fn new(
        key: FlowKey,
        socket: Socket,
        opening: Opening,
        until: Instant,
    ) -> Self {
        Self {
            key,
            hash: key.flow_hash(),
            socket,
            stage: Stage::Dialing { opening, until },
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

    pub(in super::super) fn opening(&self) -> Option<&Opening> {
        match &self.stage {
            Stage::Dialing { opening, .. } => Some(opening),
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
    pub(in super::super) fn retry(&mut self, new: Opening) {
        if let Stage::Dialing { opening, .. } = &mut self.stage {
            *opening = new;
        }
    }

    /// What its endpoint counted since the last call.
    pub(in super::super) fn take_counters(&mut self) -> tcp::Counters {
        match &mut self.stage {
            Stage::Dialing { .. } => tcp::Counters::default(),
            Stage::Open(open) => open.endpoint.take_counters(),
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

    /// The service has taken the connection: makes the endpoint, out of this memory. False where that is
    /// impossible.
    pub(in super::super) fn open(
        &mut self,
        now: Instant,
        memory: Memory<'_>,
        config: &NatConfig,
        outlet: &Outlet,
    ) -> bool {
        let Stage::Dialing { opening, .. } = &self.stage else {
            return false;
        };
        let (isn, syn) = (opening.isn(), opening.syn);
        let way = outlet.way(self.key.peer);
        let (ring_bytes, endpoint) = match memory {
            Memory::Rings(pool, size) => {
                let setup = Setup {
                    client: self.key.client,
                    service: self.key.service,
                    syn,
                    mtu: way.mtu,
                    receive: pool.take(size),
                    send: pool.take(size),
                    seed: rand::random(),
                    keep_alive: config.tcp_idle / 2,
                };
                let endpoint = SmolEndpoint::open(now, setup);
                (2 * size, endpoint.map(|e| Box::new(e) as Box<dyn Endpoint>))
            }
            Memory::Blocks(account) => {
                let setup = tcp::Setup {
                    local: self.key.service,
                    remote: self.key.client,
                    mtu: way.mtu,
                    account: account.clone(),
                    max_buffer: config.max_flow_bytes as u64,
                    congestion: config.congestion,
                    path: match way.lossless {
                        true => tcp::Path::Stream,
                        false => tcp::Path::Datagrams,
                    },
                    seed: rand::random(),
                    keep_alive: config.tcp_idle / 2,
                };
                let endpoint = OwnEndpoint::open(now, setup, &syn);
                (0, endpoint.map(|e| Box::new(e) as Box<dyn Endpoint>))
            }
        };
        let Some(endpoint) = endpoint else {
            return false;
        };
        self.stage = Stage::Open(Box::new(Joint {
            endpoint,
            isn,
            ring_bytes,
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
        let (socket, writable) = (&self.socket, &mut self.writable);
        let mut direct = |bytes: &[u8]| {
            if !*writable || bytes.len() < DIRECT {
                return 0;
            }
            // What is wrong with the socket shows when the rest is sent.
            let sent = send(socket, bytes).unwrap_or(0);
            *writable = sent == bytes.len();
            sent
        };
        let reply = outlet.packet();
        let answer = open
            .endpoint
            .handle_segment(now, packet, reply, &mut direct)?;
        // A short write may also come of an error, of which no event tells again.
        self.writable |= self.failed;
        if let Some(segment) = answer {
            let mss = open.endpoint.segment_size();
            outlet.segment(&self.key, self.hash, segment, mss, None);
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

        open.endpoint.adapt(outlet.way(self.key.peer));
        // First what was received: that opens the window which the next segment announces.
        open.forward(now, &self.socket, &mut self.writable);
        let mut moved = 0;
        let blocked = loop {
            let read = if open.service_closed {
                0
            } else {
                open.fetch(now, &self.socket, &mut self.readable, self.hangup)
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
            timer.map(|at| at.max(now + open.endpoint.resolution()))
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
