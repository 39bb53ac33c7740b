//! When flows want their next turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::flow::FlowId;

/// A heap that is not kept exact: a flow's deadline mostly moves back, so the entry that is there stays,
/// and whoever is woken too early says again when.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Instant, FlowId)>>);

impl Timers {
    /// Wants a turn at `deadline`; `armed` is what the flow remembers of its entry.
    pub(super) fn arm(&mut self, id: FlowId, deadline: Instant, armed: &mut Option<Instant>) {
        if armed.is_some_and(|at| at <= deadline) {
            return;
        }
        *armed = Some(deadline);
        self.0.push(Reverse((deadline, id)));
    }

    /// The next flow whose time has come, and the time that it was armed for.
    pub(super) fn due(&mut self, now: Instant) -> Option<(Instant, FlowId)> {
        let Reverse((at, _)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse(due)| due)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}
