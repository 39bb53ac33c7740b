use super::super::testing::{Network, Path, SEGMENT, jain};
use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Acknowledgements of one segment each, `rtt` apart by a window.
struct Driver {
    cubic: Cubic,
    now: Instant,
    delivered: u64,
    rtt: Duration,
    phase: Phase,
    window_limited: bool,
}

impl Driver {
    fn new(segment: u64, rtt: Duration) -> Self {
        Self {
            cubic: Cubic::new(segment),
            now: Instant::now(),
            delivered: 0,
            rtt,
            phase: Phase::Open,
            window_limited: true,
        }
    }

    fn ack(&mut self, bytes: u64) {
        self.delivered += bytes;
        let window = self.cubic.window();
        let in_flight = if self.window_limited {
            window
        } else {
            window / 4
        };
        self.cubic.on_ack(&Ack {
            now: self.now,
            phase: self.phase,
            newly_delivered: bytes,
            newly_lost: 0,
            delivered: self.delivered,
            lost: 0,
            prior_in_flight: in_flight,
            in_flight: in_flight.saturating_sub(bytes),
            rtt: Some(self.rtt),
            smoothed_rtt: Some(self.rtt),
            rate: None,
            congestion_marked: false,
            window_limited: self.window_limited,
        });
    }

    /// Acknowledges a window's worth, evenly over a round trip.
    fn round(&mut self) {
        let segment = self.cubic.segment;
        let count = (self.cubic.window() / segment).max(1);
        for _ in 0..count {
            self.now += self.rtt / u32::try_from(count).unwrap();
            self.ack(segment);
        }
    }

    /// Slow start up to `segments`, and one congestion there.
    fn congest_at(&mut self, segments: u64) {
        while self.cubic.window() < segments * self.cubic.segment {
            let missing = segments * self.cubic.segment - self.cubic.window();
            self.ack(self.cubic.segment.min(missing));
        }
        self.congest();
    }

    fn congest(&mut self) {
        self.cubic.on_congestion(self.now, self.cubic.window());
        self.cubic.on_recovered(self.now);
    }

    fn segments(&self) -> f64 {
        self.cubic.window() as f64 / self.cubic.segment as f64
    }
}

#[test]
fn the_window_follows_the_curve_of_the_rfc() {
    // 1,000 segments and 100 ms: K = cbrt(300 / 0.4) = 9.09 s, far from where Reno would be faster.
    let mut driver = Driver::new(SEGMENT, ms(100));
    driver.congest_at(1_000);
    let start = driver.now;
    assert_eq!(driver.segments().round(), 700.0);
    let k = (300.0_f64 / 0.4).cbrt();
    for _ in 0..150 {
        driver.round();
        let t = (driver.now - start).as_secs_f64();
        let expected = 0.4 * (t - k).powi(3) + 1_000.0;
        let off = (driver.segments() - expected).abs() / expected;
        assert!(
            off < 0.01,
            "{t} s: {} instead of {expected}",
            driver.segments()
        );
    }
    assert!(driver.segments() > 1_050.0, "15 s are past the plateau");
}

#[test]
fn where_reno_is_faster_the_window_grows_as_renos() {
    // 10 ms and 100 segments: alpha 0.53 until it is at 100 again, then 1.
    let mut driver = Driver::new(SEGMENT, ms(10));
    driver.congest_at(100);
    for _ in 0..20 {
        driver.round();
    }
    let expected = 70.0 + 20.0 * 3.0 * 0.3 / 1.7;
    assert!(
        (driver.segments() - expected).abs() < 1.0,
        "{}",
        driver.segments()
    );
    while driver.segments() < 100.0 {
        driver.round();
    }
    let before = driver.segments();
    for _ in 0..10 {
        driver.round();
    }
    assert!(
        (driver.segments() - before - 10.0).abs() < 1.0,
        "{} after {before}",
        driver.segments()
    );
}

#[test]
fn a_flow_that_does_not_come_back_to_its_window_gives_way() {
    let mut driver = Driver::new(SEGMENT, ms(100));
    driver.congest_at(1_000);
    assert_eq!(driver.cubic.state.plateau, 1_000 * SEGMENT);
    driver.congest();
    let plateau = driver.cubic.state.plateau as f64 / SEGMENT as f64;
    assert!((plateau - 700.0 * 0.85).abs() < 1.0, "{plateau}");
    assert!((driver.segments() - 490.0).abs() < 1.0);
}

#[test]
fn time_without_anything_to_send_is_no_time_of_the_curve() {
    let mut steady = Driver::new(SEGMENT, ms(100));
    let mut pausing = Driver::new(SEGMENT, ms(100));
    for driver in [&mut steady, &mut pausing] {
        driver.congest_at(1_000);
        driver.round();
    }
    let before = pausing.cubic.window();
    pausing.window_limited = false;
    for _ in 0..100 {
        pausing.round();
    }
    assert_eq!(
        pausing.cubic.window(),
        before,
        "10 s in which the window was not used"
    );
    pausing.now += Duration::from_secs(60);
    pausing.cubic.on_sent(pausing.now, SEGMENT, SEGMENT, true);
    pausing.window_limited = true;
    for _ in 0..20 {
        steady.round();
        pausing.round();
    }
    let off = (steady.segments() - pausing.segments()).abs();
    assert!(
        off < 2.0,
        "{} and {}",
        steady.segments(),
        pausing.segments()
    );
}

#[test]
fn without_use_the_window_does_not_grow_in_slow_start_either() {
    let mut driver = Driver::new(SEGMENT, ms(100));
    driver.window_limited = false;
    for _ in 0..10 {
        driver.round();
    }
    assert_eq!(driver.cubic.window(), 10 * SEGMENT);
}

#[test]
fn a_timeout_leaves_one_segment_and_slow_start_to_seven_tenths() {
    let mut driver = Driver::new(SEGMENT, ms(100));
    driver.congest_at(1_000);
    driver.cubic.on_timeout(driver.now, 700 * SEGMENT);
    driver.phase = Phase::Loss;
    assert_eq!(driver.cubic.window(), SEGMENT);
    assert_eq!(driver.cubic.threshold() / SEGMENT, 490);
    // The same data again: the threshold stays.
    driver.cubic.on_timeout(driver.now, SEGMENT);
    assert_eq!(driver.cubic.threshold() / SEGMENT, 490);
    for _ in 0..4 {
        driver.round();
    }
    assert_eq!(driver.segments(), 16.0);
    for _ in 0..5 {
        driver.round();
    }
    assert!(
        (490.0..=520.0).contains(&driver.segments()),
        "{}",
        driver.segments()
    );
}

#[test]
fn a_spurious_congestion_is_taken_back_with_all_it_did() {
    let mut driver = Driver::new(SEGMENT, ms(100));
    driver.congest_at(1_000);
    for _ in 0..30 {
        driver.round();
    }
    let mut undisturbed = Driver::new(SEGMENT, ms(100));
    undisturbed.cubic.state = driver.cubic.state;
    undisturbed.now = driver.now;
    for timeout in [false, true] {
        if timeout {
            driver.cubic.on_timeout(driver.now, 700 * SEGMENT);
        } else {
            driver.cubic.on_congestion(driver.now, 700 * SEGMENT);
        }
        assert!(driver.cubic.window() < undisturbed.cubic.window());
        driver.cubic.on_spurious(driver.now);
        assert_eq!(driver.cubic.window(), undisturbed.cubic.window());
        assert_eq!(driver.cubic.threshold(), undisturbed.cubic.threshold());
        for _ in 0..10 {
            driver.round();
            undisturbed.round();
        }
        assert_eq!(driver.cubic.window(), undisturbed.cubic.window());
    }
    driver.cubic.on_spurious(driver.now);
    assert_eq!(
        driver.cubic.window(),
        undisturbed.cubic.window(),
        "nothing is left to take back"
    );
}

#[test]
fn after_silence_the_window_is_halved_for_every_timeout_down_to_the_initial_one() {
    let mut driver = Driver::new(SEGMENT, ms(100));
    driver.congest_at(1_000);
    driver.ack(SEGMENT);
    let window = driver.cubic.window();
    driver.cubic.on_idle_restart(driver.now, ms(450));
    assert_eq!(driver.cubic.window(), window / 4);
    assert!(driver.cubic.threshold() >= window / 4 * 3);
    driver
        .cubic
        .on_idle_restart(driver.now, Duration::from_secs(3_600));
    assert_eq!(driver.cubic.window(), 10 * SEGMENT);
}

#[test]
fn two_segments_are_the_least_that_congestion_leaves() {
    for segment in [1, 536, SEGMENT, 65_536] {
        let mut cubic = Cubic::new(segment);
        for _ in 0..100 {
            cubic.on_congestion(Instant::now(), segment);
        }
        assert_eq!(cubic.window(), 2 * segment);
        cubic.on_timeout(Instant::now(), segment);
        assert_eq!(cubic.window(), segment);
        assert_eq!(cubic.threshold(), 2 * segment);
        cubic.set_segment_size(segment * 2);
        assert_eq!(cubic.window(), segment * 2);
        assert_eq!(cubic.threshold(), segment * 4);
    }
}

#[test]
fn pacing_is_twice_the_window_in_slow_start_and_a_fifth_above_it_after() {
    let mut driver = Driver::new(SEGMENT, ms(100));
    assert_eq!(driver.cubic.pacing_rate(), None, "no round trip is known");
    driver.ack(SEGMENT);
    assert_eq!(driver.cubic.pacing_rate(), Some(11 * SEGMENT * 10 * 2));
    driver.congest_at(1_000);
    let expected = driver.cubic.window() * 12;
    assert!(driver.cubic.pacing_rate().unwrap().abs_diff(expected) < 100);
}

#[test]
fn the_first_slow_start_loses_a_fraction_of_what_doubling_until_the_queue_overflows_would() {
    for megabits in [20, 50, 100, 200] {
        for round_trip in [20, 40, 100] {
            let overflows = |plain: bool| {
                let path = Path::new(megabits, ms(round_trip), ms(round_trip));
                let product = path.product();
                let mut network = Network::new(path, 1);
                let mut cubic = Cubic::new(SEGMENT);
                if plain {
                    cubic.state.hystart.finish();
                }
                network.add(cubic);
                network.run(ms(20 * round_trip));
                assert!(network.flows[0].controller.window() > product);
                network.overflows()
            };
            let (ours, plain) = (overflows(false), overflows(true));
            eprintln!("{megabits} Mbit/s, {round_trip} ms: {ours} lost instead of {plain}");
            assert!(
                ours * 5 < plain * 2,
                "{megabits} Mbit/s, {round_trip} ms: {ours} and {plain}"
            );
        }
    }
}

#[test]
fn a_clean_link_is_filled() {
    for (megabits, round_trip, queue) in [(200, 40, 40), (20, 200, 200), (1_000, 1, 5)] {
        let mut network = Network::new(Path::new(megabits, ms(round_trip), ms(queue)), 1);
        network.add(Cubic::new(SEGMENT));
        network.run(Duration::from_secs(2));
        let used = network.utilisation(Duration::from_secs(8));
        assert!(used > 0.95, "{megabits} Mbit/s, {round_trip} ms: {used}");
        assert_eq!(network.flows[0].timeouts, 0);
    }
}

#[test]
fn flows_share_a_bottleneck() {
    let mut network = Network::new(Path::new(200, ms(40), ms(40)), 1);
    for _ in 0..8 {
        network.add(Cubic::new(SEGMENT));
        network.run(ms(50));
    }
    network.run(Duration::from_secs(20));
    let shares = network.delivered_in(Duration::from_secs(40));
    assert!(jain(&shares) > 0.9, "{shares:?}");
    assert!(shares.iter().sum::<u64>() > 25_000_000 * 38);
}

#[test]
fn marks_keep_the_queue_short_without_a_loss() {
    let mut path = Path::new(200, ms(40), ms(40));
    path.mark_above = Some(path.product() / 2);
    let mut network = Network::new(path, 1);
    network.add(Cubic::new(SEGMENT));
    network.run(Duration::from_secs(5));
    let lost = network.flows[0].lost;
    let used = network.utilisation(Duration::from_secs(10));
    assert!(used > 0.95, "{used}");
    assert_eq!(network.flows[0].lost, lost);
}

#[test]
fn absurd_figures_neither_overflow_nor_close_the_window() {
    for segment in [0, 1, 65_536, u64::MAX] {
        let mut driver = Driver::new(segment, ms(100));
        let now = driver.now;
        for rtt in [Duration::ZERO, Duration::MAX] {
            for figure in [0, 1, u64::MAX] {
                for phase in [Phase::Open, Phase::Recovery, Phase::Loss] {
                    let cubic = &mut driver.cubic;
                    cubic.on_sent(now, figure, figure, true);
                    cubic.on_ack(&Ack {
                        now,
                        phase,
                        newly_delivered: figure,
                        newly_lost: figure,
                        delivered: figure,
                        lost: figure,
                        prior_in_flight: figure,
                        in_flight: figure,
                        rtt: Some(rtt),
                        smoothed_rtt: Some(rtt),
                        rate: None,
                        congestion_marked: true,
                        window_limited: true,
                    });
                    assert!(cubic.window() >= cubic.segment && cubic.window() <= MAX_WINDOW);
                    assert!(cubic.pacing_rate().is_none_or(|rate| rate > 0));
                    cubic.on_congestion(now, figure);
                    cubic.on_timeout(now, figure);
                    cubic.on_spurious(now);
                    cubic.on_idle_restart(now, rtt);
                    cubic.on_recovered(now);
                    assert!(cubic.window() >= cubic.segment && cubic.window() <= MAX_WINDOW);
                }
            }
        }
    }
}
