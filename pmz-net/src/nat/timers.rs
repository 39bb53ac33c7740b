//! When flows want their next turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::flow::FlowId;

/// Entries that may be of nobody, beside as many as there are flows.
const SLACK: usize = 1024;

/// A heap that is not kept exact: a flow's deadline mostly moves back, so the entry that is there stays,
/// and whoever is woken too early says again when. What ended flows leave is dropped when it is more than what is of use:
/// the last deadline of a connection can be hours away.
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

    /// Drops what is of nobody, where that is much. `flows` is how many there are; an entry is of use where one of them
    /// `is_armed` for it.
    pub(super) fn sweep(&mut self, flows: usize, is_armed: impl Fn(FlowId, Instant) -> bool) {
        if self.0.len() > 2 * flows + SLACK {
            self.0.retain(|Reverse((at, id))| is_armed(*id, *at));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::Token;

    use super::*;

    fn id(number: usize) -> FlowId {
        FlowId::of_token(Token(number))
    }

    #[test]
    fn entries_of_flows_that_ended_do_not_pile_up() {
        let (mut timers, start) = (Timers::default(), Instant::now());
        let hours = start + Duration::from_secs(7200);
        let mut lasting = None;
        timers.arm(id(0), hours, &mut lasting);
        for number in 1..100_000 {
            timers.arm(id(number), hours, &mut None);
            timers.sweep(1, |it, at| it == id(0) && lasting == Some(at));
            assert!(timers.0.len() <= SLACK + 2, "{}", timers.0.len());
        }
        timers.sweep(0, |it, _| it == id(0));
        assert_eq!(timers.due(hours), Some((hours, id(0))));
    }
}
