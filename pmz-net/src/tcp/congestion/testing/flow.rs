//! A sender that obeys a controller: window, pacing, loss detection by packets that overtook, delivery rate
//! samples. Every transmission has a number of its own; which segment of the stream it carries says when a recovery is
//! over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::units::quantum;
use super::super::{Ack, Controller, Phase, RateSample};

/// Later packets that must have arrived before one counts as lost.
const REORDERING: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Outstanding,
    Arrived,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Sent,
    /// Found lost, and perhaps on its way again.
    Missing,
    Arrived,
}

#[derive(Clone, Debug)]
struct Packet {
    fate: Fate,
    segment: u64,
    sent_at: u64,
    delivered: u64,
    delivered_at: u64,
    first_sent_at: u64,
    lost: u64,
    pub(in crate::tcp::congestion) in_flight: u64,
    app_limited: bool,
}

/// Proportional Rate Reduction (RFC 6937).
#[derive(Debug, Default)]
struct Reduction {
    flight: u64,
    delivered: u64,
    sent: u64,
}

#[derive(Debug)]
pub(in crate::tcp::congestion) struct Flow<C> {
    pub(in crate::tcp::congestion) controller: C,
    segment: u64,
    epoch: Instant,
    /// What the application has written and not been sent; none: as much as one likes.
    pub(in crate::tcp::congestion) available: Option<u64>,
    packets: VecDeque<Packet>,
    /// The number of the first one in `packets`.
    first: u64,
    /// Segments of the stream, from the first one that has not arrived.
    stream: VecDeque<Progress>,
    acknowledged: u64,
    next_segment: u64,
    /// Segments to send again.
    again: VecDeque<u64>,
    missing: u64,
    pub(in crate::tcp::congestion) in_flight: u64,
    pub(in crate::tcp::congestion) delivered: u64,
    delivered_at: u64,
    first_sent_at: u64,
    pub(in crate::tcp::congestion) lost: u64,
    newly_lost: u64,
    app_limited_until: u64,
    limited: bool,
    pub(in crate::tcp::congestion) smoothed_rtt: Option<Duration>,
    minimum_rtt: Duration,
    pub(in crate::tcp::congestion) phase: Phase,
    /// Segments that end the phase once they are acknowledged.
    episode_end: u64,
    mark_end: u64,
    reduction: Reduction,
    allowance: u64,
    next_departure: u64,
    last_activity: u64,
    backoff: u32,
    pub(super) timer: bool,
    pub(super) wakes_at: Option<u64>,
    pub(in crate::tcp::congestion) timeouts: u64,
}

/// A packet to hand to the path.
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) bytes: u64,
}

impl<C: Controller> Flow<C> {
    pub(super) fn new(controller: C, segment: u64, epoch: Instant, start: u64) -> Self {
        Self {
            controller,
            segment,
            epoch,
            available: None,
            packets: VecDeque::new(),
            first: 0,
            stream: VecDeque::new(),
            acknowledged: 0,
            next_segment: 0,
            again: VecDeque::new(),
            missing: 0,
            in_flight: 0,
            delivered: 0,
            delivered_at: start,
            first_sent_at: start,
            lost: 0,
            newly_lost: 0,
            app_limited_until: 0,
            limited: false,
            smoothed_rtt: None,
            minimum_rtt: Duration::MAX,
            phase: Phase::Open,
            episode_end: 0,
            mark_end: 0,
            reduction: Reduction::default(),
            allowance: 0,
            next_departure: start,
            last_activity: start,
            backoff: 0,
            timer: false,
            wakes_at: None,
            timeouts: 0,
        }
    }

    fn instant(&self, now: u64) -> Instant {
        self.epoch + Duration::from_nanos(now)
    }

    fn window(&self) -> u64 {
        if self.phase == Phase::Recovery && self.controller.uses_proportional_reduction() {
            self.in_flight + self.allowance
        } else {
            self.controller.window()
        }
    }

    /// What may leave now, and when to ask again if it is pacing that stops it.
    pub(super) fn send(&mut self, now: u64, out: &mut Vec<Sent>) -> Option<u64> {
        loop {
            if !self.has_data() {
                self.limited = false;
                if self.in_flight < self.controller.window() {
                    self.app_limited_until = (self.delivered + self.in_flight).max(1);
                }
                return None;
            }
            self.limited = true;
            if self.in_flight + self.segment > self.window() {
                return None;
            }
            let rate = self.controller.pacing_rate();
            if rate.is_some() && now < self.next_departure {
                return Some(self.next_departure);
            }
            let most = rate.map_or(u64::MAX, |rate| quantum(rate, self.segment));
            let mut bytes = 0;
            while bytes + self.segment <= most
                && self.in_flight + self.segment <= self.window()
                && self.has_data()
            {
                self.transmit(now, out);
                bytes += self.segment;
            }
            if let Some(rate) = rate {
                self.next_departure =
                    self.next_departure.max(now) + bytes * 1_000_000_000 / rate.max(1);
            }
        }
    }

    fn has_data(&self) -> bool {
        !self.again.is_empty()
            || self
                .available
                .is_none_or(|available| available >= self.segment)
    }

    fn transmit(&mut self, now: u64, out: &mut Vec<Sent>) {
        if self.in_flight == 0 {
            let idle = Duration::from_nanos(now - self.last_activity);
            if idle > self.timeout() && self.delivered > 0 && self.phase == Phase::Open {
                self.controller.on_idle_restart(self.instant(now), idle);
            }
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        self.in_flight += self.segment;
        self.allowance = self.allowance.saturating_sub(self.segment);
        self.reduction.sent += self.segment;
        let segment = self.again.pop_front().unwrap_or_else(|| {
            if let Some(available) = &mut self.available {
                *available -= self.segment;
            }
            self.stream.push_back(Progress::Sent);
            self.next_segment += 1;
            self.next_segment - 1
        });
        self.packets.push_back(Packet {
            fate: Fate::Outstanding,
            segment,
            sent_at: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            lost: self.lost,
            in_flight: self.in_flight,
            app_limited: self.app_limited_until > 0,
        });
        self.last_activity = now;
        self.controller.on_sent(
            self.instant(now),
            self.segment,
            self.in_flight,
            self.app_limited_until > 0,
        );
        out.push(Sent {
            number: self.first + self.packets.len() as u64 - 1,
            bytes: self.segment,
        });
    }

    /// Packets with these numbers arrived; some may be marked.
    pub(super) fn acknowledge(&mut self, now: u64, numbers: &[(u64, bool)]) {
        let prior_in_flight = self.in_flight;
        let (delivered_before, lost_before) = (self.delivered, self.lost);
        let mut newest: Option<Packet> = None;
        let mut largest = 0;
        for &(number, _) in numbers {
            let Some(packet) = number
                .checked_sub(self.first)
                .and_then(|at| self.packets.get_mut(at as usize))
            else {
                continue;
            };
            let fate = std::mem::replace(&mut packet.fate, Fate::Arrived);
            if fate == Fate::Arrived {
                continue;
            }
            let packet = packet.clone();
            if fate == Fate::Outstanding {
                self.in_flight -= self.segment;
            }
            self.delivered += self.segment;
            self.arrive(packet.segment);
            largest = largest.max(number);
            newest = Some(packet);
        }
        let Some(newest) = newest else {
            return;
        };
        self.delivered_at = now;
        self.first_sent_at = newest.sent_at;
        self.last_activity = now;
        self.backoff = 0;
        if self.app_limited_until > 0 && self.delivered > self.app_limited_until {
            self.app_limited_until = 0;
        }
        let rtt = Duration::from_nanos(now - newest.sent_at);
        self.minimum_rtt = self.minimum_rtt.min(rtt);
        self.smoothed_rtt = Some(
            self.smoothed_rtt
                .map_or(rtt, |smoothed| smoothed * 7 / 8 + rtt / 8),
        );
        self.find_losses(largest);
        self.phases(now, largest, numbers.iter().any(|&(_, marked)| marked));
        let newly_delivered = self.delivered - delivered_before;
        self.reduce(newly_delivered);
        let interval = (newest.sent_at - newest.first_sent_at).max(now - newest.delivered_at);
        let rate = (Duration::from_nanos(interval) >= self.minimum_rtt).then(|| RateSample {
            delivered: self.delivered - newest.delivered,
            interval: Duration::from_nanos(interval),
            prior_delivered: newest.delivered,
            lost: self.lost - newest.lost,
            sent_in_flight: newest.in_flight,
            app_limited: newest.app_limited,
        });
        let ack = Ack {
            now: self.instant(now),
            phase: self.phase,
            newly_delivered,
            newly_lost: self.lost - lost_before + std::mem::take(&mut self.newly_lost),
            delivered: self.delivered,
            lost: self.lost,
            prior_in_flight,
            in_flight: self.in_flight,
            rtt: Some(rtt),
            smoothed_rtt: self.smoothed_rtt,
            rate,
            congestion_marked: numbers.iter().any(|&(_, marked)| marked),
            window_limited: self.limited,
        };
        self.controller.on_ack(&ack);
    }

    fn find_losses(&mut self, largest: u64) {
        while let Some(packet) = self.packets.front() {
            if packet.fate == Fate::Outstanding {
                if self.first + REORDERING > largest {
                    break;
                }
                let segment = packet.segment;
                self.lose(segment);
            }
            self.packets.pop_front();
            self.first += 1;
        }
    }

    fn lose(&mut self, segment: u64) {
        self.in_flight -= self.segment;
        self.lost += self.segment;
        let Some(at) = segment.checked_sub(self.acknowledged) else {
            return;
        };
        let progress = &mut self.stream[at as usize];
        if *progress == Progress::Arrived {
            return;
        }
        if *progress == Progress::Sent {
            *progress = Progress::Missing;
            self.missing += 1;
        }
        self.again.push_back(segment);
    }

    fn arrive(&mut self, segment: u64) {
        if let Some(at) = segment.checked_sub(self.acknowledged) {
            let before = std::mem::replace(&mut self.stream[at as usize], Progress::Arrived);
            self.missing -= u64::from(before == Progress::Missing);
        }
        while self.stream.front() == Some(&Progress::Arrived) {
            self.stream.pop_front();
            self.acknowledged += 1;
        }
    }

    fn phases(&mut self, now: u64, largest: u64, marked: bool) {
        let next = self.first + self.packets.len() as u64;
        match self.phase {
            Phase::Recovery if self.acknowledged >= self.episode_end => {
                self.phase = Phase::Open;
                self.controller.on_recovered(self.instant(now));
            }
            Phase::Loss if self.acknowledged >= self.episode_end => self.phase = Phase::Open,
            Phase::Open | Phase::Recovery | Phase::Loss => {}
        }
        if self.phase == Phase::Open {
            if self.missing > 0 {
                self.phase = Phase::Recovery;
                self.episode_end = self.next_segment;
                self.reduction = Reduction {
                    flight: self.in_flight,
                    ..Reduction::default()
                };
                self.controller
                    .on_congestion(self.instant(now), self.in_flight);
            } else if marked && largest >= self.mark_end {
                self.mark_end = next;
                self.controller
                    .on_congestion(self.instant(now), self.in_flight);
            }
        }
    }

    /// The window that is left in recovery.
    fn reduce(&mut self, newly_delivered: u64) {
        if self.phase != Phase::Recovery {
            return;
        }
        let threshold = self.controller.threshold();
        self.reduction.delivered += newly_delivered;
        let Reduction {
            flight,
            delivered,
            sent,
        } = self.reduction;
        self.allowance = if self.in_flight > threshold {
            (delivered * threshold)
                .div_ceil(flight.max(1))
                .saturating_sub(sent)
        } else {
            let limit = delivered.saturating_sub(sent).max(newly_delivered) + self.segment;
            (threshold - self.in_flight).min(limit)
        };
    }

    fn timeout(&self) -> Duration {
        (self.smoothed_rtt.unwrap_or(Duration::from_millis(500)) * 2)
            .max(Duration::from_millis(200))
    }

    /// When the retransmission timer expires, if it runs.
    pub(super) fn deadline(&self) -> Option<u64> {
        let wait = self.timeout() * (1 << self.backoff.min(6));
        (self.in_flight > 0).then_some(self.last_activity + wait.as_nanos() as u64)
    }

    pub(super) fn expire(&mut self, now: u64) {
        self.timeouts += 1;
        self.backoff += 1;
        let in_flight = self.in_flight;
        self.episode_end = self.next_segment;
        self.phase = Phase::Loss;
        self.controller.on_timeout(self.instant(now), in_flight);
        while let Some(packet) = self.packets.pop_front() {
            self.first += 1;
            if packet.fate == Fate::Outstanding {
                self.lose(packet.segment);
                self.newly_lost += self.segment;
            }
        }
        self.last_activity = now;
        self.next_departure = self.next_departure.min(now);
    }
}
