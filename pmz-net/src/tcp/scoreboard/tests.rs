use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const MS: Duration = Duration::from_millis(1);

fn snapshot(at: Instant) -> Snapshot {
    Snapshot {
        delivered: 0,
        delivered_at: at,
        first_sent_at: at,
        lost: 0,
        in_flight: 0,
        app_limited: false,
    }
}

/// Ten segments of 100 bytes from 1 on, sent a millisecond apart.
fn ten(start: Instant) -> Scoreboard {
    let mut board = Scoreboard::new();
    for i in 0..10 {
        let at = start + i * MS;
        let first = 1 + 100 * u64::from(i);
        board.push(first, first + 100, at, snapshot(at));
    }
    board
}

fn starts(
    board: &mut Scoreboard,
    act: impl FnOnce(&mut Scoreboard, &mut dyn FnMut(&Sent)),
) -> Vec<u64> {
    let mut seen = Vec::new();
    act(board, &mut |record| seen.push(record.start));
    seen
}

#[test]
fn an_acknowledgement_takes_segments_out_and_shortens_one() {
    let mut board = ten(Instant::now());
    let seen = starts(&mut board, |board, each| board.acknowledge(351, each));
    assert_eq!(seen, [1, 101, 201, 301]);
    assert_eq!(board.first().map(|r| (r.start, r.end)), Some((351, 401)));
    assert_eq!((board.in_flight(), board.segments()), (650, 7));
    board.acknowledge(1001, |_| ());
    assert!(board.is_empty() && board.oldest().is_none());
    assert_eq!(board.in_flight(), 0);
}

#[test]
fn only_whole_segments_arrive_and_each_once() {
    let mut board = ten(Instant::now());
    let seen = starts(&mut board, |board, each| board.arrive(250, 650, each));
    assert_eq!(seen, [301, 401, 501]);
    assert_eq!((board.arrived(), board.in_flight()), (300, 700));
    let seen = starts(&mut board, |board, each| board.arrive(201, 701, each));
    assert_eq!(seen, [201, 601]);
    assert_eq!(board.arrived_segments(), 5);
}

#[test]
fn what_is_lost_is_sent_again_in_one_piece_up_to_a_limit() {
    let start = Instant::now();
    let mut board = ten(start);
    board.arrive(301, 401, |_| ());
    let limit = start + 6 * MS;
    assert_eq!(board.lose_oldest(|record| record.at <= limit), 600);
    assert_eq!((board.lost(), board.in_flight()), (600, 300));
    assert_eq!(board.next_lost(250), Some((1, 201)));
    assert_eq!(
        board.next_lost(10),
        Some((1, 101)),
        "a whole segment at least"
    );
    let again = start + 20 * MS;
    board.resend(1, 201, again, snapshot(again));
    assert_eq!(
        board.next_lost(10_000),
        Some((201, 301)),
        "up to what arrived"
    );
    board.resend(201, 301, again, snapshot(again));
    assert_eq!(board.next_lost(10_000), Some((401, 701)));
    assert_eq!((board.lost(), board.in_flight()), (300, 600));
    assert_eq!(board.oldest().map(|record| record.start), Some(701));
    board.unlose();
    assert_eq!((board.lost(), board.in_flight()), (0, 900));
    assert_eq!(
        board.oldest().map(|record| record.start),
        Some(401),
        "its time of sending stands"
    );
    assert_eq!(board.next_lost(10_000), None);
}

#[test]
fn a_receiver_may_take_back_what_it_said_had_arrived() {
    let mut board = ten(Instant::now());
    board.arrive(301, 1001, |_| ());
    board.renege();
    assert_eq!((board.arrived(), board.in_flight()), (0, 1000));
    assert_eq!(board.arrived_segments(), 0);
}

/// All that the sums and the list say, counted anew.
fn check(board: &Scoreboard) {
    let sum = |state| {
        let of_state = board.records.iter().filter(|record| record.state == state);
        of_state.map(Sent::len).sum::<u64>()
    };
    assert_eq!(board.in_flight, sum(State::InFlight));
    assert_eq!(board.arrived, sum(State::Arrived));
    assert_eq!(board.lost, sum(State::Lost));
    let mut linked = 0;
    let (mut id, mut before) = (board.oldest, None);
    while id != NONE {
        let record = board.record(id);
        assert_eq!(record.state, State::InFlight);
        assert!(before.is_none_or(|(at, end)| record.sent_after(at, end)));
        before = Some((record.at, record.end));
        linked += 1;
        id = record.newer;
    }
    let in_flight = board
        .records
        .iter()
        .filter(|record| record.state == State::InFlight);
    assert_eq!(linked, in_flight.count());
    let first_lost = board
        .records
        .iter()
        .position(|record| record.state == State::Lost);
    if let Some(index) = first_lost {
        assert!(board.lost_from <= board.base + index as Id);
    }
}

#[test]
fn sums_and_order_hold_whatever_happens() {
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut now = Instant::now();
        let mut board = Scoreboard::new();
        let (mut una, mut next) = (1, 1);
        for _ in 0..300 {
            now += Duration::from_micros(rng.random_range(0..3));
            let point = |rng: &mut StdRng| rng.random_range(una..=next);
            match rng.random_range(0..8) {
                0..3 => {
                    let end = next + rng.random_range(1..100);
                    board.push(next, end, now, snapshot(now));
                    next = end;
                }
                3 => {
                    una = point(&mut rng);
                    board.acknowledge(una, |_| ());
                }
                4 => {
                    let (a, b) = (point(&mut rng), point(&mut rng));
                    board.arrive(a.min(b), a.max(b), |_| ());
                }
                5 => {
                    let share = rng.random_range(0..5);
                    board.lose_oldest(|record| record.start % 5 < share);
                }
                6 => {
                    if let Some((start, end)) = board.next_lost(rng.random_range(0..300)) {
                        board.resend(start, end, now, snapshot(now));
                    }
                }
                _ => match rng.random_range(0..10) {
                    0 => board.unlose(),
                    1 => board.renege(),
                    _ => drop(board.lose_first()),
                },
            }
            check(&board);
        }
    }
}

#[test]
fn taking_back_many_losses_takes_no_time() {
    let start = Instant::now();
    let mut board = Scoreboard::new();
    let count = 40_000;
    for i in 0..count {
        let at = start + u32::try_from(i).unwrap() * MS;
        board.push(1 + i, 2 + i, at, snapshot(at));
    }
    let half = start + 20_000 * MS;
    assert_eq!(board.lose_oldest(|record| record.at < half), count / 2);
    let before = Instant::now();
    board.unlose();
    // One by one, each would be put behind 20,000 others.
    assert!(before.elapsed() < 200 * MS, "{:?}", before.elapsed());
    assert_eq!((board.in_flight(), board.lost()), (count, 0));
    assert_eq!(board.oldest().map(|record| record.start), Some(1));
    let mut order = Vec::new();
    board.lose_oldest(|record| {
        order.push(record.start);
        true
    });
    assert!(order.is_sorted() && order.len() == count as usize);
}
