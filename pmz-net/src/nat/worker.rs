//! One pass of the NAT's work: the kernel's events, a batch from the inbox, the timers, then a turn for each
//! flow that has something to do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::event::Event;
use mio::{Registry, Token};
use std::os::fd::{AsRawFd, RawFd};

use super::alarm::Alarm;
use super::counters::{add, bump};
use super::echo::EchoFlow;
use super::flow::{FlowId, FlowKey, FlowTable};
use super::outlet::Outlet;
use super::peers::Peers;
use super::ports::SourcePorts;
use super::queue::{Batch, Queue};
use super::sockets::{Failure, Unreachable};
use super::tcp::{End, Memory, Outcome, RingPool, TcpFlow, TimeWait, ring_size};
use super::timers::Timers;
use super::udp::{DatagramOutcome, UdpFlow};
use super::{Egress, NatConfig, NatCounters, TcpStack};
use crate::packet::Reassembler;
use crate::tcp::Stock;

/// The token of the waker; flows count from 0.
pub(super) const WAKE: Token = Token(usize::MAX);
/// The token of the alarm.
pub(super) const ALARM: Token = Token(usize::MAX - 1);

pub(super) enum Kind {
    Tcp(Box<TcpFlow>),
    Udp(UdpFlow),
    Echo(EchoFlow),
}

pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) kind: Kind,
    /// In the ready queue.
    pub(super) queued: bool,
    /// In its peer's list of flows that wait for room.
    pub(super) blocked: bool,
    pub(super) deadline: Instant,
    pub(super) armed: Option<Instant>,
}

impl Flow {
    pub(super) fn fd(&self) -> RawFd {
        match &self.kind {
            Kind::Tcp(tcp) => tcp.socket().as_raw_fd(),
            Kind::Udp(udp) => udp.socket().as_raw_fd(),
            Kind::Echo(echo) => echo.socket().as_raw_fd(),
        }
    }

    /// When a datagram flow was last active.
    pub(super) fn datagram_active(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Tcp(_) => None,
            Kind::Udp(udp) => Some(udp.active()),
            Kind::Echo(echo) => Some(echo.active()),
        }
    }
}

pub(super) struct Worker {
    pub(super) config: NatConfig,
    pub(super) registry: Registry,
    pub(super) waiting: Arc<Queue>,
    pub(super) counters: Arc<NatCounters>,
    pub(super) outlet: Outlet,
    pub(super) flows: FlowTable<Flow>,
    pub(super) peers: Peers,
    pub(super) ports: SourcePorts,
    pub(super) time_wait: TimeWait,
    pub(super) reassembler: Reassembler,
    timers: Timers,
    ready: VecDeque<FlowId>,
    batch: Batch,
    alarm: Alarm,
    rings: RingPool,
    /// Bytes of the rings that are out.
    pub(super) ring_bytes: usize,
    stock: Stock,
    pub(super) now: Instant,
}

impl Worker {
    pub(super) fn new(
        config: NatConfig,
        registry: Registry,
        alarm: Alarm,
        waiting: Arc<Queue>,
        counters: Arc<NatCounters>,
        egress: Box<dyn Egress>,
    ) -> Self {
        Self {
            stock: Stock::new(config.buffer_bytes),
            outlet: Outlet::new(egress, Arc::clone(&counters)),
            time_wait: TimeWait::new(config.max_time_wait, config.time_wait),
            config,
            registry,
            waiting,
            counters,
            reassembler: Reassembler::new(),
            flows: FlowTable::new(),
            peers: Peers::default(),
            ports: SourcePorts::of_namespace(),
            timers: Timers::default(),
            ready: VecDeque::new(),
            batch: Batch::default(),
            alarm,
            rings: RingPool::default(),
            ring_bytes: 0,
            now: Instant::now(),
        }
    }

    /// Does what there is to do, once.
    pub(super) fn pass<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        self.now = Instant::now();
        for event in events {
            if event.token() == ALARM {
                self.alarm.rang();
            } else if event.token() != WAKE {
                self.event(event);
            }
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.waiting.swap(&mut batch);
        for peer in batch.gone.drain(..) {
            self.forget(peer);
        }
        for (peer, mut frame) in batch.frames.drain(..) {
            bump(&self.counters.frames_in);
            add(&self.counters.bytes_in, frame.len() as u64);
            self.inbound(peer, &mut frame);
        }
        for peer in batch.room.drain() {
            self.room(peer);
        }
        self.batch = batch;
        while let Some((at, id)) = self.timers.due(self.now) {
            self.timer(at, id);
        }
        for _ in 0..self.ready.len() {
            if let Some(id) = self.ready.pop_front() {
                self.turn(id);
            }
        }
        let flows = &self.flows;
        self.timers.sweep(flows.len(), |id, at| {
            flows.get(id).is_some_and(|flow| flow.armed == Some(at))
        });
        self.outlet.flush();
        self.count_memory();
    }

    /// Whether nothing is left to do now. Then whoever has something new must wake the thread, and the alarm is
    /// set for what is due later.
    pub(super) fn rests(&mut self) -> bool {
        let rests = self.ready.is_empty() && self.waiting.may_sleep();
        if rests {
            self.alarm.set(self.timers.next());
        }
        rests
    }

    fn event(&mut self, event: &Event) {
        let id = FlowId::of_token(event.token());
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        match &mut flow.kind {
            Kind::Tcp(tcp) => tcp.event(event),
            Kind::Udp(udp) => udp.event(event),
            Kind::Echo(echo) => echo.event(event),
        }
        self.queue(id);
    }

    /// Gives a flow a turn, once.
    pub(super) fn queue(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(id)
            && !flow.queued
        {
            flow.queued = true;
            self.ready.push_back(id);
        }
    }

    fn timer(&mut self, at: Instant, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        // A later entry than the armed one is left over from before it was armed earlier.
        if flow.armed != Some(at) {
            return;
        }
        flow.armed = None;
        if flow.deadline <= self.now {
            self.queue(id);
        } else {
            self.timers.arm(id, flow.deadline, &mut flow.armed);
        }
    }

    /// Copies what the memory's stock counted.
    fn count_memory(&self) {
        let held = (self.ring_bytes + self.stock.used()) as u64;
        let (refused, refused_to_peers) = self.stock.refused();
        let counters = &self.counters;
        counters.buffer_bytes.store(held, Ordering::Relaxed);
        counters.buffer_refusals.store(refused, Ordering::Relaxed);
        counters
            .peer_buffer_refusals
            .store(refused_to_peers, Ordering::Relaxed);
    }

    /// Copies what the reassembler counted.
    pub(super) fn count_fragments(&self) {
        let counted = self.reassembler.counters();
        let failed = counted.timed_out + counted.evicted + counted.damaged;
        self.counters
            .reassembled
            .store(counted.completed, Ordering::Relaxed);
        self.counters
            .reassembly_failures
            .store(failed, Ordering::Relaxed);
    }

    pub(super) fn turn(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        flow.queued = false;
        if let Kind::Tcp(tcp) = &mut flow.kind
            && tcp.is_dialing()
            && !self.dial(id)
        {
            return;
        }
        let Some(flow) = self.flows.get_mut(id) else {
            return;
        };
        let key = flow.key;
        let outcome = match &mut flow.kind {
            Kind::Tcp(tcp) => {
                let outcome = tcp.turn(self.now, &self.config, &mut self.outlet);
                // Some flows last for days.
                self.counters.add_tcp(tcp.take_counters());
                match outcome {
                    Outcome::Wait {
                        deadline,
                        again,
                        blocked,
                    } => {
                        flow.deadline = deadline;
                        match (blocked, again) {
                            (true, _) => DatagramOutcome::Blocked,
                            (false, true) => DatagramOutcome::Again,
                            (false, false) => DatagramOutcome::Idle,
                        }
                    }
                    Outcome::End(end) => {
                        if let End::TimeWait { seq, ack } = end {
                            self.time_wait.insert(self.now, key, seq, ack);
                        }
                        DatagramOutcome::End
                    }
                }
            }
            Kind::Udp(udp) => {
                let outcome = udp.turn(self.now, &mut self.outlet);
                flow.deadline = udp.expiry(&self.config);
                outcome
            }
            Kind::Echo(echo) => {
                let outcome = echo.turn(self.now, &mut self.outlet);
                flow.deadline = echo.active() + self.config.icmp_idle;
                outcome
            }
        };
        let expired = flow.datagram_active().is_some() && flow.deadline <= self.now;
        if expired {
            bump(&self.counters.expired);
        }
        if expired || outcome == DatagramOutcome::End {
            self.remove(id, &key);
            return;
        }
        self.timers.arm(id, flow.deadline, &mut flow.armed);
        match outcome {
            DatagramOutcome::Again => self.queue(id),
            DatagramOutcome::Blocked => self.block(key, id),
            DatagramOutcome::Idle | DatagramOutcome::End => {}
        }
    }

    /// Looks how a dial went. False when the flow is not open after it.
    fn dial(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.flows.get_mut(id) else {
            return false;
        };
        let key = flow.key;
        let Kind::Tcp(tcp) = &mut flow.kind else {
            return false;
        };
        let overdue = tcp.dial_deadline().is_some_and(|until| until <= self.now);
        let failure = match tcp.dial_result() {
            None if overdue => Failure::Unreachable(Unreachable::Host),
            None => {
                self.timers.arm(id, flow.deadline, &mut flow.armed);
                return false;
            }
            Some(Err(failure)) => failure,
            Some(Ok(())) => match self.open(id, key) {
                Ok(()) => return true,
                Err(failure) => failure,
            },
        };
        if let Some(mut flow) = self.remove(id, &key)
            && let Kind::Tcp(tcp) = &mut flow.kind
        {
            tcp.abort(self.now, None);
            if let Some(opening) = tcp.opening() {
                let (isn, quote) = (opening.isn(), &opening.quote[..]);
                self.dial_failed(&key, failure, isn, quote);
            }
        }
        false
    }

    /// The service has taken a connection: an endpoint is made for the client's side of it.
    fn open(&mut self, id: FlowId, key: FlowKey) -> Result<(), Failure> {
        let usage = self.peers.usage(key.peer);
        let ring = match self.config.tcp {
            TcpStack::Own => 0,
            TcpStack::Smoltcp => ring_size(
                self.config.peer_buffer_bytes,
                usage.ring_bytes,
                usage.tcp_open,
                self.config.max_flows_per_peer,
                self.config.max_ring_bytes,
            )
            .ok_or_else(|| {
                bump(&self.counters.buffer_limit_hits);
                Failure::Refused
            })?,
        };
        let memory = match self.config.tcp {
            TcpStack::Own => {
                let limit = self.config.peer_buffer_bytes;
                let account = &mut usage.account;
                Memory::Blocks(account.get_or_insert_with(|| self.stock.account(limit)))
            }
            TcpStack::Smoltcp => Memory::Rings(&self.rings, ring),
        };
        let Some(Flow {
            kind: Kind::Tcp(tcp),
            ..
        }) = self.flows.get_mut(id)
        else {
            return Err(Failure::Refused);
        };
        if !tcp.open(self.now, memory, &self.config, &self.outlet) {
            return Err(Failure::Refused);
        }
        usage.dials = usage.dials.saturating_sub(1);
        usage.tcp_open += 1;
        usage.ring_bytes += 2 * ring;
        self.ring_bytes += 2 * ring;
        Ok(())
    }
}
