//! What was sent and is not acknowledged cumulatively: a record for each segment as it goes over the wire.
//!
//! Records stand in the order of their bytes; those in flight are also linked in the order in which they
//! were sent last, so that finding lost ones (RFC 8985) looks at no other.

mod order;
mod record;

use std::collections::VecDeque;
use std::time::Instant;

pub(super) use record::{Sent, Snapshot, State};

/// The number of a record; counts on for the whole connection.
type Id = u64;

/// No record.
const NONE: Id = Id::MAX;

/// The records, and what they add up to.
#[derive(Debug)]
pub(super) struct Scoreboard {
    records: VecDeque<Sent>,
    /// The number of the first record.
    base: Id,
    oldest: Id,
    newest: Id,
    in_flight: u64,
    arrived: u64,
    lost: u64,
    /// Arrived segments.
    arrived_segments: usize,
    /// No record before this one is lost.
    lost_from: Id,
}

impl Scoreboard {
    pub(super) fn new() -> Self {
        Self {
            records: VecDeque::new(),
            base: 0,
            oldest: NONE,
            newest: NONE,
            in_flight: 0,
            arrived: 0,
            lost: 0,
            arrived_segments: 0,
            lost_from: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn segments(&self) -> usize {
        self.records.len()
    }

    /// Bytes on their way.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    #[cfg(test)]
    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    pub(super) fn arrived_segments(&self) -> usize {
        self.arrived_segments
    }

    /// Bytes to be sent again.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn first(&self) -> Option<&Sent> {
        self.records.front()
    }

    pub(super) fn last(&self) -> Option<&Sent> {
        self.records.back()
    }

    /// A new segment behind all others was sent.
    pub(super) fn push(&mut self, start: u64, end: u64, at: Instant, snapshot: Snapshot) {
        let id = self.base + self.records.len() as Id;
        self.records.push_back(Sent {
            start,
            end,
            at,
            state: State::InFlight,
            again: false,
            snapshot,
            older: NONE,
            newer: NONE,
        });
        self.in_flight += end - start;
        self.link(id);
    }

    /// The acknowledgement of all before `number`: takes the records out, the first one first, and shows
    /// each as it was. A segment of which a part is acknowledged is shortened, and shown as well.
    pub(super) fn acknowledge(&mut self, number: u64, mut each: impl FnMut(&Sent)) {
        while let Some(&record) = self.records.front() {
            if record.start >= number {
                break;
            }
            if record.end > number {
                let cut = number - record.start;
                self.account(record.state, cut, false);
                self.records[0].start = number;
                each(&Sent {
                    end: number,
                    ..record
                });
                break;
            }
            self.account(record.state, record.len(), false);
            match record.state {
                State::InFlight => self.unlink(self.base),
                State::Arrived => self.arrived_segments -= 1,
                State::Lost => {}
            }
            self.records.pop_front();
            self.base += 1;
            each(&record);
        }
        if self.records.is_empty() && self.records.capacity() > 256 {
            self.records.shrink_to(32);
        }
    }

    /// The selective acknowledgement of a range: segments that are wholly in it have arrived. Shows those
    /// of which that is news, as they were.
    pub(super) fn arrive(&mut self, start: u64, end: u64, mut each: impl FnMut(&Sent)) {
        let from = self.records.partition_point(|record| record.start < start);
        for index in from..self.records.len() {
            let record = self.records[index];
            if record.end > end {
                break;
            }
            if record.state == State::Arrived {
                continue;
            }
            let id = self.base + index as Id;
            self.set_state(id, State::Arrived);
            each(&record);
        }
    }

    /// Marks as lost the segments in flight, the one that was sent first at first, as long as `is_lost`
    /// says so; bytes.
    pub(super) fn lose_oldest(&mut self, mut is_lost: impl FnMut(&Sent) -> bool) -> u64 {
        let mut bytes = 0;
        while self.oldest != NONE {
            let id = self.oldest;
            let record = *self.record(id);
            if !is_lost(&record) {
                break;
            }
            self.set_state(id, State::Lost);
            bytes += record.len();
        }
        bytes
    }

    /// Marks the first segment as lost, if it is in flight; bytes.
    pub(super) fn lose_first(&mut self) -> u64 {
        match self.records.front() {
            Some(record) if record.state == State::InFlight => {
                let len = record.len();
                self.set_state(self.base, State::Lost);
                len
            }
            Some(_) | None => 0,
        }
    }

    /// Nothing was lost after all.
    pub(super) fn unlose(&mut self) {
        self.all_in_flight(State::Lost);
    }

    /// Forgets selective acknowledgements, which a receiver may take back (RFC 2018, 8): all that had
    /// arrived is in flight again.
    pub(super) fn renege(&mut self) {
        self.all_in_flight(State::Arrived);
    }

    /// All that are in this state are in flight. The links are made anew: each by itself would be looked for
    /// from the end, which a peer that asks for it could make expensive.
    fn all_in_flight(&mut self, from: State) {
        let mut bytes = 0;
        for record in &mut self.records {
            if record.state == from {
                record.state = State::InFlight;
                bytes += record.len();
            }
        }
        if bytes == 0 {
            return;
        }
        self.account(from, bytes, false);
        self.account(State::InFlight, bytes, true);
        if from == State::Arrived {
            self.arrived_segments = 0;
        }
        let numbered = (self.base..).zip(&self.records);
        let in_flight = numbered.filter(|(_, record)| record.state == State::InFlight);
        let mut order: Vec<(Instant, u64, Id)> = in_flight
            .map(|(id, record)| (record.at, record.end, id))
            .collect();
        order.sort_unstable();
        (self.oldest, self.newest) = (NONE, NONE);
        for (_, _, id) in order {
            self.link(id);
        }
    }

    /// The first lost bytes that stand in one piece, at most `max` of them but at least a segment: their
    /// range, if any are lost.
    pub(super) fn next_lost(&mut self, max: u64) -> Option<(u64, u64)> {
        if self.lost == 0 {
            return None;
        }
        let mut index = self.lost_from.saturating_sub(self.base) as usize;
        while self.records.get(index)?.state != State::Lost {
            index += 1;
        }
        self.lost_from = self.base + index as Id;
        let start = self.records[index].start;
        let mut end = self.records[index].end;
        while let Some(next) = self.records.get(index + 1) {
            if next.state != State::Lost || next.end - start > max {
                break;
            }
            end = next.end;
            index += 1;
        }
        Some((start, end))
    }

    /// The segments of this range, whole ones, were sent again.
    pub(super) fn resend(&mut self, start: u64, end: u64, at: Instant, snapshot: Snapshot) {
        let from = self.records.partition_point(|record| record.start < start);
        for index in from..self.records.len() {
            let id = self.base + index as Id;
            let record = &mut self.records[index];
            if record.end > end {
                break;
            }
            record.at = at;
            record.again = true;
            record.snapshot = snapshot;
            match record.state {
                State::InFlight => {
                    self.unlink(id);
                    self.link(id);
                }
                State::Lost => self.set_state(id, State::InFlight),
                State::Arrived => {}
            }
        }
    }

    #[cfg(test)]
    pub(super) fn oldest(&self) -> Option<&Sent> {
        (self.oldest != NONE).then(|| self.record(self.oldest))
    }

    fn record(&self, id: Id) -> &Sent {
        &self.records[(id - self.base) as usize]
    }

    fn record_mut(&mut self, id: Id) -> &mut Sent {
        &mut self.records[(id - self.base) as usize]
    }

    fn account(&mut self, state: State, bytes: u64, more: bool) {
        let sum = match state {
            State::InFlight => &mut self.in_flight,
            State::Arrived => &mut self.arrived,
            State::Lost => &mut self.lost,
        };
        *sum = if more { *sum + bytes } else { *sum - bytes };
    }

    fn set_state(&mut self, id: Id, state: State) {
        let record = *self.record(id);
        if record.state == state {
            return;
        }
        match record.state {
            State::InFlight => self.unlink(id),
            State::Arrived => self.arrived_segments -= 1,
            State::Lost => {}
        }
        self.account(record.state, record.len(), false);
        self.record_mut(id).state = state;
        self.account(state, record.len(), true);
        match state {
            State::InFlight => self.link(id),
            State::Arrived => self.arrived_segments += 1,
            State::Lost => {
                self.lost_from = self.lost_from.min(id);
            }
        }
    }
}

#[cfg(test)]
mod tests;
