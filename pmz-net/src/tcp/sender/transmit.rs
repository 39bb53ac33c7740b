//! What goes out next.

use std::time::Instant;

use super::super::congestion::burst;
use super::{Chunk, Doubt, Probe, Sender, TailProbe};

/// Segments that one connection may have in flight: small writes must not fill the memory with records.
const MAX_SEGMENTS: usize = 16 << 10;

/// What goes out next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// These numbers, again.
    Again(u64, u64),
    /// So many new ones.
    Fresh(u64),
    Wait(Reason),
}

/// Why nothing goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Congestion,
    Receiver,
    Application,
    Segments,
}

impl Sender {
    /// The next chunk to go out, at most `max` bytes: it counts as sent.
    pub(in super::super) fn poll(&mut self, now: Instant, max: u64, stamp: u32) -> Option<Chunk> {
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
    pub(super) fn plan(&mut self, max: u64) -> Plan {
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
    pub(super) fn has_fresh(&self) -> bool {
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
    pub(in super::super) fn send_syn(&mut self, now: Instant) {
        let snapshot = self.delivery.sent(now, 1, true);
        self.board.push(0, 1, now, snapshot);
        self.next = 1;
        self.last_sent = Some(now);
        self.arm_timeout(now);
    }

    /// The SYN is to go out again.
    pub(in super::super) fn resend_syn(&mut self) {
        self.board.lose_first();
    }

    /// Whether the SYN is to go out again; it counts as sent.
    pub(in super::super) fn poll_syn(&mut self, now: Instant, stamp: u32) -> bool {
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
}
