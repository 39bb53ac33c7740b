//! How fast data arrives at the other end (draft-cheng-iccrg-delivery-rate-estimation).

use std::time::{Duration, Instant};

use super::congestion::RateSample;
use super::scoreboard::{Sent, Snapshot};

#[derive(Debug)]
pub(super) struct Delivery {
    /// Bytes delivered so far, and when the last of them was.
    delivered: u64,
    delivered_at: Instant,
    first_sent_at: Instant,
    /// Bytes found lost so far.
    lost: u64,
    /// Until so many bytes are delivered, rates say what the application gave.
    app_limited_until: Option<u64>,
    /// The segment of the acknowledgement being looked at that was sent last.
    latest: Option<Latest>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    at: Instant,
    end: u64,
    snapshot: Snapshot,
}

impl Delivery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            delivered: 0,
            delivered_at: now,
            first_sent_at: now,
            lost: 0,
            app_limited_until: None,
            latest: None,
        }
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn total_lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn lost(&mut self, bytes: u64) {
        self.lost += bytes;
    }

    /// A segment goes out; `in_flight` counts it.
    pub(super) fn sent(&mut self, now: Instant, in_flight: u64, is_first: bool) -> Snapshot {
        if is_first {
            self.first_sent_at = now;
            self.delivered_at = now;
        }
        Snapshot {
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
            lost: self.lost,
            in_flight,
            app_limited: self.app_limited_until.is_some(),
        }
    }

    /// The application gives something after all that there was to send has been sent, while more could have
    /// been on its way.
    pub(super) fn application_limited(&mut self, in_flight: u64) {
        self.app_limited_until = Some((self.delivered + in_flight).max(1));
    }

    pub(super) fn is_application_limited(&self) -> bool {
        self.app_limited_until.is_some()
    }

    /// An acknowledgement shows that this segment has arrived.
    pub(super) fn arrived(&mut self, now: Instant, record: &Sent) {
        self.delivered += record.len();
        self.delivered_at = now;
        let newer = self
            .latest
            .is_none_or(|latest| record.sent_after(latest.at, latest.end));
        if newer {
            self.latest = Some(Latest {
                at: record.at,
                end: record.end,
                snapshot: record.snapshot,
            });
        }
    }

    /// The acknowledgement has been looked at: the rate that it shows.
    pub(super) fn sample(&mut self, shortest_rtt: Option<Duration>) -> Option<RateSample> {
        if self
            .app_limited_until
            .is_some_and(|until| self.delivered > until)
        {
            self.app_limited_until = None;
        }
        let Latest { at, snapshot, .. } = self.latest.take()?;
        self.first_sent_at = at;
        let sending = at.saturating_duration_since(snapshot.first_sent_at);
        let arriving = self
            .delivered_at
            .saturating_duration_since(snapshot.delivered_at);
        let interval = sending.max(arriving);
        // A rate over less than a round trip comes of acknowledgements that were held up together.
        if interval.is_zero() || shortest_rtt.is_some_and(|rtt| interval < rtt) {
            return None;
        }
        Some(RateSample {
            delivered: self.delivered - snapshot.delivered,
            interval,
            prior_delivered: snapshot.delivered,
            lost: self.lost - snapshot.lost,
            sent_in_flight: snapshot.in_flight,
            app_limited: snapshot.app_limited,
        })
    }
}
