use super::*;

const FEWEST: u16 = 4;
const FAST: u64 = 1 << 20;

/// A session over time, whose streams share what comes.
struct Session {
    breadth: Breadth,
    begun: Instant,
    now: Instant,
    distance: Distance,
    received: Vec<u64>,
}

impl Session {
    fn new(distance: Distance) -> Self {
        let now = Instant::now();
        Self {
            breadth: Breadth::new(FEWEST, now),
            begun: now,
            now,
            distance,
            received: vec![0; MOST.into()],
        }
    }

    /// Goes on for `seconds`, in each of which every open stream of which `carries` is true brings this many bytes. The
    /// numbers of streams that there were meanwhile.
    fn run(
        &mut self,
        seconds: u64,
        flows: usize,
        bytes: u64,
        carries: impl Fn(u16) -> bool,
    ) -> Vec<u16> {
        let end = self.now + Duration::from_secs(seconds);
        let mut counts = vec![self.breadth.count()];
        while self.now < end {
            let next = self.breadth.poll_timeout();
            assert!(next > self.now, "it would spin");
            let elapsed = next - self.now;
            self.now = next;
            let open = 0..self.breadth.count();
            for number in open.clone().filter(|number| carries(*number)) {
                self.received[usize::from(number)] += (bytes as f64 * elapsed.as_secs_f64()) as u64;
            }
            let load = Load {
                distance: self.distance,
                flows,
                received: open.map(|n| (n, self.received[usize::from(n)])).collect(),
            };
            counts.push(self.breadth.handle_load(&load, next));
        }
        counts.dedup();
        counts
    }
}

#[test]
fn many_flows_far_away_get_more_streams_within_a_second_and_one_stream_each_at_most() {
    let mut session = Session::new(Distance::Far);
    assert_eq!(session.run(1, 8, FAST, |_| true), [4, 8]);
    assert!(session.now <= session.begun + Duration::from_secs(1));
    assert_eq!(session.run(60, 100, FAST, |_| true), [8], "and no more");
}

#[test]
fn there_are_as_many_streams_as_flows_once_two_share_each() {
    let mut session = Session::new(Distance::Far);
    session.breadth = Breadth::new(2, session.now);
    assert_eq!(session.run(6, 3, FAST, |_| true), [2]);
    assert_eq!(session.run(6, 5, FAST, |_| true), [2, 5]);
    assert_eq!(session.run(6, 10, FAST, |_| true), [5, 8]);
}

#[test]
fn a_few_flows_are_carried_by_the_fewest() {
    let mut session = Session::new(Distance::Far);
    assert_eq!(session.run(60, 7, FAST, |_| true), [4]);
}

#[test]
fn a_local_network_needs_no_more() {
    let mut session = Session::new(Distance::Near);
    assert_eq!(session.run(60, 100, 1 << 30, |_| true), [4]);
}

#[test]
fn flows_that_say_little_need_no_more() {
    let mut session = Session::new(Distance::Far);
    assert_eq!(session.run(60, 100, BUSY / 2, |_| true), [4]);
}

#[test]
fn one_look_at_a_burst_is_not_enough() {
    let mut session = Session::new(Distance::Far);
    for _ in 0..30 {
        let half = session.breadth.poll_timeout();
        let load = |flows, received| Load {
            distance: Distance::Far,
            flows,
            received: (0..FEWEST).map(|n| (n, received)).collect(),
        };
        session.breadth.handle_load(&load(50, 1 << 40), half);
        let then = session.breadth.poll_timeout();
        assert_eq!(session.breadth.handle_load(&load(3, 1 << 40), then), FEWEST);
    }
}

#[test]
fn streams_that_carry_nothing_but_probes_end_from_the_last_one_on() {
    let mut session = Session::new(Distance::Far);
    session.run(2, 20, FAST, |_| true);
    // Somebody's download goes on on the sixth stream, which ends none before it.
    let download = |number| number == 5;
    assert_eq!(session.run(29, 1, FAST, download), [8]);
    assert_eq!(session.run(600, 1, FAST, download), [8, 6]);
    // Probes: a hundred bytes and their answers every five seconds.
    assert_eq!(session.run(29, 0, 40, |_| true), [6]);
    assert_eq!(session.run(3, 0, 40, |_| true), [6, 4]);
    assert_eq!(session.run(600, 0, 40, |_| true), [4]);
    // And there are more again when they are called for.
    assert_eq!(session.run(6, 9, FAST, |_| true), [4, 8]);
}

#[test]
fn extra_streams_that_work_stay_where_the_agent_is_near_again() {
    let mut session = Session::new(Distance::Far);
    session.run(2, 8, FAST, |_| true);
    session.distance = Distance::Near;
    assert_eq!(session.run(120, 8, FAST, |_| true), [8]);
    assert_eq!(session.run(40, 1, 0, |_| true), [8, 4]);
}

#[test]
fn a_stream_that_was_dialled_again_counts_from_nothing() {
    let mut session = Session::new(Distance::Far);
    session.run(2, 8, FAST, |_| true);
    session.received.fill(0);
    assert_eq!(session.run(20, 8, FAST, |_| true), [8]);
}

#[test]
fn a_session_at_rest_is_looked_at_seldom() {
    let mut session = Session::new(Distance::Near);
    session.run(10, 0, 0, |_| true);
    assert_eq!(
        session.breadth.poll_timeout() - session.now,
        IDLE_LOOK_EVERY
    );
}
