//! Single rules, without a network.

use super::super::super::RateSample;
use super::*;

/// Acknowledgements by hand.
struct Driver {
    bbr: Bbr,
    now: Instant,
    delivered: u64,
    lost: u64,
    phase: Phase,
    app_limited: bool,
    in_flight: u64,
}

impl Driver {
    fn new(segment: u64) -> Self {
        Self {
            bbr: Bbr::new(segment, 1),
            now: Instant::now(),
            delivered: 0,
            lost: 0,
            phase: Phase::Open,
            app_limited: false,
            in_flight: 50 * segment,
        }
    }

    /// A round trip of 10 ms in which `bytes` arrive; the acknowledgement is of all of them.
    fn round(&mut self, bytes: u64) {
        self.now += ms(10);
        self.ack(bytes, 0);
    }

    fn ack(&mut self, bytes: u64, lost: u64) {
        let prior_delivered = self.delivered;
        self.delivered += bytes;
        self.lost += lost;
        self.bbr.on_ack(&Ack {
            now: self.now,
            phase: self.phase,
            newly_delivered: bytes,
            newly_lost: lost,
            delivered: self.delivered,
            lost: self.lost,
            prior_in_flight: self.in_flight + bytes,
            in_flight: self.in_flight,
            rtt: Some(ms(10)),
            smoothed_rtt: Some(ms(10)),
            rate: Some(RateSample {
                delivered: bytes,
                interval: ms(10),
                prior_delivered,
                lost,
                sent_in_flight: self.in_flight,
                app_limited: self.app_limited,
            }),
            congestion_marked: false,
            window_limited: true,
        });
    }

    /// Up to ProbeBW at 100 segments a round trip.
    fn settled() -> Self {
        let mut driver = Self::new(SEGMENT);
        for _ in 0..10 {
            driver.round(100 * SEGMENT);
        }
        assert_eq!(driver.bbr.mode, Mode::ProbeBw);
        driver
    }
}

#[test]
fn before_a_round_trip_is_known_the_initial_window_is_paced_over_a_millisecond() {
    let mut driver = Driver::new(SEGMENT);
    assert_eq!(driver.bbr.window(), 10 * SEGMENT);
    assert_eq!(
        driver.bbr.pacing_rate(),
        Some(10 * SEGMENT * 1_000 * 2_885 / 1_000)
    );
    driver.ack(0, 0);
    assert_eq!(
        driver.bbr.pacing_rate(),
        Some(10 * SEGMENT * 100 * 2_885 / 1_000)
    );
}

#[test]
fn startup_ends_after_three_rounds_without_growth_and_drains() {
    let mut driver = Driver::new(SEGMENT);
    driver.in_flight = 300 * SEGMENT;
    for _ in 0..3 {
        driver.round(100 * SEGMENT);
        assert_eq!(driver.bbr.mode, Mode::Startup);
        assert_eq!(driver.bbr.pacing_gain, STARTUP_GAIN);
    }
    driver.round(100 * SEGMENT);
    assert_eq!(driver.bbr.mode, Mode::Drain);
    assert_eq!(driver.bbr.pacing_gain, DRAIN_GAIN);
    // A round trip's worth, and room for three bursts of 28 segments.
    assert_eq!(driver.bbr.threshold(), 184 * SEGMENT);
    driver.in_flight = 100 * SEGMENT;
    driver.round(100 * SEGMENT);
    assert_eq!(driver.bbr.mode, Mode::ProbeBw);
}

#[test]
fn an_application_that_sends_little_does_not_end_startup() {
    let mut driver = Driver::new(SEGMENT);
    driver.app_limited = true;
    for _ in 0..20 {
        driver.round(10 * SEGMENT);
    }
    assert_eq!(driver.bbr.mode, Mode::Startup);
}

#[test]
fn a_recovery_begins_with_as_much_as_arrives_and_ends_with_the_window_from_before() {
    let mut driver = Driver::settled();
    for _ in 0..10 {
        driver.round(100 * SEGMENT);
    }
    let window = driver.bbr.window();
    assert!(window > 200 * SEGMENT);
    driver.in_flight = 60 * SEGMENT;
    driver.phase = Phase::Recovery;
    driver.bbr.on_congestion(driver.now, driver.in_flight);
    driver.now += ms(1);
    driver.ack(2 * SEGMENT, 30 * SEGMENT);
    assert_eq!(driver.bbr.window(), 62 * SEGMENT);
    driver.phase = Phase::Open;
    driver.bbr.on_recovered(driver.now);
    driver.now += ms(1);
    driver.ack(2 * SEGMENT, 0);
    let back = driver.bbr.window();
    // The target has moved a little with the pace: room for bursts.
    assert!(back > window / 10 * 9, "{back} after {window}");
}

#[test]
fn a_timeout_leaves_one_segment_and_a_spurious_one_nothing_changed() {
    let mut driver = Driver::settled();
    for _ in 0..10 {
        driver.round(100 * SEGMENT);
    }
    let window = driver.bbr.window();
    driver.bbr.on_timeout(driver.now, window);
    assert_eq!(driver.bbr.window(), SEGMENT);
    driver.phase = Phase::Loss;
    driver.in_flight = 0;
    driver.round(SEGMENT);
    assert_eq!(driver.bbr.window(), 4 * SEGMENT);
    driver.bbr.on_spurious(driver.now);
    assert_eq!(driver.bbr.window(), window);
    assert_eq!(driver.bbr.estimate(), 100 * SEGMENT * 100);
}

#[test]
fn the_window_is_back_when_the_phase_after_a_timeout_ends() {
    let mut driver = Driver::settled();
    for _ in 0..10 {
        driver.round(100 * SEGMENT);
    }
    let window = driver.bbr.window();
    driver.bbr.on_timeout(driver.now, window);
    driver.phase = Phase::Loss;
    driver.round(SEGMENT);
    driver.phase = Phase::Open;
    driver.round(SEGMENT);
    assert!(
        driver.bbr.window() >= window,
        "{} after {window}",
        driver.bbr.window()
    );
}

#[test]
fn after_silence_data_leaves_at_the_estimate_without_a_probe() {
    let mut driver = Driver::settled();
    while driver.bbr.pacing_gain != 1_250 {
        driver.round(100 * SEGMENT);
    }
    let estimate = driver.bbr.estimate();
    assert_eq!(
        driver.bbr.pacing_rate(),
        Some(estimate * 1_250 * 99 / 100_000)
    );
    driver.now += s(30);
    driver.bbr.on_idle_restart(driver.now, s(30));
    driver.bbr.on_sent(driver.now, SEGMENT, SEGMENT, true);
    assert_eq!(driver.bbr.pacing_rate(), Some(estimate * 99 / 100));
    // What expired meanwhile is replaced by the sample itself: nothing stands in a queue.
    driver.round(2 * SEGMENT);
    assert_eq!(driver.bbr.mode, Mode::ProbeBw);
}

#[test]
fn every_ten_seconds_four_segments_stay_in_flight_for_a_fifth_of_a_second() {
    let mut driver = Driver::settled();
    let mut entered = None;
    let mut left = None;
    for _ in 0..1_100 {
        let window = driver.bbr.window();
        driver.round(100 * SEGMENT);
        match (driver.bbr.mode, entered) {
            (Mode::ProbeRtt, None) => {
                entered = Some(driver.now);
                assert_eq!(driver.bbr.window(), 4 * SEGMENT);
                assert!(window > 200 * SEGMENT);
                driver.in_flight = 4 * SEGMENT;
            }
            (Mode::ProbeRtt, Some(_)) => assert_eq!(driver.bbr.window(), 4 * SEGMENT),
            (_, Some(_)) => {
                left.get_or_insert(driver.now);
                assert!(driver.bbr.window() > 200 * SEGMENT);
            }
            (_, None) => {}
        }
    }
    let lasted = left.unwrap() - entered.unwrap();
    assert!((ms(200)..=ms(220)).contains(&lasted), "{lasted:?}");
}

#[test]
fn what_little_is_sent_to_see_the_path_does_not_lower_the_estimate() {
    let mut driver = Driver::settled();
    let estimate = driver.bbr.estimate();
    while driver.bbr.mode != Mode::ProbeRtt {
        driver.round(100 * SEGMENT);
    }
    driver.in_flight = 4 * SEGMENT;
    // Far more round trips than the filter keeps.
    while driver.bbr.mode == Mode::ProbeRtt {
        driver.round(4 * SEGMENT);
    }
    assert_eq!(driver.bbr.mode, Mode::ProbeBw);
    assert_eq!(driver.bbr.estimate(), estimate);
}

#[test]
fn windows_stay_within_their_bounds_for_any_segment() {
    for segment in [1, 536, SEGMENT, 65_536] {
        let mut driver = Driver::new(segment);
        assert!(driver.bbr.window() >= 4 * segment);
        driver.in_flight = 0;
        for _ in 0..50 {
            driver.round(segment);
        }
        assert!(driver.bbr.window() >= 4 * segment);
        driver.bbr.on_timeout(driver.now, 0);
        assert_eq!(driver.bbr.window(), segment);
        driver.bbr.set_segment_size(2 * segment);
        assert_eq!(driver.bbr.window(), 2 * segment);
    }
}

#[test]
fn absurd_figures_neither_overflow_nor_close_the_window() {
    for segment in [0, 1, 65_536, u64::MAX] {
        let mut bbr = Bbr::new(segment, u64::MAX);
        let mut now = Instant::now();
        for round in 0..200_u64 {
            let figure = [0, 1, u64::MAX, u64::MAX / 2][(round % 4) as usize];
            let time =
                [Duration::ZERO, Duration::from_nanos(1), Duration::MAX][(round % 3) as usize];
            let phase = [Phase::Open, Phase::Recovery, Phase::Loss][(round / 3 % 3) as usize];
            now += ms(round * 100);
            bbr.on_sent(now, figure, figure, round % 2 == 0);
            bbr.on_ack(&Ack {
                now,
                phase,
                newly_delivered: figure,
                newly_lost: u64::MAX - figure,
                delivered: figure,
                lost: figure,
                prior_in_flight: figure,
                in_flight: u64::MAX - figure,
                rtt: Some(time),
                smoothed_rtt: Some(time),
                rate: Some(RateSample {
                    delivered: figure,
                    interval: time,
                    prior_delivered: figure,
                    lost: figure,
                    sent_in_flight: figure,
                    app_limited: round % 5 == 0,
                }),
                congestion_marked: round % 7 == 0,
                window_limited: true,
            });
            let sound = |bbr: &Bbr| {
                assert!(
                    (bbr.segment..=MAX_WINDOW).contains(&bbr.window()),
                    "{}",
                    bbr.window()
                );
                assert!(bbr.pacing_rate().is_some_and(|rate| rate > 0));
            };
            sound(&bbr);
            match round % 11 {
                0 => bbr.on_congestion(now, figure),
                3 => bbr.on_timeout(now, figure),
                5 => bbr.on_spurious(now),
                7 => bbr.on_recovered(now),
                _ => bbr.on_idle_restart(now, time),
            }
            sound(&bbr);
        }
    }
}
