//! Which carrier a session uses. The streams through the API server work wherever `kubectl port-forward`
//! does and come first; UDP is better wherever it works. Only an answer through the tunnel counts as
//! alive: a port-forward goes dead without closing, and a UDP path without any sign.
//!
//! Sans-IO: the caller sends the probes that [`Choice::poll_transmit`] gives, reports answers, and asks
//! again at [`Choice::poll_timeout`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::distance::{Distance, RoundTrips};

/// A probe of a path that works is sent this often.
const INTERVAL: Duration = Duration::from_secs(5);
/// While an answer is overdue, or a path is new, probes follow each other this fast.
const RETRY: Duration = Duration::from_secs(1);
/// A new path is tried this fast at first, so that connecting doesn't wait.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Quick tries of a new path before it counts as not working.
const FIRST_TRIES: u32 = 5;
/// A path that does not work is tried again this often.
const IDLE_RETRY: Duration = Duration::from_secs(15);
/// UDP gives way to a stream when an answer is overdue for this long.
const YIELD_AFTER: Duration = Duration::from_secs(3);
/// Without an answer for this long a path is dead. Users are promised 15 s; the rest is for the news to
/// travel.
const DEAD_AFTER: Duration = Duration::from_secs(14);
/// Probes in flight that are remembered for each path.
const MAX_OUTSTANDING: usize = 8;

/// A way that one message can take, and that is probed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "at", rename_all = "kebab-case")]
pub enum Path {
    /// The session's stream of this number.
    Stream(u16),
    /// Datagrams to this address.
    Udp(SocketAddr),
}

/// What carries a session's packets: all of its streams together, or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "endpoint", rename_all = "kebab-case")]
pub enum Carrier {
    /// Flows are spread over the streams through the API server.
    Stream,
    /// Datagrams to this address.
    Udp(SocketAddr),
}

impl From<Path> for Carrier {
    fn from(path: Path) -> Self {
        match path {
            Path::Stream(_) => Self::Stream,
            Path::Udp(to) => Self::Udp(to),
        }
    }
}

/// What the user allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Streams at once, UDP as soon as it works.
    #[default]
    Auto,
    /// UDP alone.
    Udp,
    /// Streams alone.
    Stream,
}

/// A probe to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// On this path.
    pub path: Path,
    /// Comes back in the answer.
    pub nonce: u64,
    /// The agent is to send on this path from now on.
    pub select: bool,
}

/// What the choice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Packets go this way from now on.
    Switched(Carrier),
    /// This stream has not answered for 15 seconds: it is to be closed and dialled again.
    StreamDead(u16),
    /// No path is left that answers: all were closed, or none has answered for 15 seconds.
    Dead,
}

/// A path as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathReport {
    /// Which.
    #[serde(flatten)]
    pub path: Path,
    /// Whether it answers.
    pub alive: bool,
    /// Round trip of the last probe, in microseconds.
    pub rtt_us: Option<u64>,
}

struct State {
    path: Path,
    outstanding: Vec<(u64, Instant)>,
    /// When the first probe since the last answer was sent.
    waiting_since: Option<Instant>,
    tries: u32,
    next_probe: Instant,
    last_answer: Option<Instant>,
    round_trips: RoundTrips,
}

impl State {
    fn alive(&self, now: Instant) -> bool {
        self.last_answer.is_some_and(|at| now < at + DEAD_AFTER)
    }

    /// How long the oldest unanswered probe has been waiting.
    fn overdue(&self, now: Instant) -> Duration {
        let oldest = self.waiting_since.unwrap_or(now);
        now.saturating_duration_since(oldest)
    }
}

impl Path {
    fn is_stream(self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

/// The state of all paths of a session.
pub struct Choice {
    transport: Transport,
    paths: Vec<State>,
    active: Option<Carrier>,
    /// When a session without any answer began to count as silent.
    silent_since: Instant,
    next_nonce: u64,
    dead: bool,
}

impl Choice {
    /// A choice without paths. `first_nonce` should be random, so that old answers fit nothing.
    pub fn new(transport: Transport, first_nonce: u64, now: Instant) -> Self {
        Self {
            transport,
            paths: Vec::new(),
            active: None,
            silent_since: now,
            next_nonce: first_nonce,
            dead: false,
        }
    }

    /// Adds a path, unless it is known or not allowed.
    pub fn add(&mut self, path: Path, now: Instant) {
        let allowed = match self.transport {
            Transport::Auto => true,
            Transport::Udp => matches!(path, Path::Udp(_)),
            Transport::Stream => matches!(path, Path::Stream(_)),
        };
        if !allowed || self.paths.iter().any(|p| p.path == path) {
            return;
        }
        self.paths.push(State {
            path,
            outstanding: Vec::new(),
            waiting_since: None,
            tries: 0,
            next_probe: now,
            last_answer: None,
            round_trips: RoundTrips::default(),
        });
    }

    /// Takes a path away: the stream closed, or the candidate vanished.
    pub fn remove(&mut self, path: Path, now: Instant) -> Option<Event> {
        self.paths.retain(|p| p.path != path);
        self.reconsider(now)
    }

    /// The network changed: everything is asked again at once.
    pub fn restart(&mut self, now: Instant) {
        for state in &mut self.paths {
            state.tries = 0;
            state.next_probe = now;
            state.outstanding.clear();
            state.waiting_since = None;
            state.round_trips.forget();
        }
    }

    /// The carrier in use.
    pub fn active(&self) -> Option<Carrier> {
        self.active
    }

    /// How far away the agent is for packets that go by UDP, whose losses are the applications' own TCP's to meet. Streams
    /// lose nothing: by them it is never far.
    pub fn distance(&self) -> Distance {
        let Some(Carrier::Udp(to)) = self.active else {
            return Distance::Near;
        };
        let path = self.paths.iter().find(|p| p.path == Path::Udp(to));
        path.map(|p| p.round_trips.distance()).unwrap_or_default()
    }

    /// How far away the agent is by streams, while packets take them: they all lead the same way, so that it is near where
    /// it is near by one.
    pub fn streams_distance(&self) -> Distance {
        let streams = self.paths.iter().filter(|p| p.path.is_stream());
        let mut known = streams
            .map(|p| &p.round_trips)
            .filter(|trips| trips.is_known());
        let any = known.clone().next().is_some();
        let far = known.all(|trips| trips.distance() == Distance::Far);
        match self.active {
            Some(Carrier::Stream) if any && far => Distance::Far,
            Some(Carrier::Stream | Carrier::Udp(_)) | None => Distance::Near,
        }
    }

    /// All paths that are known.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.paths.iter().map(|p| p.path)
    }

    /// When something is to be done next.
    pub fn poll_timeout(&self) -> Instant {
        let probes = self.paths.iter().map(|p| p.next_probe).min();
        let death = self.silent_since + DEAD_AFTER;
        probes.map_or(death, |at| at.min(death))
    }

    /// The next probe that is due.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Probe> {
        let active = self.active;
        let state = self.paths.iter_mut().find(|p| p.next_probe <= now)?;
        let nonce = self.next_nonce;
        self.next_nonce = self.next_nonce.wrapping_add(1);
        if state.outstanding.len() >= MAX_OUTSTANDING {
            state.outstanding.remove(0);
        }
        state.outstanding.push((nonce, now));
        state.waiting_since.get_or_insert(now);
        state.tries += 1;
        let works = state.last_answer.is_some_and(|at| now < at + DEAD_AFTER);
        let select = active == Some(state.path.into());
        // An answer puts this off to INTERVAL; without one the path is asked again sooner.
        state.next_probe = now
            + match state.tries {
                _ if works => RETRY,
                tries if tries < FIRST_TRIES => FIRST_RETRY,
                tries if tries < 2 * FIRST_TRIES => RETRY,
                _ => IDLE_RETRY,
            };
        Some(Probe {
            path: state.path,
            nonce,
            select,
        })
    }

    /// An answer came through the tunnel, on `path`.
    pub fn handle_answer(&mut self, path: Path, nonce: u64, now: Instant) -> Option<Event> {
        let state = self.paths.iter_mut().find(|p| p.path == path)?;
        let at = state.outstanding.iter().position(|(n, _)| *n == nonce)?;
        let (_, sent) = state.outstanding[at];
        state.outstanding.clear();
        state.waiting_since = None;
        state.round_trips.add(now.saturating_duration_since(sent));
        state.last_answer = Some(now);
        state.tries = 0;
        state.next_probe = now + INTERVAL;
        self.silent_since = now;
        self.reconsider(now)
    }

    /// Time has passed. Each call gives one event; to be called until there is none.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        if now >= self.silent_since + DEAD_AFTER && !self.dead {
            self.dead = true;
            return Some(Event::Dead);
        }
        let dead = self.paths.iter().find_map(|p| match p.path {
            Path::Stream(index) if p.overdue(now) >= DEAD_AFTER - INTERVAL => Some(index),
            Path::Stream(_) | Path::Udp(_) => None,
        });
        if let Some(index) = dead {
            self.paths.retain(|p| p.path != Path::Stream(index));
            return Some(Event::StreamDead(index));
        }
        self.reconsider(now)
    }

    fn reconsider(&mut self, now: Instant) -> Option<Event> {
        let active = self.active;
        let streams = self
            .paths
            .iter()
            .any(|p| p.path.is_stream() && p.alive(now));
        let best = self
            .paths
            .iter()
            .filter(|p| p.alive(now))
            .filter(|p| p.path.is_stream() || !streams || p.overdue(now) < YIELD_AFTER)
            // UDP first; of several, the one in use, then the nearest.
            .min_by_key(|p| {
                (
                    p.path.is_stream(),
                    active != Some(p.path.into()),
                    p.round_trips.last(),
                )
            });
        let Some(best) = best.map(|p| Carrier::from(p.path)) else {
            // A session that never had a carrier is not lost yet: it has its time, too.
            let lost = self.active.take().is_some() && !self.dead;
            self.dead |= lost;
            return lost.then_some(Event::Dead);
        };
        if active == Some(best) {
            return None;
        }
        self.active = Some(best);
        self.dead = false;
        // The agent learns of it at once, not with the next data.
        for state in &mut self.paths {
            if Carrier::from(state.path) == best {
                state.next_probe = now;
            }
        }
        Some(Event::Switched(best))
    }

    /// All paths, for `status`.
    pub fn report(&self, now: Instant) -> Vec<PathReport> {
        self.paths
            .iter()
            .map(|p| PathReport {
                path: p.path,
                alive: p.alive(now),
                rtt_us: p.round_trips.last().map(|rtt| rtt.as_micros() as u64),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: Path = Path::Udp(SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
        31820,
    ));

    /// Runs the choice for `seconds`; `answers` says which paths answer, 10 ms later.
    fn run(
        choice: &mut Choice,
        now: &mut Instant,
        seconds: f64,
        answers: impl Fn(Path) -> bool,
    ) -> Vec<Event> {
        let end = *now + Duration::from_secs_f64(seconds);
        let mut events = Vec::new();
        while *now < end {
            events.extend(choice.handle_timeout(*now));
            while let Some(probe) = choice.poll_transmit(*now) {
                if answers(probe.path) {
                    let at = *now + Duration::from_millis(10);
                    events.extend(choice.handle_answer(probe.path, probe.nonce, at));
                }
            }
            *now = choice
                .poll_timeout()
                .max(*now + Duration::from_millis(20))
                .min(end);
        }
        events
    }

    fn both(transport: Transport) -> (Choice, Instant) {
        let now = Instant::now();
        let mut choice = Choice::new(transport, 7, now);
        choice.add(Path::Stream(0), now);
        choice.add(UDP, now);
        (choice, now)
    }

    #[test]
    fn streams_serve_where_udp_does_not_answer() {
        let (mut choice, mut now) = both(Transport::Auto);
        let events = run(&mut choice, &mut now, 60.0, |p| p == Path::Stream(0));
        assert_eq!(events, [Event::Switched(Carrier::Stream)]);
    }

    #[test]
    fn udp_takes_over_when_it_answers_and_gives_way_when_it_stops() {
        let (mut choice, mut now) = both(Transport::Auto);
        let events = run(&mut choice, &mut now, 30.0, |_| true);
        assert_eq!(events.last(), Some(&Event::Switched(UDP.into())));
        let before = now;
        let events = run(&mut choice, &mut now, 30.0, |p| p == Path::Stream(0));
        assert_eq!(events, [Event::Switched(Carrier::Stream)]);
        let events = run(&mut choice, &mut now, 40.0, |_| true);
        assert_eq!(
            events,
            [Event::Switched(UDP.into())],
            "UDP is tried again when it is back"
        );
        assert!(now > before);
    }

    #[test]
    fn silence_on_every_path_is_death_within_fifteen_seconds() {
        let (mut choice, mut now) = both(Transport::Auto);
        run(&mut choice, &mut now, 20.0, |_| true);
        let silent = now;
        let events = run(&mut choice, &mut now, 15.0, |_| false);
        assert!(events.contains(&Event::Dead), "{events:?}");
        assert!(now <= silent + Duration::from_secs(15));
    }

    #[test]
    fn one_silent_stream_is_found_while_another_serves() {
        let now = Instant::now();
        let mut choice = Choice::new(Transport::Stream, 7, now);
        choice.add(Path::Stream(0), now);
        choice.add(Path::Stream(1), now);
        let mut at = now;
        run(&mut choice, &mut at, 20.0, |_| true);
        let silent = at;
        let events = run(&mut choice, &mut at, 16.0, |p| p == Path::Stream(0));
        assert_eq!(events, [Event::StreamDead(1)]);
        assert!(at <= silent + Duration::from_secs(17));
        assert_eq!(choice.active(), Some(Carrier::Stream));
    }

    #[test]
    fn a_forbidden_transport_is_never_used() {
        let (mut choice, mut now) = both(Transport::Stream);
        let events = run(&mut choice, &mut now, 20.0, |_| true);
        assert_eq!(events, [Event::Switched(Carrier::Stream)]);
    }

    #[test]
    fn the_agent_is_far_while_packets_take_a_long_way_by_udp() {
        let (mut choice, mut now) = both(Transport::Auto);
        run(&mut choice, &mut now, 20.0, |p| p == Path::Stream(0));
        assert_eq!(choice.distance(), Distance::Near, "by streams");
        run(&mut choice, &mut now, 30.0, |_| true);
        assert_eq!(choice.active(), Some(UDP.into()));
        assert_eq!(choice.distance(), Distance::Far);
        run(&mut choice, &mut now, 30.0, |p| p == Path::Stream(0));
        assert_eq!(choice.active(), Some(Carrier::Stream));
        assert_eq!(choice.distance(), Distance::Near, "by streams again");
        run(&mut choice, &mut now, 20.0, |_| false);
        assert_eq!(choice.distance(), Distance::Near, "by nothing");
    }

    #[test]
    fn streams_are_far_while_packets_take_them_and_none_of_them_was_quick() {
        let (mut choice, mut now) = both(Transport::Auto);
        assert_eq!(choice.streams_distance(), Distance::Near, "not known");
        run(&mut choice, &mut now, 10.0, |p| p.is_stream());
        assert_eq!(choice.streams_distance(), Distance::Far);
        // A new one's first answer may be late: it says nothing.
        choice.add(Path::Stream(1), now);
        let probe = choice.poll_transmit(now).unwrap();
        assert_eq!(probe.path, Path::Stream(1));
        let at = now + Duration::from_millis(1);
        choice.handle_answer(probe.path, probe.nonce, at);
        assert_eq!(choice.streams_distance(), Distance::Far);
        now += INTERVAL;
        while let Some(probe) = choice.poll_transmit(now) {
            let at = now + Duration::from_millis(1);
            choice.handle_answer(probe.path, probe.nonce, at);
        }
        assert_eq!(choice.streams_distance(), Distance::Near, "by one of them");
        choice.restart(now);
        run(&mut choice, &mut now, 30.0, |_| true);
        assert_eq!(choice.active(), Some(UDP.into()));
        assert_eq!(choice.streams_distance(), Distance::Near, "by UDP");
    }

    #[test]
    fn an_answer_that_nobody_asked_for_counts_nothing() {
        let (mut choice, now) = both(Transport::Auto);
        assert_eq!(choice.handle_answer(UDP, 99, now), None);
        assert_eq!(choice.active(), None);
    }
}
