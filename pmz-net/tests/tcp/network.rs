//! A virtual network: two endpoints, a clock, a link in each direction, an application at each end, and a
//! watch that checks everything that goes over the wire.

mod app;
mod end;
mod link;
mod watch;

use std::time::{Duration, Instant};

use pmz_net::tcp::{Congestion, Counters, State};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub(crate) use app::{AppSetup, Gate};
use end::{End, Sent};
pub(crate) use end::{add, syn_of};
use link::Link;
pub(crate) use link::LinkSetup;

/// Fails a scenario: what was expected, and what was found.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

/// What may happen at one point in time before it counts as a loop without an end.
const TURNS: u32 = 200;

/// What one end is given.
#[derive(Clone, Debug)]
pub(crate) struct EndSetup {
    pub(crate) app: AppSetup,
    pub(crate) mtu: u16,
    /// The MTU becomes another one at this time, in milliseconds.
    pub(crate) new_mtu: Option<(u64, u16)>,
    pub(crate) max_buffer: u64,
    /// Bytes of memory.
    pub(crate) memory: usize,
    pub(crate) congestion: Congestion,
    pub(crate) keep_alive_s: u64,
}

/// A run from the first SYN to the last acknowledgement.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) v6: bool,
    /// The carrier loses nothing and pushes back.
    pub(crate) stream: bool,
    /// The client's SYN offers ECN.
    pub(crate) ecn: bool,
    /// Options that the SYNs do not get through with.
    pub(crate) no_stamps: bool,
    pub(crate) no_sack: bool,
    pub(crate) no_scaling: bool,
    /// From the client to the server, and back.
    pub(crate) links: [LinkSetup; 2],
    pub(crate) ends: [EndSetup; 2],
    /// Segments that follow each other arrive as one, as a device with receive offload has it.
    pub(crate) coalesce: bool,
    /// Virtual time that it may take, in milliseconds.
    pub(crate) limit_ms: u64,
}

/// How a run went.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// When the last byte was read.
    pub(crate) read_at: Duration,
    pub(crate) counters: [Counters; 2],
}

struct World {
    start: Instant,
    now: Duration,
    ends: [End; 2],
    links: [Link; 2],
    trace: bool,
}

/// Runs a scenario.
///
/// # Errors
/// When something was found that must not be.
pub(crate) fn run(scenario: &Scenario) -> Result<Outcome, String> {
    let start = Instant::now();
    let mut seeds = StdRng::seed_from_u64(scenario.seed);
    let mut ends = End::pair(scenario, &mut seeds);
    let links = scenario.links.clone();
    let links = links.map(|setup| Link::new(setup, scenario.stream, &mut seeds));
    ends[0].connect(start);
    let mut world = World {
        start,
        now: Duration::ZERO,
        ends,
        links,
        trace: std::env::var_os("PMZ_TCP_TRACE").is_some(),
    };
    world
        .run(scenario)
        .map_err(|error| format!("at {:?}: {error}", world.now))
}

impl World {
    fn run(&mut self, scenario: &Scenario) -> Result<Outcome, String> {
        let limit = Duration::from_millis(scenario.limit_ms);
        let mut read_at = None;
        let mut turns = 0;
        let mut idle_wakes = 0_u64;
        loop {
            let moved = self.turn(scenario)?;
            if read_at.is_none() && self.ends.iter().all(End::has_read_all) {
                read_at = Some(self.now);
            }
            let unheard_of = self.ends[0].was_aborted() && self.ends[1].is_unopened();
            if self.ends.iter().all(End::is_over) || unheard_of {
                break;
            }
            let next = self.next_time(scenario);
            let Some(next) = next else {
                return Err(format!(
                    "nothing will ever happen again: {}",
                    self.describe()
                ));
            };
            ensure!(next <= limit, "not over in time: {}", self.describe());
            if next > self.now {
                turns = 0;
                idle_wakes += u64::from(!moved);
                self.now = next;
            } else {
                turns += 1;
                ensure!(turns < TURNS, "it is always now: {}", self.describe());
            }
            let packets: u64 = self.ends.iter().map(|end| end.watch.packets).sum();
            let allowed = 2000 + 2 * packets + 2 * self.now.as_millis() as u64;
            ensure!(
                idle_wakes < allowed,
                "woken up for nothing {idle_wakes} times"
            );
        }
        let outcome = Outcome {
            read_at: read_at.unwrap_or(self.now),
            counters: [0, 1].map(|i| self.ends[i].counters()),
        };
        for end in &mut self.ends {
            end.leave()?;
        }
        Ok(outcome)
    }

    /// Everything that happens now; whether anything did.
    fn turn(&mut self, scenario: &Scenario) -> Result<bool, String> {
        let instant = self.start + self.now;
        let mut moved = false;
        for to in [1, 0] {
            let arrivals = self.links[1 - to].arrivals(self.now);
            let arrivals = if scenario.coalesce {
                link::coalesce(arrivals)
            } else {
                arrivals
            };
            for segment in arrivals {
                moved = true;
                if self.trace {
                    println!("{:>12?} {} <- {segment:?}", self.now, self.ends[to].name);
                }
                let answer = self.ends[to].deliver(instant, self.now, segment)?;
                if let Some(reset) = answer {
                    self.send(to, reset);
                }
            }
        }
        for from in [0, 1] {
            moved |= self.ends[from].work(instant, self.now)?;
            while !(scenario.stream && self.links[from].is_full(self.now)) {
                let Sent::Packet(segments) = self.ends[from].transmit(instant)? else {
                    break;
                };
                moved = true;
                for segment in segments {
                    self.send(from, segment);
                }
            }
        }
        Ok(moved)
    }

    fn send(&mut self, from: usize, segment: super::wire::Segment) {
        if self.trace {
            println!("{:>12?} {} -> {segment:?}", self.now, self.ends[from].name);
        }
        self.links[from].send(self.now, segment);
    }

    fn next_time(&mut self, scenario: &Scenario) -> Option<Duration> {
        let instant = self.start + self.now;
        let mut next = None;
        let mut sooner = |at: Option<Duration>| {
            next = [next, at].into_iter().flatten().min();
        };
        for (end, link) in self.ends.iter_mut().zip(&mut self.links) {
            sooner(link.next_arrival());
            sooner(end.next_work(self.now));
            let timer = end.timer(instant);
            let timer = timer.map(|at| at.saturating_duration_since(self.start));
            if scenario.stream && link.is_full(self.now) {
                // Not polled before the carrier takes something again.
                sooner(timer.map(|at| at.max(link.room_at())));
            } else {
                sooner(timer);
            }
        }
        next
    }

    fn describe(&mut self) -> String {
        let [a, b] = &mut self.ends;
        format!("{}; {}", a.describe(), b.describe())
    }
}

/// Whether a state is one in which nothing is to be said any more.
fn is_final(state: State) -> bool {
    matches!(state, State::TimeWait | State::Closed)
}
