//! Which of a peer's streams a flow takes.

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
    /// Active flows of each stream, when they were last counted and those that came since.
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
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
            counts: Vec::new(),
            counted_ms: 0,
            came_ms: None,
            moved_ms: 0,
        }
    }

    /// Flows that were active within the last second.
    pub(super) fn active(&self, now_ms: u32) -> usize {
        self.buckets.iter().filter(|b| b.is_active(now_ms)).count()
    }

    /// The number of the stream of a flow that sends now; `streams` are the numbers of those that are open.
    pub(super) fn stream(
        &mut self,
        flow_hash: u32,
        now_ms: u32,
        streams: impl Iterator<Item = u16> + Clone,
    ) -> Option<u16> {
        let at = flow_hash as usize % BUCKETS;
        let bucket = self.buckets[at];
        let stays = bucket.is_active(now_ms) && streams.clone().any(|s| s == bucket.stream);
        let is_known = streams.clone().eq(self.counts.iter().map(|(s, _)| *s));
        let is_old = now_ms.wrapping_sub(self.counted_ms) >= COUNT_EVERY_MS;
        let matters = !stays || self.came_ms.is_some();
        if !is_known || (is_old && matters) {
            self.count(now_ms, streams);
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
    fn count(&mut self, now_ms: u32, streams: impl Iterator<Item = u16> + Clone) {
        let came = |stream| !self.counts.iter().any(|(s, _)| *s == stream);
        if !self.counts.is_empty() && streams.clone().any(came) {
            self.came_ms = Some(now_ms);
        }
        let is_settling = |came: u32| now_ms.wrapping_sub(came) < SETTLING_MS;
        self.came_ms = self.came_ms.filter(|came| is_settling(*came));
        self.counts = streams.map(|stream| (stream, 0)).collect();
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

    fn counts(spread: &mut Spread, flows: &[u32], now_ms: u32, streams: &[u16]) -> Vec<usize> {
        let taken: Vec<u16> = flows
            .iter()
            .map(|flow| {
                spread
                    .stream(*flow, now_ms, streams.iter().copied())
                    .unwrap()
            })
            .collect();
        let of = |stream| taken.iter().filter(|s| **s == stream).count();
        streams.iter().map(|s| of(*s)).collect()
    }

    #[test]
    fn flows_are_spread_evenly_whatever_their_hashes_are() {
        let mut spread = Spread::new();
        // All on one stream if the hash alone decided.
        let flows: Vec<u32> = (0..20).map(|flow| flow * 4).collect();
        let streams = [0, 1, 2, 3];
        assert_eq!(counts(&mut spread, &flows, 7, &streams), [5, 5, 5, 5]);
    }

    #[test]
    fn a_flow_stays_on_its_stream_while_it_is_active_and_goes_where_there_is_room_after_that() {
        let mut spread = Spread::new();
        let streams = || [0_u16, 1].into_iter();
        let first = spread.stream(1, 0, streams()).unwrap();
        let second = spread.stream(2, 0, streams()).unwrap();
        assert_ne!(first, second);
        let mut now = 0;
        for _ in 0..100 {
            now += IDLE_MS - 1;
            assert_eq!(spread.stream(1, now, streams()), Some(first));
            // Others come and go.
            spread.stream(now, now, streams());
        }
        // It falls silent, and the other's stream is the one with room.
        let mut spread = Spread::new();
        assert_eq!(spread.stream(1, 0, streams()), Some(0));
        assert_eq!(spread.stream(2, 0, streams()), Some(1));
        now = IDLE_MS;
        assert_eq!(spread.stream(3, now, streams()), Some(0));
        assert_eq!(spread.stream(1, now, streams()), Some(1));
    }

    #[test]
    fn flows_of_a_stream_that_ended_take_the_others_and_a_new_stream_takes_new_flows() {
        let mut spread = Spread::new();
        let flows: Vec<u32> = (0..12).collect();
        assert_eq!(counts(&mut spread, &flows, 0, &[0, 1, 2]), [4, 4, 4]);
        assert_eq!(counts(&mut spread, &flows, 1, &[0, 2]), [6, 6]);
        let more: Vec<u32> = (12..18).collect();
        assert_eq!(counts(&mut spread, &more, 2, &[0, 2, 3]), [0, 0, 6]);
        assert_eq!(spread.stream(5, 3, std::iter::empty()), None);
    }

    #[test]
    fn new_streams_take_active_flows_one_after_the_other_until_all_have_as_many() {
        let mut spread = Spread::new();
        let flows: Vec<u32> = (0..20).collect();
        let (four, eight) = ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(counts(&mut spread, &flows, 0, &four), [5; 4]);
        // Those that are the first have nothing to take.
        assert_eq!(counts(&mut spread, &flows, 500, &four), [5; 4]);
        let before = counts(&mut spread, &flows, 1000, &eight);
        let mut moved = before[4..].iter().sum::<usize>();
        assert_eq!(moved, 1);
        for round in 1..20 {
            let then = counts(&mut spread, &flows, 1000 + round * 50, &eight);
            let so_far = then[4..].iter().sum::<usize>();
            assert!(so_far <= moved + 1, "{so_far} after {moved}");
            moved = so_far;
        }
        let mut settled = counts(&mut spread, &flows, 2000, &eight);
        let again = counts(&mut spread, &flows, 2900, &eight);
        assert_eq!(again, settled, "no flow moves for nothing");
        settled.sort_unstable();
        assert_eq!(settled, [2, 2, 2, 2, 3, 3, 3, 3]);
    }

    #[test]
    fn flows_have_settled_after_a_while_and_stay_where_they_are() {
        let mut spread = Spread::new();
        let flows: Vec<u32> = (0..8).collect();
        assert_eq!(counts(&mut spread, &flows, 0, &[0, 1]), [4, 4]);
        for now in [900, 1800, 2700, 3600] {
            assert_eq!(counts(&mut spread, &flows, now, &[0, 1]), [4, 4]);
        }
        // Those of one of them end.
        let odd: Vec<u32> = flows.iter().copied().filter(|f| f % 2 == 1).collect();
        for now in (3700..9000).step_by(100) {
            assert_eq!(counts(&mut spread, &odd, now, &[0, 1]), [0, 4]);
        }
    }

    #[test]
    fn active_flows_are_counted_whatever_their_stream() {
        let mut spread = Spread::new();
        assert_eq!(spread.active(0), 0);
        let flows: Vec<u32> = (0..12).collect();
        counts(&mut spread, &flows, 0, &[0, 1, 2]);
        counts(&mut spread, &flows[..5], 500, &[0, 1, 2]);
        assert_eq!(spread.active(999), 12);
        assert_eq!(spread.active(1000), 5);
    }

    #[test]
    fn the_time_may_wrap_around() {
        let mut spread = Spread::new();
        let streams = || [0_u16, 1, 2].into_iter();
        let first = spread.stream(9, u32::MAX, streams());
        for flow in 100..150 {
            spread.stream(flow, 3, streams());
        }
        assert_eq!(spread.stream(9, 4, streams()), first);
    }
}
