//! One direction of a link. Sans-IO: packets and time come in as arguments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::spec::LinkSpec;

/// What is under way at most: a second at 1 Gbit/s, and still little memory.
const MAX_BYTES: usize = 128 << 20;

const IPPROTO_UDP: u8 = 17;

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipeCounters {
    /// Came out at the other end.
    pub delivered: u64,
    /// Lost by chance, or as UDP that is blocked.
    pub lost: u64,
    /// Found the queue full.
    pub dropped: u64,
}

/// One direction of a link.
#[derive(Debug)]
pub(super) struct Pipe {
    spec: LinkSpec,
    rng: StdRng,
    /// When the last packet that was let in has been sent at the link's rate.
    busy_until: Option<Instant>,
    /// When the last packet that keeps the order arrives.
    last_arrival: Option<Instant>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    bytes: usize,
    next_number: u64,
    counters: PipeCounters,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    arrival: Instant,
    /// Those that arrive at the same time keep their order.
    number: u64,
    packet: Vec<u8>,
}

impl Pipe {
    pub(super) fn new(spec: LinkSpec, seed: u64) -> Self {
        Self {
            spec,
            rng: StdRng::seed_from_u64(seed),
            busy_until: None,
            last_arrival: None,
            under_way: BinaryHeap::new(),
            bytes: 0,
            next_number: 0,
            counters: PipeCounters::default(),
        }
    }

    /// Packets that are under way arrive as it was.
    pub(super) fn set_spec(&mut self, spec: LinkSpec) {
        self.spec = spec;
    }

    pub(super) fn counters(&self) -> PipeCounters {
        self.counters
    }

    /// A packet goes in. Gives it back if it gets no further.
    pub(super) fn handle_packet(&mut self, now: Instant, packet: Vec<u8>) -> Option<Vec<u8>> {
        // Each packet takes the same numbers from the generator, so that one property of a link doesn't
        // change which packets another one hits.
        let (loss, reorder, jitter) = (
            self.rng.random::<f64>(),
            self.rng.random::<f64>(),
            self.rng.random::<f64>(),
        );
        if loss < self.spec.loss || (self.spec.block_udp && is_udp(&packet)) {
            self.counters.lost += 1;
            return Some(packet);
        }
        let Some(sent) = self.sent(now, packet.len()) else {
            self.counters.dropped += 1;
            return Some(packet);
        };
        let arrival = if reorder < self.spec.reorder {
            sent
        } else {
            let jitter = self.spec.jitter.mul_f64(2.0 * jitter);
            let delay = (self.spec.delay + jitter).saturating_sub(self.spec.jitter);
            let arrival = self
                .last_arrival
                .map_or(sent + delay, |last| last.max(sent + delay));
            self.last_arrival = Some(arrival);
            arrival
        };
        self.bytes += packet.len();
        let number = self.next_number;
        self.next_number += 1;
        self.under_way.push(Reverse(UnderWay {
            arrival,
            number,
            packet,
        }));
        None
    }

    /// When a packet that comes now has been sent; none if there is no room for it.
    fn sent(&mut self, now: Instant, len: usize) -> Option<Instant> {
        if self.bytes + len > MAX_BYTES {
            return None;
        }
        let Some(rate) = self.spec.rate else {
            return Some(now);
        };
        let turn = self.busy_until.map_or(now, |busy| busy.max(now));
        if turn - now > self.spec.queue {
            return None;
        }
        let nanoseconds = len as u128 * 8 * 1_000_000_000 / u128::from(rate.max(1));
        let sent = turn + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.busy_until = Some(sent);
        Some(sent)
    }

    /// The next packet that has arrived by now.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.poll_timeout()? > now {
            return None;
        }
        let Reverse(UnderWay { packet, .. }) = self.under_way.pop()?;
        self.bytes -= packet.len();
        self.counters.delivered += 1;
        Some(packet)
    }

    /// When the next packet arrives.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(next)| next.arrival)
    }
}

/// Whether it is UDP over IPv4, or over IPv6 without extension headers.
fn is_udp(packet: &[u8]) -> bool {
    let protocol = match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9),
        Some(6) => packet.get(6),
        _ => None,
    };
    protocol == Some(&IPPROTO_UDP)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn pipe(spec: &str) -> Pipe {
        Pipe::new(spec.parse().unwrap(), 1)
    }

    /// A packet with a number in it.
    fn packet(number: u32, len: usize) -> Vec<u8> {
        let mut packet = vec![0; len];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        packet
    }

    /// Runs the clock until nothing is under way; gives number and arrival (since `start`) of each packet.
    fn drain(pipe: &mut Pipe, start: Instant) -> Vec<(u32, Duration)> {
        let mut arrived = Vec::new();
        while let Some(now) = pipe.poll_timeout() {
            while let Some(packet) = pipe.poll_transmit(now) {
                arrived.push((
                    u32::from_be_bytes(*packet.first_chunk().unwrap()),
                    now - start,
                ));
            }
        }
        arrived
    }

    #[test]
    fn a_packet_arrives_after_the_delay_and_not_before() {
        let mut pipe = pipe("delay=20ms");
        let start = Instant::now();
        pipe.handle_packet(start, packet(1, 100));
        assert_eq!(pipe.poll_timeout(), Some(start + 20 * MS));
        assert_eq!(
            pipe.poll_transmit(start + 20 * MS - Duration::from_nanos(1)),
            None
        );
        assert!(pipe.poll_transmit(start + 20 * MS).is_some());
        assert_eq!(pipe.poll_timeout(), None);
    }

    #[test]
    fn jitter_spreads_the_delay_within_its_bounds_and_keeps_the_order() {
        let mut pipe = pipe("delay=20ms,jitter=5ms");
        let start = Instant::now();
        for i in 0..1000u32 {
            pipe.handle_packet(start + i * 20 * MS, packet(i, 100));
        }
        let delays: Vec<_> = drain(&mut pipe, start)
            .iter()
            .map(|(i, at)| *at - *i * 20 * MS)
            .collect();
        let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
        assert!((15 * MS..16 * MS).contains(least), "{least:?}");
        assert!((24 * MS..=25 * MS).contains(most), "{most:?}");

        for i in 0..1000 {
            pipe.handle_packet(start + i * MS / 10, packet(i, 100));
        }
        assert!(drain(&mut pipe, start).is_sorted_by_key(|(i, _)| *i));
    }

    #[test]
    fn the_rate_spaces_packets_and_the_queue_bounds_their_wait() {
        // 1250 bytes take 1 ms each; one is being sent and ten may wait up to 10 ms.
        let mut pipe = pipe("rate=10mbit,queue=10ms,delay=5ms");
        let start = Instant::now();
        for i in 0..20 {
            pipe.handle_packet(start, packet(i, 1250));
        }
        let arrived = drain(&mut pipe, start);
        let expected: Vec<_> = (0..11).map(|i| (i, (i + 1 + 5) * MS)).collect();
        assert_eq!(arrived, expected);
        assert_eq!(
            pipe.counters(),
            PipeCounters {
                delivered: 11,
                lost: 0,
                dropped: 9
            }
        );
    }

    #[test]
    fn a_link_that_was_idle_has_saved_nothing_up() {
        let mut pipe = pipe("rate=10mbit");
        let start = Instant::now();
        pipe.handle_packet(start, packet(0, 1250));
        pipe.handle_packet(start + 100 * MS, packet(1, 1250));
        pipe.handle_packet(start + 100 * MS, packet(2, 1250));
        assert_eq!(
            drain(&mut pipe, start),
            [(0, MS), (1, 101 * MS), (2, 102 * MS)]
        );
    }

    #[test]
    fn the_share_that_is_lost_is_the_one_that_was_asked_for() {
        let mut pipe = pipe("loss=1%");
        let start = Instant::now();
        for i in 0..100_000 {
            pipe.handle_packet(start, packet(i, 64));
        }
        let lost = pipe.counters().lost;
        assert!((900..1100).contains(&lost), "{lost}");
        assert_eq!(drain(&mut pipe, start).len() as u64, 100_000 - lost);
    }

    #[test]
    fn the_same_seed_loses_the_same_packets() {
        let run = |seed| {
            let mut pipe = Pipe::new("loss=10%".parse().unwrap(), seed);
            let start = Instant::now();
            (0..1000).for_each(|i| drop(pipe.handle_packet(start, packet(i, 64))));
            drain(&mut pipe, start)
                .into_iter()
                .map(|(i, _)| i)
                .collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn reordered_packets_overtake_those_under_way() {
        let mut pipe = pipe("delay=20ms,reorder=10%");
        let start = Instant::now();
        for i in 0..1000 {
            pipe.handle_packet(start + i * MS, packet(i, 64));
        }
        let arrived = drain(&mut pipe, start);
        assert_eq!(arrived.len(), 1000);
        let early = arrived.iter().filter(|(i, at)| *at == *i * MS).count();
        assert!((50..150).contains(&early), "{early}");
        assert!(!arrived.is_sorted_by_key(|(i, _)| *i));
    }

    #[test]
    fn blocked_udp_is_lost_and_nothing_else() {
        let mut pipe = pipe("udp=off");
        let now = Instant::now();
        let v4 = |protocol| {
            let mut packet = vec![0; 40];
            (packet[0], packet[9]) = (0x45, protocol);
            packet
        };
        let mut v6 = vec![0; 60];
        (v6[0], v6[6]) = (0x60, 17);
        assert!(pipe.handle_packet(now, v4(17)).is_some());
        assert!(pipe.handle_packet(now, v6).is_some());
        assert!(pipe.handle_packet(now, v4(6)).is_none());
        assert!(pipe.handle_packet(now, vec![]).is_none());
    }

    #[test]
    fn what_is_under_way_is_bounded_without_a_rate_too() {
        let mut pipe = pipe("delay=1000s");
        let now = Instant::now();
        let count = MAX_BYTES / 60_000;
        for _ in 0..count {
            assert!(pipe.handle_packet(now, vec![0; 60_000]).is_none());
        }
        assert!(pipe.handle_packet(now, vec![0; 60_000]).is_some());
        assert_eq!(pipe.counters().dropped, 1);
    }
}
