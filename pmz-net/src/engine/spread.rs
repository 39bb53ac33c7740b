//! Which of a peer's streams a flow takes.

use std::mem;

/// Flows are told apart by this many of their hash's values. Two that share one share a stream.
const BUCKETS: usize = 1024;
/// A flow that was silent so long, in milliseconds, has nothing under way that could be overtaken: it may take another
/// stream.
const IDLE_MS: u32 = 1000;
/// How often flows are counted, in milliseconds.
const COUNT_EVERY_MS: u32 = 50;
/// For so long, in milliseconds, a new stream takes active flows from the others.
const SETTLING_MS: u32 = 3000;
/// And one of them this often, in milliseconds: each may overtake what it has under way, which costs it some repeats.
const MOVE_EVERY_MS: u32 = 100;

/// Spreads flows over streams evenly by their number: each new one takes the stream that has the fewest active ones, and
/// stays there as long as it is active, unless a new stream comes. The flows of a hash alone would be spread by chance, and
/// those that share a stream with many get less.
///
/// A state machine: the caller tells the time.
pub(super) struct Spread {
    buckets: Box<[Bucket]>,
    /// The numbers of the open streams, and how many active flows each has: when they were last counted, and those that came
    /// since.
    counts: Vec<(u16, u32)>,
    /// When they were last counted.
    counted_ms: u32,
    /// When a stream came beside others, until flows have settled.
    came_ms: Option<u32>,
    /// When one moved last.
    moved_ms: u32,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    /// The number of its stream.
    stream: u16,
    /// Whether it had any.
    taken: bool,
    /// When its last packet went, in milliseconds, modulo 2^32.
    seen_ms: u32,
}

impl Bucket {
    fn is_active(&self, now_ms: u32) -> bool {
        self.taken && now_ms.wrapping_sub(self.seen_ms) < IDLE_MS
    }
}

impl Spread {
    /// Over the streams of these numbers; no flow has one yet.
    pub(super) fn over(streams: impl Iterator<Item = u16>) -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
            counts: streams.map(|stream| (stream, 0)).collect(),
            counted_ms: 0,
            came_ms: None,
            moved_ms: 0,
        }
    }

    /// Flows that were active within the last second.
    pub(super) fn active(&self, now_ms: u32) -> usize {
        self.buckets.iter().filter(|b| b.is_active(now_ms)).count()
    }

    /// From now on streams of these numbers are open, and no others.
    pub(super) fn open(&mut self, streams: impl Iterator<Item = u16>, now_ms: u32) {
        let before = mem::take(&mut self.counts);
        self.counts = streams.map(|stream| (stream, 0)).collect();
        let came = |(stream, _): &_| !before.iter().any(|(s, _)| s == stream);
        if !before.is_empty() && self.counts.iter().any(came) {
            self.came_ms = Some(now_ms);
        }
        self.count(now_ms);
    }

    /// The number of the stream of a flow that sends now; none where none is open.
    pub(super) fn stream(&mut self, flow_hash: u32, now_ms: u32) -> Option<u16> {
        let at = flow_hash as usize % BUCKETS;
        let bucket = self.buckets[at];
        let stays =
            bucket.is_active(now_ms) && self.counts.iter().any(|(s, _)| *s == bucket.stream);
        let is_old = now_ms.wrapping_sub(self.counted_ms) >= COUNT_EVERY_MS;
        if is_old && (!stays || self.came_ms.is_some()) {
            self.count(now_ms);
        }
        let stream = if stays {
            self.relief(bucket.stream, now_ms).unwrap_or(bucket.stream)
        } else {
            let (stream, count) = self.counts.iter_mut().min_by_key(|(_, count)| *count)?;
            *count += 1;
            *stream
        };
        self.buckets[at] = Bucket {
            stream,
            taken: true,
            seen_ms: now_ms,
        };
        Some(stream)
    }

    /// Counts the active flows of each stream.
    fn count(&mut self, now_ms: u32) {
        let is_settling = |came: u32| now_ms.wrapping_sub(came) < SETTLING_MS;
        self.came_ms = self.came_ms.filter(|came| is_settling(*came));
        self.counts.iter_mut().for_each(|(_, count)| *count = 0);
        self.counted_ms = now_ms;
        for bucket in self.buckets.iter().filter(|b| b.is_active(now_ms)) {
            if let Some((_, count)) = self.counts.iter_mut().find(|c| c.0 == bucket.stream) {
                *count += 1;
            }
        }
    }

    /// The stream that a flow of the stream `from` moves to, where that makes them more even and it is time for it.
    fn relief(&mut self, from: u16, now_ms: u32) -> Option<u16> {
        self.came_ms?;
        if now_ms.wrapping_sub(self.moved_ms) < MOVE_EVERY_MS {
            return None;
        }
        let at = self.counts.iter().position(|(s, _)| *s == from)?;
        let least = (0..self.counts.len()).min_by_key(|at| self.counts[*at].1)?;
        if self.counts[at].1 < self.counts[least].1 + 2 {
            return None;
        }
        self.counts[at].1 -= 1;
        self.counts[least].1 += 1;
        self.moved_ms = now_ms;
        Some(self.counts[least].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(streams: &[u16]) -> Spread {
        Spread::over(streams.iter().copied())
    }

    fn open(spread: &mut Spread, streams: &[u16], now_ms: u32) {
        spread.open(streams.iter().copied(), now_ms);
    }

    /// How many of the flows each stream has.
    fn counts(spread: &mut Spread, flows: &[u32], now_ms: u32) -> Vec<usize> {
        let taken: Vec<u16> = flows
            .iter()
            .map(|flow| spread.stream(*flow, now_ms).unwrap())
            .collect();
        let streams: Vec<_> = spread.counts.iter().map(|(s, _)| *s).collect();
        let of = |stream| taken.iter().filter(|s| **s == stream).count();
        streams.iter().map(|s| of(*s)).collect()
    }

    #[test]
    fn flows_are_spread_evenly_whatever_their_hashes_are() {
        let mut spread = spread(&[0, 1, 2, 3]);
        // All on one stream if the hash alone decided.
        let flows: Vec<u32> = (0..20).map(|flow| flow * 4).collect();
        assert_eq!(counts(&mut spread, &flows, 7), [5, 5, 5, 5]);
    }

    #[test]
    fn a_flow_stays_on_its_stream_while_it_is_active_and_goes_where_there_is_room_after_that() {
        let mut lasting = spread(&[0, 1]);
        let first = lasting.stream(1, 0).unwrap();
        let second = lasting.stream(2, 0).unwrap();
        assert_ne!(first, second);
        let mut now = 0;
        for _ in 0..100 {
            now += IDLE_MS - 1;
            assert_eq!(lasting.stream(1, now), Some(first));
            // Others come and go.
            lasting.stream(now, now);
        }
        // It falls silent, and the other's stream is the one with room.
        let mut spread = spread(&[0, 1]);
        assert_eq!(spread.stream(1, 0), Some(0));
        assert_eq!(spread.stream(2, 0), Some(1));
        now = IDLE_MS;
        assert_eq!(spread.stream(3, now), Some(0));
        assert_eq!(spread.stream(1, now), Some(1));
    }

    #[test]
    fn flows_of_a_stream_that_ended_take_the_others_and_a_new_stream_takes_new_flows() {
        let mut spread = spread(&[0, 1, 2]);
        let flows: Vec<u32> = (0..12).collect();
        assert_eq!(counts(&mut spread, &flows, 0), [4, 4, 4]);
        open(&mut spread, &[0, 2], 1);
        assert_eq!(counts(&mut spread, &flows, 1), [6, 6]);
        let more: Vec<u32> = (12..18).collect();
        open(&mut spread, &[0, 2, 3], 2);
        assert_eq!(counts(&mut spread, &more, 2), [0, 0, 6]);
        open(&mut spread, &[], 3);
        assert_eq!(spread.stream(5, 3), None);
    }

    #[test]
    fn new_streams_take_active_flows_one_after_the_other_until_all_have_as_many() {
        let mut spread = spread(&[0, 1, 2, 3]);
        let flows: Vec<u32> = (0..20).collect();
        assert_eq!(counts(&mut spread, &flows, 0), [5; 4]);
        // Those that are the first have nothing to take.
        assert_eq!(counts(&mut spread, &flows, 500), [5; 4]);
        open(&mut spread, &[0, 1, 2, 3, 4, 5, 6, 7], 1000);
        let before = counts(&mut spread, &flows, 1000);
        let mut moved = before[4..].iter().sum::<usize>();
        assert_eq!(moved, 1);
        for round in 1..20 {
            let then = counts(&mut spread, &flows, 1000 + round * 50);
            let so_far = then[4..].iter().sum::<usize>();
            assert!(so_far <= moved + 1, "{so_far} after {moved}");
            moved = so_far;
        }
        let mut settled = counts(&mut spread, &flows, 2000);
        let again = counts(&mut spread, &flows, 2900);
        assert_eq!(again, settled, "no flow moves for nothing");
        settled.sort_unstable();
        assert_eq!(settled, [2, 2, 2, 2, 3, 3, 3, 3]);
    }

    #[test]
    fn flows_have_settled_after_a_while_and_stay_where_they_are() {
        let mut spread = spread(&[0, 1]);
        let flows: Vec<u32> = (0..8).collect();
        assert_eq!(counts(&mut spread, &flows, 0), [4, 4]);
        for now in [900, 1800, 2700, 3600] {
            assert_eq!(counts(&mut spread, &flows, now), [4, 4]);
        }
        // Those of one of them end.
        let odd: Vec<u32> = flows.iter().copied().filter(|f| f % 2 == 1).collect();
        for now in (3700..9000).step_by(100) {
            assert_eq!(counts(&mut spread, &odd, now), [0, 4]);
        }
    }

    #[test]
    fn active_flows_are_counted_whatever_their_stream() {
        let mut spread = spread(&[0, 1, 2]);
        assert_eq!(spread.active(0), 0);
        let flows: Vec<u32> = (0..12).collect();
        counts(&mut spread, &flows, 0);
        counts(&mut spread, &flows[..5], 500);
        assert_eq!(spread.active(999), 12);
        assert_eq!(spread.active(1000), 5);
    }

    #[test]
    fn the_time_may_wrap_around() {
        let mut spread = spread(&[0, 1, 2]);
        let first = spread.stream(9, u32::MAX);
        for flow in 100..150 {
            spread.stream(flow, 3);
        }
        assert_eq!(spread.stream(9, 4), first);
    }
}
