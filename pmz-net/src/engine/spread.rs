//! Which of a peer's streams a flow takes.

/// Flows are told apart by this many of their hash's values. Two that share one share a stream.
const BUCKETS: usize = 4096;
/// A flow that was silent so long, in milliseconds, has nothing under way that could be overtaken: it may take another
/// stream.
const IDLE_MS: u32 = 1000;
/// How often flows are counted, in milliseconds.
const COUNT_EVERY_MS: u32 = 50;

/// Spreads flows over streams evenly by their number: each new one takes the stream that has the fewest active ones, and
/// stays there as long as it is active. The flows of a hash alone would be spread by chance, and those that share a
/// stream with many get less.
///
/// A state machine: the caller tells the time.
pub(super) struct Spread {
    buckets: Box<[Bucket]>,
    /// Active flows of each stream, when they were last counted and those that came since.
    counts: Vec<(u16, u32)>,
    /// When they were last counted.
    counted_ms: u32,
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
        }
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
        let stream = if stays {
            bucket.stream
        } else {
            self.least(now_ms, streams)?
        };
        self.buckets[at] = Bucket {
            stream,
            taken: true,
            seen_ms: now_ms,
        };
        Some(stream)
    }

    /// The stream with the fewest active flows, which has one more after that.
    fn least(&mut self, now_ms: u32, streams: impl Iterator<Item = u16> + Clone) -> Option<u16> {
        let is_known = streams.clone().eq(self.counts.iter().map(|(s, _)| *s));
        if !is_known || now_ms.wrapping_sub(self.counted_ms) >= COUNT_EVERY_MS {
            self.counts = streams.map(|stream| (stream, 0)).collect();
            self.counted_ms = now_ms;
            for bucket in self.buckets.iter().filter(|b| b.is_active(now_ms)) {
                if let Some((_, count)) = self.counts.iter_mut().find(|c| c.0 == bucket.stream) {
                    *count += 1;
                }
            }
        }
        let (stream, count) = self.counts.iter_mut().min_by_key(|(_, count)| *count)?;
        *count += 1;
        Some(*stream)
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
