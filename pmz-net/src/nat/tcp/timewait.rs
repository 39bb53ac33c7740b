//! Connections that this end closed first, remembered so that a repeated FIN is acknowledged and not reset.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::super::flow::FlowKey;

#[derive(Clone, Copy, Debug)]
struct Entry {
    seq: u32,
    ack: u32,
    until: Instant,
}

/// What to do with a segment whose connection may be in TIME-WAIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// No such connection is remembered, or a new one may take its place.
    Unknown,
    /// Say again what was said last.
    Acknowledge {
        /// Our sequence number.
        seq: u32,
        /// What is acknowledged.
        ack: u32,
    },
    /// Say nothing.
    Ignore,
}

/// The table: bounded, the oldest entry goes first.
#[derive(Debug)]
pub(in super::super) struct TimeWait {
    entries: HashMap<FlowKey, Entry>,
    order: VecDeque<(Instant, FlowKey)>,
    capacity: usize,
    keep: Duration,
}

impl TimeWait {
    pub(in super::super) fn new(capacity: usize, keep: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            capacity,
            keep,
        }
    }

    /// Remembers a connection.
    pub(in super::super) fn insert(&mut self, now: Instant, key: FlowKey, seq: u32, ack: u32) {
        self.expire(now);
        while self.order.len() >= self.capacity.max(1) {
            self.pop();
        }
        let until = now + self.keep;
        self.entries.insert(key, Entry { seq, ack, until });
        self.order.push_back((until, key));
    }

    /// Judges a segment of this connection by its flags and sequence number.
    pub(in super::super) fn segment(
        &mut self,
        now: Instant,
        key: &FlowKey,
        syn: bool,
        rst: bool,
        segment_seq: u32,
    ) -> Verdict {
        let Some(entry) = self.entries.get(key).copied() else {
            return Verdict::Unknown;
        };
        if entry.until <= now {
            self.entries.remove(key);
            return Verdict::Unknown;
        }
        if rst {
            // An old reset must not end TIME-WAIT (RFC 1337), but one that answers our acknowledgement
            // comes from a client that wants the ports for a new connection.
            if segment_seq == entry.ack {
                self.entries.remove(key);
            }
            return Verdict::Ignore;
        }
        // RFC 9293, 3.6.1: a SYN with a higher sequence number may open the connection anew.
        if syn && segment_seq.wrapping_sub(entry.ack).cast_signed() > 0 {
            self.entries.remove(key);
            return Verdict::Unknown;
        }
        Verdict::Acknowledge {
            seq: entry.seq,
            ack: entry.ack,
        }
    }

    /// Forgets all connections of a peer that is gone.
    pub(in super::super) fn forget(&mut self, peer: crate::tunnel::PeerId) {
        self.entries.retain(|key, _| key.peer != peer);
        self.order.retain(|(_, key)| key.peer != peer);
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((until, key)) = self.order.pop_front() else {
            return;
        };
        // The same addresses and ports may have come and gone again since.
        if self.entries.get(&key).is_some_and(|e| e.until == until) {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::super::flow::Protocol;
    use super::*;
    use crate::tunnel::PeerId;

    const KEEP: Duration = Duration::from_secs(30);

    fn key(peer: u32, port: u16) -> FlowKey {
        FlowKey {
            peer: PeerId(peer),
            protocol: Protocol::Tcp,
            client: SocketAddr::from(([10, 1, 0, 2], port)),
            service: SocketAddr::from(([10, 96, 0, 1], 80)),
        }
    }

    #[test]
    fn a_repeated_fin_is_acknowledged_until_the_time_is_over() {
        let (mut table, now) = (TimeWait::new(8, KEEP), Instant::now());
        table.insert(now, key(1, 1), 100, 200);
        let fin = |table: &mut TimeWait, at| table.segment(at, &key(1, 1), false, false, 199);
        let acknowledge = Verdict::Acknowledge { seq: 100, ack: 200 };
        assert_eq!(fin(&mut table, now + KEEP / 2), acknowledge);
        assert_eq!(fin(&mut table, now + KEEP), Verdict::Unknown);
    }

    #[test]
    fn a_later_syn_opens_anew_and_an_old_one_does_not() {
        let (mut table, now) = (TimeWait::new(8, KEEP), Instant::now());
        table.insert(now, key(1, 1), 100, 200);
        let syn = |table: &mut TimeWait, seq| table.segment(now, &key(1, 1), true, false, seq);
        assert!(matches!(syn(&mut table, 150), Verdict::Acknowledge { .. }));
        assert_eq!(syn(&mut table, 201), Verdict::Unknown);
        assert_eq!(syn(&mut table, 150), Verdict::Unknown, "it is forgotten");
    }

    #[test]
    fn only_the_reset_that_answers_us_ends_it() {
        let (mut table, now) = (TimeWait::new(8, KEEP), Instant::now());
        table.insert(now, key(1, 1), 100, 200);
        for seq in [199, 200] {
            let verdict = table.segment(now, &key(1, 1), false, true, seq);
            assert_eq!(verdict, Verdict::Ignore);
        }
        let verdict = table.segment(now, &key(1, 1), false, false, 199);
        assert_eq!(verdict, Verdict::Unknown);
    }

    #[test]
    fn the_oldest_goes_first_and_a_peer_is_forgotten_as_a_whole() {
        let (mut table, now) = (TimeWait::new(2, KEEP), Instant::now());
        for port in 1..=3 {
            table.insert(now, key(port.into(), port), 1, 2);
        }
        let known = |table: &mut TimeWait, port: u16| {
            let verdict = table.segment(now, &key(port.into(), port), false, false, 1);
            verdict != Verdict::Unknown
        };
        assert!(!known(&mut table, 1));
        assert!(known(&mut table, 2) && known(&mut table, 3));
        table.forget(PeerId(2));
        assert!(!known(&mut table, 2));
        assert!(known(&mut table, 3));
    }
}
