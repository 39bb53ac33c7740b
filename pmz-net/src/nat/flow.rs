//! What a flow is called, and the table of flows.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use mio::Token;

use super::PeerId;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    /// ICMP echo; the client's port is the identifier, the service's is 0.
    Echo,
}

/// A flow's name: whose it is, and its 5-tuple as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub(super) peer: PeerId,
    pub(super) protocol: Protocol,
    pub(super) client: SocketAddr,
    pub(super) service: SocketAddr,
}

impl FlowKey {
    /// The hash by which carriers spread flows. Nobody can gain by collisions, so it has no secret.
    pub(super) fn flow_hash(&self) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.protocol, self.client, self.service).hash(&mut hasher);
        let hash = hasher.finish();
        (hash ^ (hash >> 32)) as u32
    }
}

/// A place in the table. Places are used again, ids are not: an event for a flow that is gone finds
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FlowId {
    index: u32,
    generation: u32,
}

impl FlowId {
    pub(super) fn token(self) -> Token {
        Token((self.generation as usize) << 32 | self.index as usize)
    }

    pub(super) fn of_token(token: Token) -> Self {
        Self {
            index: (token.0 & 0xffff_ffff) as u32,
            generation: (token.0 >> 32) as u32,
        }
    }
}

const _: () = assert!(usize::BITS == 64, "a token holds an index and a generation");

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    flow: Option<T>,
}

/// All flows, by id and by key.
#[derive(Debug)]
pub(super) struct FlowTable<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    by_key: HashMap<FlowKey, FlowId>,
}

impl<T> FlowTable<T> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn id(&self, key: &FlowKey) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.flow.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.flow.as_mut()
    }

    /// The id that the next insertion gives.
    pub(super) fn vacant(&mut self) -> FlowId {
        let index = match self.free.last() {
            Some(index) => *index,
            None => {
                let index = self.slots.len() as u32;
                self.slots.push(Slot {
                    generation: 0,
                    flow: None,
                });
                self.free.push(index);
                index
            }
        };
        let generation = self.slots[index as usize].generation;
        FlowId { index, generation }
    }

    /// Puts a flow in at [`FlowTable::vacant`]'s place.
    pub(super) fn insert(&mut self, key: FlowKey, flow: T) -> FlowId {
        let id = self.vacant();
        self.free.pop();
        self.slots[id.index as usize].flow = Some(flow);
        self.by_key.insert(key, id);
        id
    }

    pub(super) fn remove(&mut self, id: FlowId, key: &FlowKey) -> Option<T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let flow = slot.flow.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
        self.by_key.remove(key);
        Some(flow)
    }

    /// The ids of all flows.
    pub(super) fn all(&self) -> Vec<FlowId> {
        self.by_key.values().copied().collect()
    }

    /// The ids of a peer's flows.
    pub(super) fn of_peer(&self, peer: PeerId) -> Vec<FlowId> {
        let of_peer = self.by_key.iter().filter(|(key, _)| key.peer == peer);
        of_peer.map(|(_, id)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> FlowKey {
        FlowKey {
            peer: PeerId(1),
            protocol: Protocol::Udp,
            client: SocketAddr::from(([10, 1, 0, 2], port)),
            service: SocketAddr::from(([10, 96, 0, 1], 53)),
        }
    }

    #[test]
    fn an_id_of_a_removed_flow_finds_nothing_after_its_place_is_used_again() {
        let mut table = FlowTable::new();
        let first = table.insert(key(1), "first");
        assert_eq!(FlowId::of_token(first.token()), first);
        assert_eq!(table.remove(first, &key(1)), Some("first"));
        let second = table.insert(key(2), "second");
        assert_eq!(second.index, first.index);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.get_mut(second), Some(&mut "second"));
        assert_eq!(table.id(&key(1)), None);
        assert_eq!(table.id(&key(2)), Some(second));
        assert_eq!(table.remove(first, &key(2)), None);
        assert_eq!(table.len(), 1);
    }
}
