//! A small simulation: senders, one bottleneck, simulated time, the same in every run.

mod flow;
mod path;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

pub(super) use self::flow::Flow;
use self::flow::Sent;
use self::path::Bottleneck;
pub(super) use self::path::{Path, Policer};
use super::Controller;

/// Payload of a full segment on Ethernet with timestamps.
pub(super) const SEGMENT: u64 = 1_448;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival {
        flow: usize,
        number: u64,
        marked: bool,
    },
    Wake {
        flow: usize,
    },
    Timer {
        flow: usize,
    },
}

#[derive(Debug)]
pub(super) struct Network<C> {
    pub(super) flows: Vec<Flow<C>>,
    bottleneck: Bottleneck,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    now: u64,
    serial: u64,
    epoch: Instant,
}

impl<C: Controller> Network<C> {
    pub(super) fn new(path: Path, seed: u64) -> Self {
        Self {
            flows: Vec::new(),
            bottleneck: Bottleneck::new(path, seed),
            events: BinaryHeap::new(),
            now: 0,
            serial: 0,
            epoch: Instant::now(),
        }
    }

    /// A flow that always has something to send, beginning now.
    pub(super) fn add(&mut self, controller: C) -> &mut Flow<C> {
        self.add_with(controller, SEGMENT)
    }

    pub(super) fn add_with(&mut self, controller: C, segment: u64) -> &mut Flow<C> {
        let flow = self.flows.len();
        self.flows
            .push(Flow::new(controller, segment, self.epoch, self.now));
        self.schedule(self.now, Event::Wake { flow });
        &mut self.flows[flow]
    }

    pub(super) fn path(&mut self) -> &mut Path {
        &mut self.bottleneck.path
    }

    /// The application of a flow that has a limit writes.
    pub(super) fn write(&mut self, flow: usize, bytes: u64) {
        *self.flows[flow].available.get_or_insert(0) += bytes;
        self.schedule(self.now, Event::Wake { flow });
    }

    /// All flows look whether they have something to send.
    pub(super) fn wake(&mut self) {
        for flow in 0..self.flows.len() {
            self.schedule(self.now, Event::Wake { flow });
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time.as_nanos() as u64;
        let mut numbers = Vec::new();
        while let Some(&Reverse((at, _, event))) = self.events.peek()
            && at <= end
        {
            self.events.pop();
            self.now = at;
            match event {
                Event::Arrival {
                    flow,
                    number,
                    marked,
                } => {
                    numbers.clear();
                    numbers.push((number, marked));
                    // What comes at the same moment is one acknowledgement.
                    while let Some(&Reverse((
                        then,
                        _,
                        Event::Arrival {
                            flow: other,
                            number,
                            marked,
                        },
                    ))) = self.events.peek()
                        && then == at
                        && other == flow
                    {
                        self.events.pop();
                        numbers.push((number, marked));
                    }
                    self.flows[flow].acknowledge(at, &numbers);
                    self.send(flow);
                }
                Event::Wake { flow } => self.send(flow),
                Event::Timer { flow } => match self.flows[flow].deadline() {
                    Some(deadline) if deadline <= at => {
                        self.flows[flow].expire(at);
                        self.flows[flow].timer = false;
                        self.send(flow);
                    }
                    Some(deadline) => self.schedule(deadline, event),
                    None => self.flows[flow].timer = false,
                },
            }
        }
        self.now = end;
    }

    fn send(&mut self, flow: usize) {
        let mut out = Vec::new();
        let sender = &mut self.flows[flow];
        let wake = sender.send(self.now, &mut out);
        for Sent { number, bytes } in out {
            if let Some((at, marked)) = self.bottleneck.pass(self.now, bytes) {
                self.schedule(
                    at,
                    Event::Arrival {
                        flow,
                        number,
                        marked,
                    },
                );
            }
        }
        if let Some(at) = wake
            && self.flows[flow].wakes_at != Some(at)
        {
            self.flows[flow].wakes_at = Some(at);
            self.schedule(at, Event::Wake { flow });
        }
        if !self.flows[flow].timer
            && let Some(deadline) = self.flows[flow].deadline()
        {
            self.flows[flow].timer = true;
            self.schedule(deadline, Event::Timer { flow });
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.events.push(Reverse((at, self.serial, event)));
    }

    /// Bytes that every flow delivers in `time`.
    pub(super) fn delivered_in(&mut self, time: Duration) -> Vec<u64> {
        self.bottleneck.forget();
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.delivered).collect();
        self.run(time);
        self.flows
            .iter()
            .zip(before)
            .map(|(flow, before)| flow.delivered - before)
            .collect()
    }

    /// How much of the bottleneck's rate all flows together use in `time`.
    pub(super) fn utilisation(&mut self, time: Duration) -> f64 {
        let delivered: u64 = self.delivered_in(time).iter().sum();
        delivered as f64 / (self.bottleneck.path.rate as f64 * time.as_secs_f64())
    }

    /// Packets that found the queue full, since the last measurement began.
    pub(super) fn overflows(&self) -> u64 {
        self.bottleneck.overflows
    }

    /// The queue as packets found it on average, and at most, since the last measurement began.
    pub(super) fn queue(&self) -> (u64, u64) {
        (
            self.bottleneck.average_queue(),
            self.bottleneck.largest_queue,
        )
    }
}

/// Jain's fairness index: 1 where all have the same, 1/n where one has all.
pub(super) fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let squares: f64 = shares.iter().map(|&share| (share as f64).powi(2)).sum();
    sum * sum / (shares.len() as f64 * squares)
}
