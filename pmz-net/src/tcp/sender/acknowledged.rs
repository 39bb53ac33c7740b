//! What an acknowledgement means to the sender.

use std::time::{Duration, Instant};

use super::super::congestion::{Ack, Phase};
use super::super::reduction::Reduction;
use super::super::scoreboard::{Sent, State};
use super::{Doubt, Episode, Path, Sender};

/// RFC 5681, 3.2.
const DUPLICATES: u32 = 3;

/// An acknowledgement of data that was sent: nothing in it is beyond what was.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Acknowledgement<'a> {
    pub(in super::super) number: u64,
    /// What arrived behind it.
    pub(in super::super) blocks: &'a [(u64, u64)],
    /// What arrived more than once (RFC 2883).
    pub(in super::super) duplicate: Option<(u64, u64)>,
    /// The timestamp that it echoes, and what the clock shows now.
    pub(in super::super) stamps: Option<(u32, u32)>,
    /// It says what the one before said, and nothing else: a duplicate acknowledgement (RFC 5681, 2).
    pub(in super::super) repeats: bool,
    /// The receiver reports a congestion mark.
    pub(in super::super) marked: bool,
}

/// What one acknowledgement showed.
#[derive(Debug, Default)]
struct News {
    /// The round trip of the segment, sent once, that was sent last.
    rtt: Option<Duration>,
    /// A segment that was sent only once has arrived.
    original: bool,
    /// A segment arrived that had counted as lost and was never sent again.
    alive: bool,
}

impl Sender {
    pub(in super::super) fn acknowledged(&mut self, now: Instant, ack: &Acknowledgement<'_>) {
        let prior_in_flight = self.board.in_flight();
        let prior_una = self.una;
        let prior_delivered = self.delivery.delivered();
        let news = self.take_arrivals(now, ack);
        let advanced = ack.number > prior_una;
        let newly_delivered = self.delivery.delivered() - prior_delivered;
        self.first_due &= !advanced;
        self.una = ack.number;
        self.outgoing.release(ack.number);

        let rtt = news.rtt.or_else(|| self.rtt_by_stamps(ack, advanced));
        if let Some(rtt) = rtt {
            self.rtt.sample(now, rtt);
        }
        if let Some(duplicate) = ack.duplicate {
            self.duplicate(duplicate);
        }
        self.end_tail_probe(now, ack, advanced || newly_delivered > 0);
        if self.is_spurious(ack, advanced, &news) {
            self.undo(now);
        } else if advanced && let Some(episode) = &mut self.episode {
            // Only the first acknowledgement after the first retransmission tells (RFC 3522, 3.2).
            episode.judged |= episode.stamp.is_some();
        }
        if newly_delivered > 0 && self.has_blocks {
            self.detect_losses(now);
        }
        self.doubt(advanced);
        self.end_episode(now);
        if !self.has_blocks {
            self.count_repeats(ack, advanced);
        }
        self.enter_recovery(now, prior_in_flight);
        if ack.marked {
            self.marked(now, prior_in_flight);
        }

        let newly_lost = std::mem::take(&mut self.newly_lost);
        let in_flight = self.board.in_flight();
        if let Some(reduction) = &mut self.reduction {
            let good = advanced && newly_lost == 0;
            let target = self.controller.threshold();
            reduction.acknowledged(newly_delivered, in_flight, good, target, self.segment);
        }
        let rate = self.delivery.sample(self.rtt.shortest());
        let window = self.controller.window();
        let summary = Ack {
            now,
            phase: self.phase,
            newly_delivered,
            newly_lost,
            delivered: self.delivery.delivered(),
            lost: self.delivery.total_lost(),
            prior_in_flight,
            in_flight,
            rtt,
            smoothed_rtt: self.rtt.smoothed(),
            rate,
            congestion_marked: ack.marked,
            window_limited: prior_una < self.limited_until
                || (window < self.controller.threshold() && 2 * prior_in_flight >= window),
        };
        match self.path {
            Path::Datagrams => self.controller.on_ack(&summary),
            Path::Stream => self.carried.on_ack(&summary, self.rtt.shortest()),
        }
        if advanced || newly_delivered > 0 {
            self.arm_timeout(now);
            self.arm_tail_probe(now);
        }
        self.arm_persist(now);
    }

    /// Notes what has arrived by this acknowledgement.
    fn take_arrivals(&mut self, now: Instant, ack: &Acknowledgement<'_>) -> News {
        let mut news = News::default();
        let shortest = self.rtt.shortest();
        let Self {
            board,
            delivery,
            rack,
            seen,
            ..
        } = self;
        let mut latest: Option<(Instant, u64)> = None;
        let mut arrived = |record: &Sent| {
            if record.state == State::Arrived {
                return;
            }
            // The acknowledgement of a segment that was sent twice may be that of the first sending.
            let since = now.saturating_duration_since(record.at);
            let ambiguous = record.again && shortest.is_some_and(|rtt| since < rtt);
            if record.state == State::Lost && !record.again {
                news.alive = true;
            }
            if !record.again {
                news.original = true;
                if latest.is_none_or(|(at, end)| record.sent_after(at, end)) {
                    latest = Some((record.at, record.end));
                    news.rtt = Some(since);
                }
            }
            delivery.arrived(now, record);
            rack.arrived(now, record, ambiguous);
        };
        for &(start, end) in ack.blocks {
            // Most of a block is what the acknowledgement before told already.
            match seen.iter().find(|old| old.0 == start && old.1 <= end) {
                Some(&(_, known)) => board.arrive(known.max(start), end, &mut arrived),
                None => board.arrive(start, end, &mut arrived),
            }
        }
        *seen = [(0, 0); 3];
        for (old, block) in seen.iter_mut().zip(ack.blocks) {
            *old = *block;
        }
        let mut repaired = false;
        board.acknowledge(ack.number, |record| {
            repaired |= record.again;
            arrived(record);
        });
        if repaired {
            // What stands behind a gap that was closed may have arrived long ago.
            news.rtt = None;
        }
        news
    }

    /// The round trip by the timestamp that the receiver echoes (RFC 7323, 4): the only way to measure one
    /// of a segment that was sent again.
    fn rtt_by_stamps(&self, ack: &Acknowledgement<'_>, advanced: bool) -> Option<Duration> {
        let (echo, clock) = ack.stamps.filter(|_| advanced)?;
        let millis = clock.wrapping_sub(echo);
        // Not in the future, and not older than any segment can be.
        (echo != 0 && millis < 1 << 24).then(|| Duration::from_millis(u64::from(millis.max(1))))
    }

    fn duplicate(&mut self, (start, end): (u64, u64)) {
        self.rack.duplicate(self.una, self.next);
        let segments = (end - start).div_ceil(self.segment.max(1));
        // What was sent again before this episode is not its business.
        if let Some(episode) = &mut self.episode
            && episode.resent > 0
            && end > episode.from
        {
            episode.duplicates += segments;
        }
    }

    /// What the tail probe brought (RFC 8985, 7.4).
    fn end_tail_probe(&mut self, now: Instant, ack: &Acknowledgement<'_>, something: bool) {
        let Some(tail) = self.tail else { return };
        if ack.number < tail.end {
            if something && !tail.again {
                self.tail = None;
            }
            return;
        }
        self.tail = None;
        if tail.again && ack.duplicate.is_none() && self.phase == Phase::Open {
            // The probe arrived and what it repeated had not: a loss, repaired before anybody saw it.
            self.controller.on_congestion(now, self.board.in_flight());
            self.controller.on_recovered(now);
        }
    }

    /// Whether what is being repaired was never lost: by the timestamp echoed (Eifel, RFC 3522), by duplicates
    /// that account for all that was sent again (RFC 3708), or by F-RTO (RFC 5682).
    fn is_spurious(&self, ack: &Acknowledgement<'_>, advanced: bool, news: &News) -> bool {
        let Some(episode) = self.episode else {
            return false;
        };
        if advanced
            && !episode.judged
            && let (Some(first), Some((echo, _))) = (episode.stamp, ack.stamps)
            && echo != 0
            && echo.wrapping_sub(first).cast_signed() < 0
        {
            return true;
        }
        let all_twice = episode.resent > 0 && episode.duplicates >= episode.resent;
        if ack.duplicate.is_some() && all_twice && self.board.lost() == 0 {
            return true;
        }
        episode.doubt == Doubt::Advanced && (news.alive || (advanced && news.original))
    }

    fn undo(&mut self, now: Instant) {
        self.counters.spurious += 1;
        if self.phase == Phase::Recovery {
            // What was sent again for nothing will be reported as a duplicate, but only a round trip later.
            self.rack.duplicate(self.una, self.next);
        }
        self.board.unlose();
        self.rack.undo();
        self.first_due = false;
        self.newly_lost = 0;
        self.episode = None;
        self.reduction = None;
        self.phase = Phase::Open;
        self.controller.on_spurious(now);
        self.rtt.reset_backoff();
    }

    /// Takes F-RTO a step further.
    fn doubt(&mut self, advanced: bool) {
        let fresh = self.has_fresh();
        if let Some(episode) = &mut self.episode {
            episode.doubt = match episode.doubt {
                Doubt::Resent if advanced && fresh => Doubt::Advanced,
                Doubt::None | Doubt::Resent | Doubt::Advanced => Doubt::None,
            };
        }
    }

    /// Where no blocks tell what arrived, three duplicate acknowledgements show that the first segment did not
    /// (RFC 5681, 3.2), and while it is repaired, one that advances a little shows the next gap (RFC 6582).
    fn count_repeats(&mut self, ack: &Acknowledgement<'_>, advanced: bool) {
        let shows_gap = if advanced {
            self.repeats = 0;
            self.phase == Phase::Recovery
        } else {
            self.repeats += u32::from(ack.repeats && !self.board.is_empty());
            ack.repeats && self.repeats == DUPLICATES && self.phase == Phase::Open
        };
        if shows_gap && self.board.first().is_some_and(|first| !first.again) {
            let lost = self.board.lose_first();
            self.delivery.lost(lost);
            self.newly_lost += lost;
            self.first_due = true;
        }
    }

    pub(super) fn detect_losses(&mut self, now: Instant) {
        let shortest = self.rtt.shortest().unwrap_or_default();
        let smoothed = self.rtt.smoothed().unwrap_or(shortest);
        let recovering = self.phase != Phase::Open;
        let (lost, again) = self
            .rack
            .detect(now, &mut self.board, recovering, shortest, smoothed);
        self.delivery.lost(lost);
        self.newly_lost += lost;
        self.arm_reorder(now, again);
    }

    pub(super) fn enter_recovery(&mut self, now: Instant, prior_in_flight: u64) {
        if self.phase != Phase::Open || self.board.lost() == 0 {
            return;
        }
        self.phase = Phase::Recovery;
        self.episode = Some(Episode {
            from: self.una,
            point: self.next,
            stamp: None,
            judged: false,
            resent: 0,
            duplicates: 0,
            doubt: Doubt::None,
        });
        self.controller.on_congestion(now, prior_in_flight);
        self.reduction = (self.path == Path::Datagrams
            && self.controller.uses_proportional_reduction())
        .then(|| Reduction::new(prior_in_flight));
        self.tail = None;
        self.timers.clear_tail();
    }

    fn end_episode(&mut self, now: Instant) {
        let over = self
            .episode
            .is_some_and(|episode| self.una >= episode.point);
        if !over || self.phase == Phase::Open {
            return;
        }
        if self.phase == Phase::Recovery {
            self.controller.on_recovered(now);
        }
        self.rack.recovered();
        self.phase = Phase::Open;
        self.reduction = None;
        // Duplicates may still tell that nothing was lost: what comes later is another episode's.
        self.episode = None;
    }

    /// The receiver has seen a congestion mark (RFC 3168, 6.1.2): at most one reduction a round trip.
    fn marked(&mut self, now: Instant, in_flight: u64) {
        if self.una < self.reduced_until || self.phase != Phase::Open {
            return;
        }
        self.reduced_until = self.next;
        self.tell_reduced = true;
        self.controller.on_congestion(now, in_flight);
        self.controller.on_recovered(now);
    }
}
