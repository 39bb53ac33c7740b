use super::*;

const WINDOW: u64 = 100_000;

/// A round of `samples` acknowledgements with the same round trip; what the last one said, or the one that ended slow start.
fn round(hystart: &mut HyStart, delivered: &mut u64, rtt: u64, samples: u64) -> Growth {
    let mut growth = Growth::Full;
    for _ in 0..samples {
        *delivered += WINDOW / samples;
        growth = hystart.on_ack(*delivered, WINDOW, Some(Duration::from_millis(rtt)));
        if growth == Growth::Over {
            break;
        }
    }
    growth
}

#[test]
fn a_steady_round_trip_keeps_slow_start_going() {
    let (mut hystart, mut delivered) = (HyStart::new(), 0);
    for _ in 0..50 {
        assert_eq!(round(&mut hystart, &mut delivered, 100, 10), Growth::Full);
    }
}

#[test]
fn a_rise_of_an_eighth_slows_growth_and_five_rounds_of_it_end_slow_start() {
    let (mut hystart, mut delivered) = (HyStart::new(), 0);
    for _ in 0..3 {
        round(&mut hystart, &mut delivered, 100, 10);
    }
    assert_eq!(round(&mut hystart, &mut delivered, 111, 10), Growth::Full);
    for _ in 0..5 {
        assert_eq!(
            round(&mut hystart, &mut delivered, 125, 10),
            Growth::Quarter
        );
    }
    assert_eq!(round(&mut hystart, &mut delivered, 125, 10), Growth::Over);
}

#[test]
fn a_rise_that_goes_away_was_jitter() {
    let (mut hystart, mut delivered) = (HyStart::new(), 0);
    for _ in 0..3 {
        round(&mut hystart, &mut delivered, 100, 10);
    }
    assert_eq!(
        round(&mut hystart, &mut delivered, 120, 10),
        Growth::Quarter
    );
    assert_eq!(round(&mut hystart, &mut delivered, 101, 10), Growth::Full);
}

#[test]
fn a_queue_worth_half_the_path_ends_slow_start_at_once() {
    let (mut hystart, mut delivered) = (HyStart::new(), 0);
    for _ in 0..3 {
        round(&mut hystart, &mut delivered, 100, 10);
    }
    assert_eq!(round(&mut hystart, &mut delivered, 151, 10), Growth::Over);
}

#[test]
fn less_than_eight_samples_say_nothing() {
    let (mut hystart, mut delivered) = (HyStart::new(), 0);
    for _ in 0..3 {
        round(&mut hystart, &mut delivered, 100, 10);
    }
    assert_eq!(round(&mut hystart, &mut delivered, 180, 7), Growth::Full);
}

#[test]
fn the_threshold_is_between_4_and_16_ms() {
    for (base, still, risen) in [(8, 11, 12), (400, 415, 416)] {
        let (mut hystart, mut delivered) = (HyStart::new(), 0);
        for _ in 0..3 {
            round(&mut hystart, &mut delivered, base, 10);
        }
        let mut early = hystart;
        assert_eq!(
            round(&mut early, &mut delivered.clone(), still, 10),
            Growth::Full,
            "{base} ms"
        );
        assert_eq!(
            round(&mut hystart, &mut delivered, risen, 10),
            Growth::Quarter,
            "{base} ms"
        );
    }
}

#[test]
fn after_the_first_slow_start_it_has_no_say() {
    let (mut hystart, mut delivered) = (HyStart::new(), 0);
    hystart.finish();
    for rtt in [100, 100, 200, 400] {
        assert_eq!(round(&mut hystart, &mut delivered, rtt, 10), Growth::Full);
    }
}
