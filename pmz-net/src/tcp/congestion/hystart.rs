//! HyStart++ (RFC 9406): the first slow start ends when a queue shows in the round trips, not only when that
//! queue has overflowed.
//!
//! The RFC takes the smallest round trip of a round, which is that of its beginning. A sender that spreads a
//! doubling window over the round fills a whole queue within one, and the next round comes too late. So a round
//! is looked at piece by piece: each of as many samples as the RFC wants, and of a quarter of a round trip,
//! so that acknowledgements that come in batches don't all belong to the late ones.

use std::time::{Duration, Instant};

/// A round trip has grown when it has by an eighth, within these bounds (RFC 9406, section 4.3).
const MIN_RTT_THRESHOLD: Duration = Duration::from_millis(4);
const MAX_RTT_THRESHOLD: Duration = Duration::from_millis(16);
/// The smallest of so many samples says something.
const SAMPLES: u32 = 8;
/// How many rounds a rise must last to be a queue and not jitter.
const CONSERVATIVE_ROUNDS: u32 = 5;

/// How the window grows in slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// By what was acknowledged.
    Full,
    /// By a quarter of it: there may be a queue.
    Quarter,
    /// Slow start is over.
    Over,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    SlowStart,
    Conservative {
        /// The round trip at which the rise showed: one below it means that it was none.
        baseline: Duration,
        /// Round trip and threshold before the rise.
        before: Duration,
        threshold: Duration,
        rounds: u32,
    },
    Done,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    stage: Stage,
    /// The round is over when so many bytes have been delivered.
    round_end: u64,
    /// The smallest round trip of the round before, and of this one.
    last_minimum: Option<Duration>,
    minimum: Option<Duration>,
    piece: Option<Piece>,
}

/// A part of a round.
#[derive(Clone, Copy, Debug)]
struct Piece {
    began: Instant,
    samples: u32,
    minimum: Duration,
}

impl Piece {
    fn with(piece: Option<Self>, now: Instant, rtt: Duration) -> Self {
        piece.map_or(
            Self {
                began: now,
                samples: 1,
                minimum: rtt,
            },
            |piece| Self {
                samples: piece.samples.saturating_add(1),
                minimum: piece.minimum.min(rtt),
                ..piece
            },
        )
    }
}

impl HyStart {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::SlowStart,
            round_end: 0,
            last_minimum: None,
            minimum: None,
            piece: None,
        }
    }

    /// Slow start has ended otherwise. Those that follow know where to stop (RFC 9406, section 4.3: only the
    /// first one, whose threshold is arbitrary, needs this).
    pub(super) fn finish(&mut self) {
        self.stage = Stage::Done;
    }

    /// An acknowledgement in slow start: bytes `delivered` so far, `in_flight` after it.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        delivered: u64,
        in_flight: u64,
        rtt: Option<Duration>,
    ) -> Growth {
        if matches!(self.stage, Stage::Done) {
            return Growth::Full;
        }
        if let Some(rtt) = rtt {
            self.minimum = Some(self.minimum.map_or(rtt, |minimum| minimum.min(rtt)));
            let piece = Piece::with(self.piece, now, rtt);
            let whole = self.last_minimum.unwrap_or_default() / 4;
            if piece.samples >= SAMPLES && now.saturating_duration_since(piece.began) >= whole {
                self.judge(piece.minimum);
                self.piece = None;
            } else {
                self.piece = Some(piece);
            }
        }
        if delivered >= self.round_end {
            self.begin_round(delivered.saturating_add(in_flight));
        }
        match self.stage {
            Stage::SlowStart => Growth::Full,
            Stage::Conservative { .. } => Growth::Quarter,
            Stage::Done => Growth::Over,
        }
    }

    /// What the smallest round trip of a piece says.
    fn judge(&mut self, minimum: Duration) {
        match self.stage {
            Stage::SlowStart => {
                let Some(before) = self.last_minimum else {
                    return;
                };
                let threshold = (before / 8).clamp(MIN_RTT_THRESHOLD, MAX_RTT_THRESHOLD);
                if minimum >= before.saturating_add(threshold) {
                    self.stage = Stage::Conservative {
                        baseline: minimum,
                        before,
                        threshold,
                        rounds: 0,
                    };
                    self.end_if_evident(minimum);
                }
            }
            Stage::Conservative { baseline, .. } if minimum < baseline => {
                self.stage = Stage::SlowStart
            }
            Stage::Conservative { .. } => self.end_if_evident(minimum),
            Stage::Done => {}
        }
    }

    /// A queue that is worth half the path cannot be taken for jitter, and the window that made it fills the
    /// path: five rounds of growth, threefold in all, would only overflow it. This goes beyond RFC 9406, whose
    /// rounds are there to tell a queue from jitter.
    fn end_if_evident(&mut self, minimum: Duration) {
        if let Stage::Conservative {
            before, threshold, ..
        } = self.stage
            && minimum >= before.saturating_add((before / 2).max(threshold * 2))
        {
            self.stage = Stage::Done;
        }
    }

    fn begin_round(&mut self, end: u64) {
        self.round_end = end;
        self.last_minimum = self.minimum.or(self.last_minimum);
        self.minimum = None;
        self.piece = None;
        if let Stage::Conservative { rounds, .. } = &mut self.stage {
            *rounds += 1;
            if *rounds >= CONSERVATIVE_ROUNDS {
                self.stage = Stage::Done;
            }
        }
    }
}

#[cfg(test)]
mod tests;
