//! When a sender acts without being asked.

use std::time::{Duration, Instant};

use super::super::congestion::Phase;
use super::super::rtt::MAX_TIMEOUT;
use super::super::scoreboard::State;
use super::transmit::Plan;
use super::{Doubt, Episode, Probe, Sender};

/// A receiver may hold back the acknowledgement of a single segment so long (RFC 8985, 7.2; Linux' delayed
/// acknowledgement).
const DELAYED_ACK: Duration = Duration::from_millis(200);
/// The tail probe before any round trip was measured (RFC 8985, 7.2).
const INITIAL_TAIL_PROBE: Duration = Duration::from_secs(1);
/// RACK looks again no sooner.
const REORDER_TICK: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub(super) struct Timers {
    timeout: Option<Instant>,
    tail: Option<Instant>,
    reorder: Option<Instant>,
    persist: Option<Instant>,
    /// Probes of the window since it was last open.
    persisted: u32,
}

impl Timers {
    pub(super) fn clear_tail(&mut self) {
        self.tail = None;
    }

    pub(super) fn restart_timeout(&mut self, now: Instant, timeout: Duration) {
        self.timeout = Some(now + timeout);
    }

    pub(super) fn clear_persist(&mut self) {
        self.persist = None;
        self.persisted = 0;
    }
}

impl Sender {
    /// When [`Sender::handle_timeout`] is to be called, or something may be sent again.
    pub(in super::super) fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let Timers {
            timeout,
            tail,
            reorder,
            persist,
            ..
        } = self.timers;
        let timers = [timeout, tail, reorder, persist];
        let sends = self.next > 0 && !matches!(self.plan(self.segment), Plan::Wait(_));
        let pace = sends.then(|| self.pacer.blocked_until(now).unwrap_or(now));
        let probe = self.probe.map(|_| now);
        timers.into_iter().flatten().chain(pace).chain(probe).min()
    }

    /// As [`Sender::poll_timeout`], as long as only the SYN may go out.
    pub(in super::super) fn handshake_timeout(&self, now: Instant) -> Option<Instant> {
        let again = (self.board.lost() > 0).then_some(now);
        again.or(self.timers.timeout)
    }

    /// What was waited for did not come.
    pub(in super::super) fn handle_timeout(&mut self, now: Instant) {
        if self.timers.reorder.is_some_and(|at| at <= now) {
            self.timers.reorder = None;
            let in_flight = self.board.in_flight();
            self.detect_losses(now);
            self.enter_recovery(now, in_flight);
        }
        if self.timers.tail.is_some_and(|at| at <= now) {
            self.timers.tail = None;
            if self.phase == Phase::Open && self.tail.is_none() && !self.board.is_empty() {
                self.probe = Some(Probe::Tail);
                // It runs anew from the probe on.
                self.timers.timeout = None;
            }
        }
        // What RACK is about to find lost needs no timeout (RFC 8985, 8: one timer for both).
        if let Some(sooner) = self.timers.reorder {
            let timeout = &mut self.timers.timeout;
            *timeout = timeout.map(|at| at.max(sooner + REORDER_TICK));
        }
        if self.timers.timeout.is_some_and(|at| at <= now) {
            self.timers.timeout = None;
            self.expire(now);
        }
        if self.timers.persist.is_some_and(|at| at <= now) {
            self.timers.persist = None;
            self.timers.persisted += 1;
            self.probe = Some(Probe::Window);
            self.arm_persist(now);
        }
    }

    /// The retransmission timer has expired (RFC 6298, 5.4 on; RFC 8985, 6.3).
    fn expire(&mut self, now: Instant) {
        let Some(&first) = self.board.first() else {
            return;
        };
        self.counters.timeouts += 1;
        let in_flight = self.board.in_flight();
        if first.state == State::Arrived {
            // What arrived behind a gap that is closed is acknowledged: the receiver has thrown it away.
            self.board.renege();
        }
        let shortest = self.rtt.shortest().unwrap_or_default();
        let mut lost = self.board.lose_first();
        let rack = &self.rack;
        lost += self
            .board
            .lose_oldest(|record| rack.is_overdue(now, record, shortest));
        self.delivery.lost(lost);
        self.newly_lost += lost;
        self.first_due = true;
        let again = self.phase == Phase::Loss;
        if !again {
            self.controller.on_timeout(now, in_flight);
        }
        // The timeout is in doubt only where nothing was being repaired when it expired.
        let doubt = match self.phase {
            Phase::Open if !first.again && !self.stamps => Doubt::Resent,
            Phase::Open | Phase::Recovery | Phase::Loss => Doubt::None,
        };
        if self.phase == Phase::Open || self.episode.is_none() {
            self.episode = Some(Episode {
                from: self.una,
                point: self.next,
                stamp: None,
                judged: false,
                resent: 0,
                duplicates: 0,
                doubt,
            });
        } else if let Some(episode) = &mut self.episode {
            episode.point = self.next;
            episode.doubt = Doubt::None;
        }
        self.phase = Phase::Loss;
        self.reduction = None;
        self.tail = None;
        self.probe = None;
        self.timers.tail = None;
        self.timers.reorder = None;
        self.rtt.back_off();
        self.pacer = Default::default();
        self.arm_timeout(now);
    }

    /// The retransmission timer runs from the last sending of the first segment, as long as there is one.
    pub(super) fn arm_timeout(&mut self, now: Instant) {
        let from = self.board.first().map(|first| match first.state {
            // It goes out as soon as it may.
            State::Lost => now,
            _ => first.at,
        });
        self.timers.timeout = from.map(|from| (from + self.rtt.timeout()).max(now + REORDER_TICK));
    }

    /// RFC 8985, 7.2.
    pub(super) fn arm_tail_probe(&mut self, now: Instant) {
        self.timers.tail = None;
        let quiet = self.has_blocks
            && self.phase == Phase::Open
            && self.tail.is_none()
            && self.board.arrived_segments() == 0
            && !self.board.is_empty()
            && self.next > 1;
        if !quiet {
            return;
        }
        let mut wait = match self.rtt.smoothed() {
            Some(smoothed) => 2 * smoothed,
            None => INITIAL_TAIL_PROBE,
        };
        if self.board.segments() == 1 {
            wait += DELAYED_ACK;
        }
        let at = now + wait.max(2 * REORDER_TICK);
        // It comes in the timeout's place at the latest: a loss that it shows does not cost the window.
        self.timers.tail = Some(self.timers.timeout.map_or(at, |timeout| timeout.min(at)));
    }

    pub(super) fn arm_reorder(&mut self, now: Instant, at: Option<Instant>) {
        self.timers.reorder = at.map(|at| at.max(now + REORDER_TICK));
    }

    /// The receiver's window is asked for while it holds up data and nothing is on its way that would tell
    /// (RFC 9293, 3.8.6.1).
    pub(super) fn arm_persist(&mut self, now: Instant) {
        let held_up =
            self.next < self.end() && self.board.is_empty() && self.next > 0 && !self.has_fresh();
        if !held_up {
            self.timers.clear_persist();
            if self.probe == Some(Probe::Window) {
                self.probe = None;
            }
            return;
        }
        if self.timers.persist.is_none() {
            let wait = self
                .rtt
                .timeout()
                .saturating_mul(1 << self.timers.persisted.min(16));
            self.timers.persist = Some(now + wait.min(MAX_TIMEOUT));
        }
    }
}
