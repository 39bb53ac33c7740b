use super::*;

const WINDOW: u64 = 100_000;

#[derive(Clone)]
struct Path {
    hystart: HyStart,
    now: Instant,
    delivered: u64,
}

impl Path {
    fn new() -> Self {
        Self {
            hystart: HyStart::new(),
            now: Instant::now(),
            delivered: 0,
        }
    }

    /// A round of `samples` acknowledgements with the same round trip in milliseconds, spread over one; what the
    /// last one said, or the one that ended slow start.
    fn round(&mut self, rtt: u64, samples: u32) -> Growth {
        self.round_of(&vec![rtt; samples as usize])
    }

    /// A round of these round trips.
    fn round_of(&mut self, rtts: &[u64]) -> Growth {
        let mut growth = Growth::Full;
        for &rtt in rtts {
            let rtt = Duration::from_millis(rtt);
            self.delivered += WINDOW / rtts.len() as u64;
            self.now += rtt / rtts.len() as u32;
            growth = self
                .hystart
                .on_ack(self.now, self.delivered, WINDOW, Some(rtt));
            if growth == Growth::Over {
                break;
            }
        }
        growth
    }
}

#[test]
fn a_steady_round_trip_keeps_slow_start_going() {
    let mut path = Path::new();
    for _ in 0..50 {
        assert_eq!(path.round(100, 10), Growth::Full);
    }
}

#[test]
fn a_rise_of_an_eighth_slows_growth_and_five_rounds_of_it_end_slow_start() {
    let mut path = Path::new();
    for _ in 0..3 {
        path.round(100, 10);
    }
    assert_eq!(path.round(111, 10), Growth::Full);
    for _ in 0..5 {
        assert_eq!(path.round(125, 10), Growth::Quarter);
    }
    assert_eq!(path.round(125, 10), Growth::Over);
}

#[test]
fn a_rise_that_goes_away_was_jitter() {
    let mut path = Path::new();
    for _ in 0..3 {
        path.round(100, 10);
    }
    assert_eq!(path.round(120, 10), Growth::Quarter);
    assert_eq!(path.round(101, 10), Growth::Full);
}

#[test]
fn a_queue_worth_half_the_path_ends_slow_start_at_once() {
    let mut path = Path::new();
    for _ in 0..3 {
        path.round(100, 10);
    }
    assert_eq!(path.round(151, 10), Growth::Over);
}

#[test]
fn less_than_eight_samples_say_nothing() {
    let mut path = Path::new();
    for _ in 0..3 {
        path.round(100, 10);
    }
    assert_eq!(path.round(180, 7), Growth::Full);
}

#[test]
fn the_threshold_is_between_4_and_16_ms() {
    for (base, still, risen) in [(8, 11, 12), (400, 415, 416)] {
        let mut path = Path::new();
        for _ in 0..3 {
            path.round(base, 10);
        }
        let mut other = path.clone();
        assert_eq!(path.round(still, 10), Growth::Full, "{base} ms");
        assert_eq!(other.round(risen, 10), Growth::Quarter, "{base} ms");
    }
}

#[test]
fn after_the_first_slow_start_it_has_no_say() {
    let mut path = Path::new();
    path.hystart.finish();
    for rtt in [100, 100, 200, 400] {
        assert_eq!(path.round(rtt, 10), Growth::Full);
    }
}

#[test]
fn a_rise_within_a_round_shows_in_that_round() {
    let mut path = Path::new();
    for _ in 0..3 {
        path.round(40, 40);
    }
    let rising: Vec<u64> = (0..40).map(|sample| 40 + sample / 4).collect();
    assert_eq!(path.round_of(&rising), Growth::Quarter);
}

#[test]
fn acknowledgements_in_batches_are_no_rise() {
    let mut path = Path::new();
    path.round(40, 40);
    for batch in 0..100 {
        // 20 of them that were held up by 20 ms down to none.
        path.now += Duration::from_millis(20);
        for sample in 0..20 {
            path.delivered += WINDOW / 40;
            let rtt = Duration::from_millis(60 - sample * 20 / 19);
            let growth = path
                .hystart
                .on_ack(path.now, path.delivered, WINDOW, Some(rtt));
            assert_eq!(growth, Growth::Full, "batch {batch}");
        }
    }
}
