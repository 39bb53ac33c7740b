//! One segment that was sent.

use std::time::Instant;

use super::Id;

/// What is known of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum State {
    InFlight,
    /// Selectively acknowledged.
    Arrived,
    /// To be sent again.
    Lost,
}

/// One segment that was sent. Numbers and lengths count SYN and FIN.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Sent {
    pub(in super::super) start: u64,
    pub(in super::super) end: u64,
    /// When it was sent last.
    pub(in super::super) at: Instant,
    pub(in super::super) state: State,
    /// It was sent more than once.
    pub(in super::super) again: bool,
    pub(in super::super) snapshot: Snapshot,
    pub(super) older: Id,
    pub(super) newer: Id,
}

/// How things stood when a segment was sent (draft-cheng-iccrg-delivery-rate-estimation).
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Snapshot {
    /// Bytes delivered by then, and when the last of them was.
    pub(in super::super) delivered: u64,
    pub(in super::super) delivered_at: Instant,
    /// When the first segment of that flight was sent.
    pub(in super::super) first_sent_at: Instant,
    /// Bytes found lost by then.
    pub(in super::super) lost: u64,
    /// Bytes in flight, this segment's included.
    pub(in super::super) in_flight: u64,
    pub(in super::super) app_limited: bool,
}

impl Sent {
    pub(in super::super) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether this one was sent after the other; of those sent together, the one whose bytes are behind.
    pub(in super::super) fn sent_after(&self, at: Instant, end: u64) -> bool {
        (self.at, self.end) > (at, end)
    }
}
