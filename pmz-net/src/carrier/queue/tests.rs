use std::time::Duration;

use super::super::codel::{INTERVAL, TARGET};
use super::*;

#[derive(Debug, PartialEq)]
struct Item {
    flow: u32,
    number: u32,
    len: usize,
    capable: bool,
    marked: bool,
}

impl Queued for Item {
    fn len(&self) -> usize {
        self.len
    }

    fn mark_ce(&mut self) -> bool {
        self.marked |= self.capable;
        self.capable
    }
}

fn item(flow: u32, number: u32, len: usize) -> Item {
    Item {
        flow,
        number,
        len,
        capable: false,
        marked: false,
    }
}

/// A link of so many bytes a millisecond, fed by flows that fill the queue at once and again at each step.
struct Link {
    queue: FairQueue<Item>,
    now: Instant,
    bytes_per_ms: usize,
    credit: i64,
}

impl Link {
    fn new(max_bytes: usize, bytes_per_ms: usize) -> Self {
        Self {
            queue: FairQueue::new(max_bytes),
            now: Instant::now(),
            bytes_per_ms,
            credit: 0,
        }
    }

    fn push(&mut self, item: Item) {
        self.queue.push(self.now, item.flow, item);
    }

    /// A millisecond passes; returns what was sent in it.
    fn step(&mut self) -> Vec<Item> {
        self.now += Duration::from_millis(1);
        self.credit += self.bytes_per_ms as i64;
        let mut sent = Vec::new();
        // What an item takes beyond the credit the next steps pay.
        while self.credit > 0 {
            let Some(item) = self.queue.pop(self.now) else {
                self.credit = 0;
                break;
            };
            self.credit -= item.len as i64;
            sent.push(item);
        }
        sent
    }
}

#[test]
fn a_flow_keeps_its_order_and_nothing_is_lost_where_there_is_no_queue() {
    let mut queue = FairQueue::new(1 << 20);
    let now = Instant::now();
    assert!(queue.is_empty());
    for number in 0..500 {
        queue.push(now, 5, item(5, number, 1400));
    }
    assert_eq!(queue.bytes(), 500 * 1400);
    for number in 0..500 {
        assert_eq!(queue.pop(now).unwrap().number, number);
    }
    assert_eq!(queue.pop(now), None);
    assert!(queue.is_empty());
    assert_eq!(queue.counters(), QueueCounters::default());
}

#[test]
fn flows_share_by_bytes_whatever_their_packets_sizes_are() {
    let mut queue = FairQueue::new(64 << 20);
    let now = Instant::now();
    for number in 0..100 {
        queue.push(now, 1, item(1, number, 65_000));
    }
    for number in 0..5_000 {
        queue.push(now, 2, item(2, number, 1300));
    }
    for number in 0..20_000 {
        queue.push(now, 3, item(3, number, 100));
    }
    let mut sent = [0; 4];
    while sent.iter().sum::<usize>() < 3_000_000 {
        let item = queue.pop(now).unwrap();
        sent[item.flow as usize] += item.len;
    }
    for bytes in &sent[1..] {
        assert!((900_000..1_100_000).contains(bytes), "{sent:?}");
    }
}

#[test]
fn a_flow_that_has_just_begun_goes_first() {
    let mut queue = FairQueue::new(64 << 20);
    let now = Instant::now();
    for number in 0..50 {
        for flow in 0..10 {
            queue.push(now, flow, item(flow, number, 60_000));
        }
    }
    // All had their first turn.
    for _ in 0..20 {
        queue.pop(now);
    }
    queue.push(now, 77, item(77, 0, 60));
    assert_eq!(queue.pop(now).unwrap().flow, 77);
}

#[test]
fn a_flow_can_not_be_new_again_and_again() {
    let mut queue = FairQueue::new(64 << 20);
    let now = Instant::now();
    for number in 0..200 {
        for flow in 0..20 {
            queue.push(now, flow, item(flow, number, 1400));
        }
    }
    // One that has a single packet each time, and is seen without one in between.
    let mut of_others = 0;
    for number in 0..100 {
        queue.push(now, 99, item(99, number, 1400));
        while queue.pop(now).unwrap().flow != 99 {
            of_others += 1;
        }
        queue.pop(now);
    }
    assert!(of_others > 1500, "{of_others}");
}

#[test]
fn the_bound_holds_and_the_fattest_flow_pays() {
    let max = 200_000;
    let mut queue = FairQueue::new(max);
    let now = Instant::now();
    for number in 0..10 {
        queue.push(now, 1, item(1, number, 1000));
    }
    for number in 0..1000 {
        queue.push(now, 2, item(2, number, 5000));
        assert!(queue.bytes() <= max);
    }
    let dropped = queue.counters().dropped_full;
    assert_eq!(dropped, 1000 - 38);
    let mut left: Vec<Item> = std::iter::from_fn(|| queue.pop(now)).collect();
    left.retain(|item| item.flow == 1);
    assert_eq!(left.len(), 10);
    assert_eq!(queue.counters().dropped_sojourn, 0);
}

#[test]
fn items_without_bytes_are_bounded_too() {
    let mut queue = FairQueue::new(MAX_FRAME);
    let now = Instant::now();
    for number in 0..MAX_FRAME as u32 + 1000 {
        queue.push(now, 1, item(1, number, 0));
    }
    assert_eq!(queue.counters().dropped_full, 1000);
    assert!(!queue.is_empty());
}

/// A sender as TCP Reno is one: a window, halved at most once a round trip where something was lost or marked.
struct Reno {
    window: f64,
    in_flight: u32,
    next: u32,
    expected: u32,
    hold_until: u32,
    /// What has arrived, with the millisecond at which the sender hears of it.
    acks: VecDeque<(u32, Item)>,
}

impl Reno {
    const ROUND_TRIP: u32 = 40;

    fn run(link: &mut Link, milliseconds: u32, capable: bool) -> (usize, Duration) {
        let mut sender = Self {
            window: 1000.0,
            in_flight: 0,
            next: 0,
            expected: 0,
            hold_until: 0,
            acks: VecDeque::new(),
        };
        let mut sent_at = std::collections::HashMap::new();
        let (mut bytes, mut sojourn, mut items) = (0, 0, 0);
        for ms in 0..milliseconds {
            sender.hear(ms);
            while f64::from(sender.in_flight) < sender.window {
                let mut item = item(1, sender.next, 1400);
                item.capable = capable;
                sent_at.insert(sender.next, ms);
                link.push(item);
                sender.next += 1;
                sender.in_flight += 1;
            }
            for item in link.step() {
                if ms > milliseconds / 2 {
                    bytes += item.len;
                    items += 1;
                    sojourn += ms - sent_at[&item.number];
                }
                sender.acks.push_back((ms + Self::ROUND_TRIP, item));
            }
        }
        (bytes, Duration::from_millis(u64::from(sojourn / items)))
    }

    fn hear(&mut self, ms: u32) {
        while self.acks.front().is_some_and(|(due, _)| *due <= ms) {
            let Some((_, item)) = self.acks.pop_front() else {
                return;
            };
            let lost = item.number - self.expected;
            self.expected = item.number + 1;
            self.in_flight -= 1 + lost;
            self.window += 1.0 / self.window;
            if (lost > 0 || item.marked) && ms >= self.hold_until {
                self.window = (self.window / 2.0).max(2.0);
                self.hold_until = ms + Self::ROUND_TRIP;
            }
        }
    }
}

#[test]
fn a_standing_queue_is_dropped_from_until_it_stands_no_more() {
    // 80 Mbit/s and 40 ms: 285 packets are on their way, the sender begins with 1000.
    let mut link = Link::new(8 << 20, 10_000);
    let (bytes, sojourn) = Reno::run(&mut link, 20_000, false);
    let counters = link.queue.counters();
    assert!(counters.dropped_sojourn > 0 && counters.marked == 0);
    assert_eq!(counters.dropped_full, 0);
    assert!(sojourn < TARGET * 3, "{sojourn:?}");
    // Of ten seconds; halving below what is on its way, Reno can not fill the link.
    assert!(bytes > 75_000_000, "{bytes}");
}

#[test]
fn a_standing_queue_is_marked_until_it_stands_no_more() {
    let mut link = Link::new(8 << 20, 10_000);
    let (bytes, sojourn) = Reno::run(&mut link, 20_000, true);
    let counters = link.queue.counters();
    assert!(counters.marked > 0 && counters.dropped_sojourn == 0);
    assert!(sojourn < TARGET * 3, "{sojourn:?}");
    assert!(bytes > 75_000_000, "{bytes}");
}

#[test]
fn a_burst_that_drains_within_the_interval_is_left_alone() {
    let mut link = Link::new(8 << 20, 10_000);
    for number in 0..500 {
        link.push(item(1, number, 1400));
    }
    let mut sent = 0;
    for _ in 0..90 {
        sent += link.step().len();
    }
    assert_eq!(sent, 500);
    assert_eq!(link.queue.counters(), QueueCounters::default());
}

#[test]
fn a_capable_flow_is_marked_and_loses_nothing() {
    let mut link = Link::new(8 << 20, 10_000);
    let mut sent = Vec::new();
    let mut number = 0;
    for _ in 0..1000 {
        for _ in 0..8 {
            let mut item = item(1, number, 1400);
            item.capable = true;
            link.push(item);
            number += 1;
        }
        sent.extend(link.step());
    }
    let counters = link.queue.counters();
    assert_eq!(counters.dropped_sojourn, 0);
    assert!(counters.marked > 10, "{counters:?}");
    let marked = sent.iter().filter(|item| item.marked).count();
    assert_eq!(marked as u64, counters.marked);
    let in_order = sent
        .iter()
        .enumerate()
        .all(|(i, item)| item.number == i as u32);
    assert!(in_order);
}

#[test]
fn less_than_a_super_packet_on_a_slow_link_is_never_dropped() {
    // 2 Mbit/s: what is queued stands for 200 ms.
    let mut link = Link::new(8 << 20, 250);
    let mut number = 0;
    let mut sent = 0;
    for _ in 0..5000 {
        while link.queue.bytes() < 50_000 {
            link.push(item(1, number, 1400));
            number += 1;
        }
        sent += link.step().len();
    }
    assert!(sent > 800, "{sent}");
    assert_eq!(link.queue.counters(), QueueCounters::default());
}

#[test]
fn the_only_item_of_a_flow_is_delivered_however_long_it_stood() {
    let mut queue = FairQueue::new(8 << 20);
    let mut now = Instant::now();
    for flow in 0..20 {
        queue.push(now, flow, item(flow, 0, 60_000));
    }
    for number in 0..400 {
        now += TARGET * 4;
        let sent = queue.pop(now).unwrap();
        queue.push(now, sent.flow, item(sent.flow, number, 60_000));
    }
    assert_eq!(queue.counters(), QueueCounters::default());
    // Two of them, and one is dropped.
    for flow in 0..20 {
        queue.push(now, flow, item(flow, 0, 60_000));
    }
    while queue.pop(now + INTERVAL).is_some() {}
    assert!(queue.counters().dropped_sojourn > 0);
}

#[test]
fn a_quiet_flow_does_not_pay_for_a_loud_one() {
    let mut link = Link::new(2 << 20, 10_000);
    let (mut loud, mut quiet, mut worst) = (0, 0, 0);
    let mut waiting = std::collections::VecDeque::new();
    for ms in 0..5000u32 {
        for _ in 0..9 {
            link.push(item(1, loud, 1400));
            loud += 1;
        }
        if ms % 10 == 0 {
            link.push(item(2, ms, 200));
            waiting.push_back(ms);
        }
        for item in link.step().iter().filter(|item| item.flow == 2) {
            assert_eq!(waiting.pop_front(), Some(item.number));
            worst = worst.max(ms - item.number);
            quiet += 1;
        }
    }
    assert_eq!(quiet, 500);
    assert!(worst <= 2, "{worst} ms");
    assert!(Duration::from_millis(u64::from(worst)) < TARGET);
}

#[test]
fn frames_are_marked_in_the_packet_behind_their_header() {
    let mut sample = crate::packet::testing::Sample::tcp(true).payload(b"x");
    sample.tos = 2;
    let mut frame = [vec![0; VNET_HDR_LEN], sample.build()].concat();
    assert!(Queued::mark_ce(&mut frame));
    assert_eq!(frame[VNET_HDR_LEN + 1], 3);
    crate::packet::testing::assert_sound(&frame[VNET_HDR_LEN..]);

    let pool = crate::packet::BufferPool::new(1);
    sample.tos = 0;
    let bytes = [vec![0; VNET_HDR_LEN], sample.build()].concat();
    let mut frame = pool.copy_of(&bytes).unwrap();
    assert!(!Queued::mark_ce(&mut frame));
    assert_eq!(Queued::len(&frame), bytes.len());
    assert!(!Queued::mark_ce(&mut vec![0; 4]));
}
