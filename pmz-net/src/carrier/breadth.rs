//! How many streams a session has. Each is a TCP connection of its own, and what comes on it is sent by the API server's
//! kernel: mostly by Cubic, to which the losses of a long way are congestion, so that as many flows as share a stream have
//! the rate of one. So a session that receives many of them from far away gets more streams. Over a local network they
//! would cost: everybody on the way is woken for each stream, and small packets that are spread over more of them come in
//! smaller batches. Nor would they bring anything to what is sent from here, by BBR, to which losses are none: that takes
//! the fewest.
//!
//! Sans-IO: the caller says what the streams carry whenever [`Breadth::poll_timeout`] is due, and opens and closes what the
//! answer asks for.

use std::time::{Duration, Instant};

use super::distance::Distance;

/// As many streams as many flows get. Each is one more that the API server and the kubelet pass on.
pub const MOST: u16 = 8;
/// Flows on each stream from which on there are more streams.
const SHARED_BY: usize = 2;
/// Flows are bulk transfers if so many bytes come a second and stream: about what Cubic leaves a stream at 1 % loss and a
/// round trip of 200 ms.
const BUSY: u64 = 64 << 10;
/// Looks in a row at which more streams are called for before there are any.
const ENOUGH: u32 = 2;
/// How often the load is looked at where there may be something to decide.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And where there is not.
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(5);
/// A stream beyond the fewest ends when it has carried nothing for so long.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// What probes carry in that time, and more.
const NOTHING: u64 = 4 << 10;

/// What a session's streams carry.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// How far away the agent is by them; near while packets go another way.
    pub distance: Distance,
    /// Flows that sent something lately.
    pub flows: usize,
    /// The number of each open stream, and the bytes that came on it so far.
    pub received: Vec<(u16, u64)>,
}

/// A stream beyond the fewest.
#[derive(Clone, Copy, Debug)]
struct Extra {
    /// What had come on it when it last was seen at work.
    received: u64,
    /// When that was.
    at: Instant,
}

/// Decides how many streams a session has; they are numbered from 0.
#[derive(Debug)]
pub struct Breadth {
    fewest: u16,
    extra: Vec<Extra>,
    /// Looks in a row at which more were called for.
    called_for: u32,
    /// Bytes that had come by the last look, and when that was.
    last: (u64, Instant),
    next: Instant,
}

impl Breadth {
    /// Of a new session, which has `fewest` streams.
    pub fn new(fewest: u16, now: Instant) -> Self {
        Self {
            fewest,
            extra: Vec::new(),
            called_for: 0,
            last: (0, now),
            next: now + LOOK_EVERY,
        }
    }

    /// Streams that there are to be.
    pub fn count(&self) -> u16 {
        self.fewest + self.extra.len() as u16
    }

    /// When the load is to be looked at next.
    pub fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// What the streams carry now; returns how many there are to be.
    pub fn handle_load(&mut self, load: &Load, now: Instant) -> u16 {
        let total: u64 = load.received.iter().map(|(_, received)| received).sum();
        let (before, at) = std::mem::replace(&mut self.last, (total, now));
        // Less than before where a stream was dialled again.
        let received = total.saturating_sub(before);
        let elapsed = now.saturating_duration_since(at);
        let busy = received as f64 >= BUSY as f64 * f64::from(self.count()) * elapsed.as_secs_f64();

        let far = load.distance == Distance::Far;
        let shared = load.flows >= SHARED_BY * usize::from(self.count());
        self.called_for = match far && shared && busy {
            true => self.called_for + 1,
            false => 0,
        };
        if self.called_for >= ENOUGH {
            self.called_for = 0;
            self.widen(load.flows, now);
        }
        self.narrow(load, now);
        self.next = now
            + match far || !self.extra.is_empty() {
                true => LOOK_EVERY,
                false => IDLE_LOOK_EVERY,
            };
        self.count()
    }

    fn widen(&mut self, flows: usize, now: Instant) {
        let most = flows.min(MOST.into());
        let extra = most.saturating_sub(self.fewest.into());
        if extra > self.extra.len() {
            self.extra.resize(
                extra,
                Extra {
                    received: 0,
                    at: now,
                },
            );
        }
    }

    /// Gives up the last ones, as far as they carry nothing: what is under way on a stream that is closed is lost.
    fn narrow(&mut self, load: &Load, now: Instant) {
        for (number, extra) in (self.fewest..).zip(&mut self.extra) {
            let of = load.received.iter().find(|(n, _)| *n == number);
            let received = of.map_or(0, |(_, received)| *received);
            if received < extra.received {
                extra.received = 0;
            }
            if received - extra.received > NOTHING {
                *extra = Extra { received, at: now };
            }
        }
        let is_idle = |extra: &Extra| now.saturating_duration_since(extra.at) >= IDLE_FOR;
        while self.extra.last().is_some_and(is_idle) {
            self.extra.pop();
        }
    }
}

#[cfg(test)]
mod tests;
