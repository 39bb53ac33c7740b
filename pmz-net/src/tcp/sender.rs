//! The sending half of a connection: what may go out when, and what an acknowledgement means.
//!
//! Losses are found by RACK (RFC 8985) and marked; nothing is ever rewound. What may be in flight and how fast
//! it leaves says the congestion control; the repair of losses is paced like everything else.

mod acknowledged;
mod episode;
mod timers;
mod transmit;

use std::time::{Duration, Instant};

use super::carried::CarriedWindow;
use super::congestion::{Congestion, Controller, Phase, controller};
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
use episode::{Doubt, Episode, Probe, TailProbe};

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

/// How the connection's packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Packets may be lost: congestion control decides.
    Datagrams,
    /// A carrier that loses nothing and has congestion control of its own.
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
    carried: CarriedWindow,
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
    /// Segments carry timestamps (RFC 7323).
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
    /// Times that the application was held up because the flow's buffer was as full as it may be.
    pub buffer_limit: u64,
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
            carried: CarriedWindow::new(),
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

    /// The receiver's window, as it was told last.
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

    /// Segments carry timestamps.
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
        self.carried = CarriedWindow::new();
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
    pub(super) fn wants(&mut self) -> usize {
        if self.fin.is_some() {
            return 0;
        }
        if self.outgoing.len() as u64 >= self.max_buffer {
            self.counters.buffer_limit += 1;
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
            (Path::Stream, _) => self.carried.window(),
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
