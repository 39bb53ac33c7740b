//! What each peer uses, and the order in which its idle datagram flows make way for new ones.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::PeerId;
use super::flow::FlowId;
use crate::tcp::Account;

/// What one peer uses.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) flows: usize,
    pub(super) dials: usize,
    pub(super) tcp_open: usize,
    pub(super) ring_bytes: usize,
    /// Where the memory of its TCP payload comes from, once there was any.
    pub(super) account: Option<Account>,
    /// Flows with something to send and no room on the carrier.
    pub(super) blocked: VecDeque<FlowId>,
    /// Counted among the peers that wait for room.
    pub(super) awaits_room: bool,
    /// Datagram flows in the order in which they are looked at when one has to go, each with when it was
    /// last active then.
    pub(super) datagram_flows: VecDeque<(FlowId, Instant)>,
}

/// All peers that have flows.
#[derive(Debug, Default)]
pub(super) struct Peers(HashMap<PeerId, Usage>);

impl Peers {
    pub(super) fn usage(&mut self, peer: PeerId) -> &mut Usage {
        self.0.entry(peer).or_default()
    }

    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Usage> {
        self.0.get_mut(&peer)
    }

    /// Forgets a peer without flows.
    pub(super) fn tidy(&mut self, peer: PeerId) {
        if self
            .0
            .get(&peer)
            .is_some_and(|u| u.flows == 0 && !u.awaits_room)
        {
            self.0.remove(&peer);
        }
    }
}

/// Flows looked at before one goes that was active since.
const SECOND_CHANCES: usize = 16;

impl Usage {
    /// Notes a new datagram flow.
    pub(super) fn datagram_flow(&mut self, id: FlowId, now: Instant, max_flows: usize) {
        // Flows that expired are still in here; they go when there are too many of them.
        if self.datagram_flows.len() >= max_flows * 2 {
            self.datagram_flows.pop_front();
        }
        self.datagram_flows.push_back((id, now));
    }

    /// Picks a datagram flow that was idle for long (the clock algorithm: one that was active since it
    /// was last looked at gets a second chance). `active` tells when a flow was last active, `None` if it
    /// is gone.
    pub(super) fn evict(
        &mut self,
        mut active: impl FnMut(FlowId) -> Option<Instant>,
    ) -> Option<FlowId> {
        let mut chances = 0;
        while let Some((id, then)) = self.datagram_flows.pop_front() {
            let Some(last) = active(id) else { continue };
            if last <= then || chances >= SECOND_CHANCES {
                return Some(id);
            }
            chances += 1;
            self.datagram_flows.push_back((id, last));
        }
        None
    }
}
