//! What the engine keeps at each peer: its streams, where its datagrams come from, and which of them its
//! packets take.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::Via;
use super::spread::Spread;
use crate::carrier::stream::StreamQueue;

/// Where a peer's packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "endpoint", rename_all = "kebab-case")]
pub enum Direction {
    /// Nowhere yet.
    #[default]
    None,
    /// To this address by UDP.
    Udp(SocketAddr),
    /// On the streams, each flow on one.
    Stream,
}

/// The ways to one peer.
pub struct Paths {
    /// Follows the peer: its packets go back to where the newest authentic message came from, as
    /// WireGuard's roaming does it. An end that chooses for itself (the client) does not.
    follows: bool,
    /// Super-packets may travel whole on streams.
    super_packets: bool,
    /// The largest inner packet on UDP, in bytes.
    mtu: u16,
    /// The peer's own addresses in the tunnel.
    addresses: Vec<IpAddr>,
    state: RwLock<State>,
    /// There once a flow has asked for a stream.
    spread: Mutex<Option<Spread>>,
    /// Milliseconds of the coarse clock at which the peer was last heard, or was added.
    heard_ms: AtomicU64,
}

#[derive(Default)]
struct State {
    direction: Direction,
    streams: Vec<Arc<StreamQueue>>,
    /// Flows take those with lower numbers, if any.
    sent_on: Option<u16>,
}

impl State {
    /// Streams that flows may take.
    fn sending(&self) -> &[Arc<StreamQueue>] {
        let bound = self.sent_on.unwrap_or(u16::MAX);
        // They are in the order of their numbers.
        match self.streams.partition_point(|s| s.index() < bound) {
            0 => &self.streams,
            some => &self.streams[..some],
        }
    }

    /// The numbers of those.
    fn numbers(&self) -> impl Iterator<Item = u16> {
        self.sending().iter().map(|s| s.index())
    }
}

/// A peer's ways, for metrics and `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathsReport {
    /// Where packets go.
    pub direction: Direction,
    /// Open streams.
    pub streams: usize,
    /// Bytes sent and received on them.
    pub stream_bytes: (u64, u64),
    /// Packets that the queues before the streams dropped because they stood too long.
    pub dropped_sojourn: u64,
    /// Packets dropped because a queue was full.
    pub dropped_full: u64,
    /// Packets marked with congestion experienced.
    pub marked: u64,
}

impl Paths {
    /// No way yet. `addresses` are the peer's own in the tunnel, `mtu` its largest inner packet.
    pub fn new(follows: bool, super_packets: bool, mtu: u16, addresses: Vec<IpAddr>) -> Self {
        Self {
            follows,
            super_packets,
            mtu,
            addresses,
            state: RwLock::default(),
            spread: Mutex::default(),
            heard_ms: AtomicU64::new(coarse_ms()),
        }
    }

    /// Whether both ends take super-packets on streams.
    pub fn super_packets(&self) -> bool {
        self.super_packets
    }

    /// The largest inner packet on UDP, in bytes.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The peer's own address of a family.
    pub fn address(&self, ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|a| a.is_ipv4() == ipv4)
    }

    /// Where packets go now.
    pub fn direction(&self) -> Direction {
        self.state.read().direction
    }

    /// Sends packets another way from now on.
    pub fn set_direction(&self, direction: Direction) {
        self.state.write().direction = direction;
    }

    /// Adds a stream.
    pub fn add_stream(&self, stream: Arc<StreamQueue>) {
        let mut state = self.state.write();
        state.streams.retain(|s| s.index() != stream.index());
        state.streams.push(stream);
        state.streams.sort_by_key(|s| s.index());
        self.spread_over(&state);
    }

    /// Takes a stream away; packets of its flows go on another one.
    pub fn remove_stream(&self, stream: &Arc<StreamQueue>) {
        let mut state = self.state.write();
        state.streams.retain(|s| !Arc::ptr_eq(s, stream));
        self.spread_over(&state);
        if state.streams.is_empty() && self.follows && state.direction == Direction::Stream {
            state.direction = Direction::None;
        }
    }

    /// All streams.
    pub fn streams(&self) -> Vec<Arc<StreamQueue>> {
        self.state.read().streams.clone()
    }

    /// Flows from here take the first `count` streams only, while one of them is open: the others are there for what comes.
    pub fn send_on(&self, count: u16) {
        let mut state = self.state.write();
        state.sent_on = Some(count);
        self.spread_over(&state);
    }

    /// Spreads flows over the streams that there are now, once flows have asked for any.
    fn spread_over(&self, state: &State) {
        if let Some(spread) = self.spread.lock().as_mut() {
            spread.open(state.numbers(), coarse_ms() as u32);
        }
    }

    /// Flows that sent something on streams within the last second.
    pub fn stream_flows(&self) -> usize {
        let spread = self.spread.lock();
        spread
            .as_ref()
            .map_or(0, |spread| spread.active(coarse_ms() as u32))
    }

    /// The stream of a flow: the same one while the flow is active and the stream is open, unless a new one takes it.
    pub fn stream_for(&self, flow_hash: u32) -> Option<Arc<StreamQueue>> {
        let state = self.state.read();
        let mut spread = self.spread.lock();
        let spread = spread.get_or_insert_with(|| Spread::over(state.numbers()));
        // The low bits of the coarse clock will do.
        let number = spread.stream(flow_hash, coarse_ms() as u32)?;
        state.streams.iter().find(|s| s.index() == number).cloned()
    }

    /// Some stream, for a message of no flow.
    pub fn any_stream(&self) -> Option<Arc<StreamQueue>> {
        self.state.read().streams.first().cloned()
    }

    /// An authentic message came from here, the newest so far.
    pub(super) fn heard(&self, via: &Via, newest: bool) {
        self.heard_ms.store(coarse_ms(), Ordering::Relaxed);
        if newest {
            self.follow(via);
        }
    }

    /// Sends packets the way on which a message came, unless this end chooses for itself.
    pub(super) fn follow(&self, via: &Via) {
        if !self.follows {
            return;
        }
        let direction = match via {
            Via::Udp(from) => Direction::Udp(*from),
            Via::Stream(_) => Direction::Stream,
        };
        if self.direction() != direction {
            self.set_direction(direction);
        }
    }

    /// Seconds since the peer was last heard, or since it was added.
    pub fn silent_for(&self) -> Duration {
        let heard = self.heard_ms.load(Ordering::Relaxed);
        Duration::from_millis(coarse_ms().saturating_sub(heard))
    }

    /// The ways as people see them.
    pub fn report(&self) -> PathsReport {
        let state = self.state.read();
        let mut report = PathsReport {
            direction: state.direction,
            streams: state.streams.len(),
            ..PathsReport::default()
        };
        for stream in &state.streams {
            let (sent, received) = stream.bytes();
            let counters = stream.counters();
            report.stream_bytes.0 += sent;
            report.stream_bytes.1 += received;
            report.dropped_sojourn += counters.dropped_sojourn;
            report.dropped_full += counters.dropped_full;
            report.marked += counters.marked;
        }
        report
    }
}

/// Milliseconds of `CLOCK_MONOTONIC_COARSE`, which is read for each message and costs a tenth of the fine one; it goes by
/// the kernel's tick.
fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
    now.map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_take_no_stream_that_is_there_to_receive_unless_nothing_else_is_open() {
        let paths = Paths::new(false, true, 1280, Vec::new());
        paths.send_on(2);
        let streams: Vec<_> = (0..4)
            .map(|index| Arc::new(StreamQueue::new(index, 1 << 20)))
            .collect();
        for stream in streams.iter().rev() {
            paths.add_stream(stream.clone());
        }
        let taken = |flows: std::ops::Range<u32>| -> Vec<u16> {
            let mut taken: Vec<_> = flows
                .map(|flow| paths.stream_for(flow).unwrap().index())
                .collect();
            taken.sort_unstable();
            taken.dedup();
            taken
        };
        assert_eq!(taken(0..20), [0, 1]);
        assert_eq!(paths.stream_flows(), 20);
        paths.remove_stream(&streams[0]);
        assert_eq!(taken(0..20), [1]);
        paths.remove_stream(&streams[1]);
        assert_eq!(taken(0..20), [2, 3]);
    }
}
