//! The sending half of a connection: what may go out when, and what an acknowledgement means.
//!
//! Losses are found by RACK (RFC 8985) and marked; nothing is ever rewound. What may be in flight and how fast
//! it leaves says the congestion control; the repair of losses is paced like everything else.

mod acknowledged;
mod timers;

use std::time::{Duration, Instant};

use super::congestion::{Congestion, Controller, Phase, burst, controller};
use super::delivery::Delivery;
use super::memory::Account;
use super::outgoing::Outgoing;
use super::pacer::Pacer;
use super::rack::Rack;
use super::reduction::Reduction;
use super::rtt::RoundTrips;
use super::scoreboard::Scoreboard;
use super::sequence::FIRST_BYTE;

pub(super) use acknowledged::Acknowledgement;

/// Segments that one connection may have in flight: small writes must not fill the memory with records.
const MAX_SEGMENTS: usize = 16 << 10;
/// So many windows may be in the buffer: one on its way, one that arrived behind a gap, one more where what was
/// to fill the gap got lost as well, and one to be sent.
const BUFFERED_WINDOWS: u64 = 4;
/// Bytes that the application may give ahead of what is sent, however small the window is.
const MIN_BUFFER: u64 = 128 << 10;

/// What goes out: numbers of its first byte and of what is behind its last, SYN and FIN counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) end: u64,
    /// It goes out for the first time.
    pub(super) fresh: bool,
    /// It ends what the application has given so far.
    pub(super) last: bool,
}

/// An episode of loss, or of what looked like it.
#[derive(Clone, Copy, Debug)]
struct Episode {
    /// All before this number was acknowledged when it began.
    from: u64,
    /// It is over when all before this number is acknowledged.
    point: u64,
    /// The timestamp of the first segment that was sent again in it.
    stamp: Option<u32>,
    /// What that timestamp tells is known.
    judged: bool,
    /// Segments that were sent again, and those that the receiver reported to have got twice.
    resent: u64,
    duplicates: u64,
    /// See [`Doubt`].
    doubt: Doubt,
}

/// Whether a timeout was spurious is found out by what the next acknowledgements acknowledge (F-RTO, RFC
/// 5682).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    None,
    /// The first segment was sent again: only new data goes out if the next acknowledgement advances.
    Resent,
    /// New data went out: an acknowledgement of what was sent once tells.
    Advanced,
}

#[derive(Clone, Copy, Debug)]
struct TailProbe {
    /// What was sent by then.
    end: u64,
    /// It was data that had been sent before.
    again: bool,
}

/// Something that goes out whatever the window says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// New data, or else the last segment again (RFC 8985, 7).
    Tail,
    /// An old number, to be told the window (RFC 9293, 3.8.6.1).
    Window,
}

/// What goes out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// These numbers, again.
    Again(u64, u64),
    /// So many new ones.
    Fresh(u64),
    Wait(Reason),
}

/// Why nothing goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Congestion,
    Receiver,
    Application,
    Segments,
}

/// How the connection's packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Packets may be lost: congestion control decides.
    Datagrams,
    /// A carrier that loses nothing and says itself when it can take more.
    Stream,
}

#[derive(Debug)]
pub(super) struct Sender {
    pub(super) outgoing: Outgoing,
    account: Account,
    /// The most payload that this connection keeps, in bytes.
    max_buffer: u64,
    board: Scoreboard,
    /// All before is acknowledged.
    una: u64,
    /// The next to be sent for the first time.
    next: u64,
    /// The FIN's number, once the application has closed.
    fin: Option<u64>,
    /// The receiver's window.
    window: u64,
    max_window: u64,
    /// Payload of a full segment.
    segment: u64,
    pub(super) rtt: RoundTrips,
    rack: Rack,
    delivery: Delivery,
    phase: Phase,
    episode: Option<Episode>,
    reduction: Option<Reduction>,
    algorithm: Congestion,
    controller: Box<dyn Controller>,
    path: Path,
    seed: u64,
    pacer: Pacer,
    /// The window held back what was sent before this number.
    limited_until: u64,
    /// The timeout has expired: the first segment goes out whatever else is in flight (RFC 6298, 5.4).
    first_due: bool,
    /// Found lost since the acknowledgement before.
    newly_lost: u64,
    /// The selective acknowledgements of the segment before: they come several times.
    seen: [(u64, u64); 3],
    last_sent: Option<Instant>,
    timers: timers::Timers,
    tail: Option<TailProbe>,
    probe: Option<Probe>,
    /// The receiver reports marks: reduced for all before this number.
    reduced_until: u64,
    /// The next fresh segment tells the receiver that the window was reduced.
    pub(super) tell_reduced: bool,
    /// The receiver tells what arrived behind a gap (RFC 2018).
    has_blocks: bool,
    /// Duplicate acknowledgements since the last that advanced.
    repeats: u32,
    /// Milliseconds of the timestamp option, if it is used.
    stamps: bool,
    counters: Counters,
}

/// What a connection counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Segments sent again.
    pub resent: u64,
    /// Timeouts.
    pub timeouts: u64,
    /// Probes of the last segment.
    pub tail_probes: u64,
    /// Episodes of loss that were none.
    pub spurious: u64,
    /// Times that nothing went out because of too many segments in flight.
    pub segment_limit: u64,
    /// Bytes that came and were thrown away because memory for them was refused.
    pub refused_bytes: u64,
}

/// What is needed to make a sender.
#[derive(Debug)]
pub(super) struct SenderSetup {
    pub(super) account: Account,
    pub(super) max_buffer: u64,
    pub(super) segment: u64,
    pub(super) algorithm: Congestion,
    pub(super) path: Path,
    pub(super) seed: u64,
}

impl Sender {
    pub(super) fn new(now: Instant, setup: SenderSetup) -> Self {
        Self {
            outgoing: Outgoing::new(setup.account.clone(), FIRST_BYTE),
            account: setup.account,
            max_buffer: setup.max_buffer,
            board: Scoreboard::new(),
            una: 0,
            next: 0,
            fin: None,
            window: 0,
            max_window: 0,
            segment: setup.segment,
            rtt: RoundTrips::default(),
            rack: Rack::new(),
            delivery: Delivery::new(now),
            phase: Phase::Open,
            episode: None,
            reduction: None,
            algorithm: setup.algorithm,
            controller: controller(setup.algorithm, setup.segment, setup.seed),
            path: setup.path,
            seed: setup.seed,
            pacer: Pacer::default(),
            limited_until: 0,
            first_due: false,
            newly_lost: 0,
            seen: [(0, 0); 3],
            last_sent: None,
            timers: timers::Timers::default(),
            tail: None,
            probe: None,
            reduced_until: 0,
            tell_reduced: false,
            has_blocks: false,
            repeats: 0,
            stamps: false,
            counters: Counters::default(),
        }
    }

    /// All before is acknowledged.
    pub(super) fn una(&self) -> u64 {
        self.una
    }

    /// The next number to be sent for the first time.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether something that was sent is not acknowledged.
    pub(super) fn awaits_acknowledgement(&self) -> bool {
        !self.board.is_empty()
    }

    /// Whether the FIN is acknowledged.
    pub(super) fn is_fin_acknowledged(&self) -> bool {
        self.fin.is_some_and(|fin| self.una > fin)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.fin.is_some()
    }

    pub(super) fn window(&self) -> u64 {
        self.window
    }

    pub(super) fn max_window(&self) -> u64 {
        self.max_window
    }

    pub(super) fn segment(&self) -> u64 {
        self.segment
    }

    pub(super) fn take_counters(&mut self) -> Counters {
        std::mem::take(&mut self.counters)
    }

    /// Counts bytes that came and were thrown away.
    pub(super) fn refused(&mut self, bytes: u64) {
        self.counters.refused_bytes += bytes;
    }

    /// The receiver tells what arrived behind a gap.
    pub(super) fn use_blocks(&mut self) {
        self.has_blocks = true;
    }

    pub(super) fn use_stamps(&mut self) {
        self.stamps = true;
    }

    pub(super) fn set_segment(&mut self, segment: u64) {
        if segment == self.segment {
            return;
        }
        self.segment = segment;
        if self.next <= FIRST_BYTE && self.phase == Phase::Open {
            // The first window is ten segments of the size that the peer's SYN tells (RFC 6928).
            self.controller = controller(self.algorithm, segment, self.seed);
        } else {
            self.controller.set_segment_size(segment);
        }
    }

    /// How packets travel from now on.
    pub(super) fn set_path(&mut self, path: Path) {
        if path == self.path {
            return;
        }
        self.path = path;
        // What was learnt belongs to another path.
        self.controller = controller(self.algorithm, self.segment, self.seed);
        self.pacer = Pacer::default();
        self.reduction = None;
    }

    /// Nothing follows what was committed.
    pub(super) fn close(&mut self) {
        if self.fin.is_none() {
            self.fin = Some(self.outgoing.end());
        }
    }

    /// The receiver's window, from now on.
    pub(super) fn set_window(&mut self, now: Instant, window: u64) {
        self.window = window;
        self.max_window = self.max_window.max(window);
        self.arm_persist(now);
    }

    /// Bytes that the application may give now: what keeps the path busy, and no more.
    pub(super) fn wants(&self) -> usize {
        if self.fin.is_some() {
            return 0;
        }
        let share = (self.account.left() / 8) as u64;
        let most = self.max_buffer.min(share.max(MIN_BUFFER));
        let target = match self.path {
            Path::Stream => most,
            Path::Datagrams => self
                .controller
                .window()
                .saturating_mul(BUFFERED_WINDOWS)
                .max(MIN_BUFFER)
                .min(most),
        };
        target.saturating_sub(self.outgoing.len() as u64) as usize
    }

    /// Appends what the application gives: the first `n` bytes of the room.
    pub(super) fn commit(&mut self, n: usize) {
        // What went out by now was all that there was, and more could have gone.
        let in_flight = self.board.in_flight();
        let idle = self.end().saturating_sub(self.next) < self.segment
            && self.board.lost() == 0
            && in_flight + self.segment <= self.congestion_window();
        if n > 0 && idle {
            self.delivery.application_limited(in_flight);
        }
        self.outgoing.commit(n);
    }

    /// Everything that may ever be sent ends here.
    fn end(&self) -> u64 {
        match self.fin {
            Some(fin) => fin + 1,
            None => self.outgoing.end(),
        }
    }

    /// What may be in flight.
    fn congestion_window(&self) -> u64 {
        match (self.path, &self.reduction) {
            (Path::Stream, _) => u64::MAX,
            (Path::Datagrams, Some(reduction)) => reduction.window(),
            (Path::Datagrams, None) => self.controller.window(),
        }
    }

    fn pacing_rate(&self) -> Option<u64> {
        match self.path {
            Path::Stream => None,
            Path::Datagrams => self.controller.pacing_rate(),
        }
    }

    /// The next chunk to go out, at most `max` bytes: it counts as sent.
    pub(super) fn poll(&mut self, now: Instant, max: u64, stamp: u32) -> Option<Chunk> {
        if self.probe == Some(Probe::Tail) {
            self.probe = None;
            return self.send_tail_probe(now, stamp);
        }
        if self.pacer.blocked_until(now).is_some() {
            return None;
        }
        let rate = self.pacing_rate();
        let max = rate.map_or(max, |rate| burst(rate, self.segment).min(max));
        match self.plan(max) {
            Plan::Again(start, end) => {
                self.resend(now, start, end, rate, stamp);
                Some(Chunk {
                    start,
                    end,
                    fresh: false,
                    last: end == self.end(),
                })
            }
            Plan::Fresh(size) => Some(self.push_fresh(now, size, rate)),
            Plan::Wait(reason) => {
                self.note(now, reason);
                None
            }
        }
    }

    /// What goes out next, at most `max` bytes, were it not for the pace.
    fn plan(&mut self, max: u64) -> Plan {
        let in_flight = self.board.in_flight();
        let room = self.congestion_window().saturating_sub(in_flight);
        let only_fresh = self
            .episode
            .is_some_and(|episode| episode.doubt == Doubt::Advanced)
            && self.has_fresh();
        if self.board.lost() > 0 && !only_fresh {
            return self.plan_again(in_flight, room, max);
        }
        self.plan_fresh(in_flight, room, max)
    }

    fn plan_again(&mut self, in_flight: u64, room: u64, max: u64) -> Plan {
        if self.first_due
            && let Some(first) = self.board.first()
        {
            return Plan::Again(first.start, first.end);
        }
        if room < self.segment && in_flight > 0 {
            return Plan::Wait(Reason::Congestion);
        }
        let Some((start, end)) = self.board.next_lost(0) else {
            return Plan::Wait(Reason::Application);
        };
        let offered = (self.una + self.window).saturating_sub(start);
        if offered < end - start {
            // Beyond a window that was taken back only the first may go: it asks for the window.
            return match start == self.una {
                true => Plan::Again(start, end),
                false => Plan::Wait(Reason::Receiver),
            };
        }
        match self.board.next_lost(max.min(room).min(offered)) {
            Some((start, end)) => Plan::Again(start, end),
            None => Plan::Wait(Reason::Application),
        }
    }

    fn plan_fresh(&self, in_flight: u64, room: u64, max: u64) -> Plan {
        let available = self.end().saturating_sub(self.next);
        if available == 0 {
            return Plan::Wait(Reason::Application);
        }
        if self.board.segments() >= MAX_SEGMENTS {
            return Plan::Wait(Reason::Segments);
        }
        let offered = (self.una + self.window).saturating_sub(self.next);
        let size = available.min(offered).min(room).min(max);
        if size < self.segment && size < available {
            // Silly window avoidance (RFC 9293, 3.8.6.2.1): a small segment only where waiting brings nothing.
            let small_window = size == offered && size >= self.max_window / 2;
            if size == 0 || !(in_flight == 0 || small_window) {
                let congested = room < self.segment && room < offered;
                return Plan::Wait(match congested {
                    true => Reason::Congestion,
                    false => Reason::Receiver,
                });
            }
        }
        // Small segments count as full ones: a queue holds so many packets, whatever is in them.
        let packets = (self.board.segments() - self.board.arrived_segments()) as u64;
        if size < self.segment && packets * self.segment >= self.congestion_window().max(1) {
            return Plan::Wait(Reason::Congestion);
        }
        let whole = size > self.segment && size < available;
        Plan::Fresh(if whole {
            size - size % self.segment
        } else {
            size
        })
    }

    /// Draws the conclusions from why nothing goes out.
    fn note(&mut self, now: Instant, reason: Reason) {
        match reason {
            Reason::Congestion => self.limited_until = self.next,
            Reason::Receiver => self.arm_persist(now),
            Reason::Segments => self.counters.segment_limit += 1,
            Reason::Application => {}
        }
    }

    /// Whether there is data that never went out and that the receiver's window takes.
    fn has_fresh(&self) -> bool {
        self.next < self.end() && self.next < self.una + self.window
    }

    /// Notes that these segments go out again.
    fn resend(&mut self, now: Instant, start: u64, end: u64, rate: Option<u64>, stamp: u32) {
        let in_flight = self.board.in_flight();
        let snapshot = self.delivery.sent(now, in_flight + (end - start), false);
        // What a segment's timestamp tells is clear only if it had been sent once.
        let first_once = self
            .board
            .first()
            .is_some_and(|first| first.start == start && !first.again);
        self.board.resend(start, end, now, snapshot);
        self.first_due = false;
        let segments = (end - start).div_ceil(self.segment.max(1));
        self.counters.resent += segments;
        if let Some(episode) = &mut self.episode {
            if self.stamps && episode.stamp.is_none() {
                episode.stamp = Some(stamp);
                episode.judged |= !first_once;
            }
            episode.resent += segments;
        }
        self.went_out(now, end - start, rate);
    }

    fn went_out(&mut self, now: Instant, bytes: u64, rate: Option<u64>) {
        self.pacer.sent(now, bytes, rate);
        if let Some(reduction) = &mut self.reduction {
            reduction.sent(bytes);
        }
        self.last_sent = Some(now);
        // More would have gone, or there is no room for more.
        if self.has_fresh() || self.board.in_flight() + self.segment > self.congestion_window() {
            self.limited_until = self.next;
        }
        self.arm_timeout(now);
        self.arm_tail_probe(now);
    }

    /// Sends the next `size` bytes for the first time.
    fn push_fresh(&mut self, now: Instant, size: u64, rate: Option<u64>) -> Chunk {
        let mut in_flight = self.board.in_flight();
        if in_flight == 0
            && self.board.is_empty()
            && let Some(last) = self.last_sent
        {
            let idle = now.saturating_duration_since(last);
            if idle > self.rtt.timeout() {
                self.controller.on_idle_restart(now, idle);
            }
        }
        let (start, end) = (self.next, self.next + size);
        let app_limited = self.delivery.is_application_limited();
        let is_first = self.board.is_empty();
        while self.next < end {
            let to = end.min(self.next + self.segment.max(1));
            in_flight += to - self.next;
            let snapshot = self
                .delivery
                .sent(now, in_flight, is_first && self.next == start);
            self.board.push(self.next, to, now, snapshot);
            self.next = to;
        }
        self.controller.on_sent(now, size, in_flight, app_limited);
        self.timers.clear_persist();
        self.went_out(now, size, rate);
        Chunk {
            start,
            end,
            fresh: true,
            last: end == self.end(),
        }
    }

    /// The SYN goes out, for the first time.
    pub(super) fn send_syn(&mut self, now: Instant) {
        let snapshot = self.delivery.sent(now, 1, true);
        self.board.push(0, 1, now, snapshot);
        self.next = 1;
        self.last_sent = Some(now);
        self.arm_timeout(now);
    }

    /// The SYN is to go out again.
    pub(super) fn resend_syn(&mut self) {
        self.board.lose_first();
    }

    /// Whether the SYN is to go out again; it counts as sent.
    pub(super) fn poll_syn(&mut self, now: Instant, stamp: u32) -> bool {
        let due = self.board.lost() > 0;
        if due {
            self.resend(now, 0, 1, None, stamp);
        }
        due
    }

    fn send_tail_probe(&mut self, now: Instant, stamp: u32) -> Option<Chunk> {
        let last = *self.board.last()?;
        self.counters.tail_probes += 1;
        let rate = self.pacing_rate();
        let size = (self.end() - self.next).min(self.segment);
        let chunk = if size > 0 && self.next + size <= self.una + self.window {
            self.push_fresh(now, size, rate)
        } else {
            let (start, end) = (last.start, last.end);
            self.resend(now, start, end, rate, stamp);
            Chunk {
                start,
                end,
                fresh: false,
                last: true,
            }
        };
        self.tail = Some(TailProbe {
            end: self.next,
            again: !chunk.fresh,
        });
        self.timers.clear_tail();
        // RFC 8985, 7.3.
        self.timers.restart_timeout(now, self.rtt.timeout());
        Some(chunk)
    }

    /// Whether a probe of the receiver's window is due; it counts as sent.
    pub(super) fn take_window_probe(&mut self) -> bool {
        let due = self.probe == Some(Probe::Window);
        if due {
            self.probe = None;
        }
        due
    }

    /// What is known of the path, for those who look at it.
    pub(super) fn smoothed_rtt(&self) -> Option<Duration> {
        self.rtt.smoothed()
    }
}
