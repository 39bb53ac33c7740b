//! Tunnel addresses: one of each family for every peer, bound to its key while the peer exists.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng;

/// Bits of the host part of a pool: 4096 addresses.
const HOST_BITS: u32 = 12;
/// The agent's own host number.
const OWN: u32 = 1;

/// A client's, or the agent's own: one address of each family.
pub(crate) type Pair = [IpAddr; 2];

/// The agent's pools. They are drawn at random when the agent starts, out of 240.64.0.0/10 (reserved by
/// RFC 1112, so that nothing on a developer's machine has it) and fd70:6d7a::/32 (unique local, RFC
/// 4193), so that a client of two agents gets different addresses from each.
pub(crate) struct Addresses {
    base: u32,
    site: u32,
    taken: HashSet<Pair>,
    next: u32,
}

impl Addresses {
    pub(crate) fn draw(rng: &mut impl Rng) -> Self {
        let pools = 1_u32 << (32 - 10 - HOST_BITS);
        let base =
            u32::from(Ipv4Addr::new(240, 64, 0, 0)) + (rng.random_range(0..pools) << HOST_BITS);
        Self {
            base,
            site: rng.random(),
            taken: HashSet::new(),
            next: OWN + 1,
        }
    }

    /// The agent's own addresses.
    pub(crate) fn own(&self) -> Pair {
        self.pair(OWN)
    }

    /// Takes the pair that a client had before, where it is an agent's to give and nobody has either of
    /// the two; else the next free pair. Addresses given back are used again as late as possible.
    pub(crate) fn take(&mut self, wish: &[IpAddr]) -> Option<Pair> {
        if let Ok(wish) = Pair::try_from(wish)
            && is_givable(&wish)
            && self.is_free(&wish)
        {
            self.taken.insert(wish);
            return Some(wish);
        }
        let last = (1 << HOST_BITS) - 2;
        for _ in OWN..last {
            let pair = self.pair(self.next);
            self.next = if self.next >= last {
                OWN + 1
            } else {
                self.next + 1
            };
            if self.is_free(&pair) {
                self.taken.insert(pair);
                return Some(pair);
            }
        }
        None
    }

    /// Gives a pair back.
    pub(crate) fn give_back(&mut self, pair: &Pair) {
        self.taken.remove(pair);
    }

    fn is_free(&self, pair: &Pair) -> bool {
        let own = self.own();
        !self
            .taken
            .iter()
            .chain([&own])
            .any(|t| t[0] == pair[0] || t[1] == pair[1])
    }

    fn pair(&self, host: u32) -> Pair {
        let [a, b] = [(self.site >> 16) as u16, self.site as u16];
        [
            Ipv4Addr::from(self.base + host).into(),
            Ipv6Addr::new(0xfd70, 0x6d7a, a, b, 0, 0, 0, host as u16).into(),
        ]
    }
}

fn is_givable(pair: &Pair) -> bool {
    match pair {
        [IpAddr::V4(v4), IpAddr::V6(v6)] => {
            let [a, b, ..] = v4.octets();
            a == 240 && b & 0b1100_0000 == 64 && v6.segments()[..2] == [0xfd70, 0x6d7a]
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_never_given_to_two_and_returns_late() {
        let mut pool = Addresses::draw(&mut rand::rng());
        let first = pool.take(&[]).unwrap();
        pool.give_back(&first);
        let mut all = HashSet::new();
        while let Some(pair) = pool.take(&[]) {
            assert!(all.insert(pair), "{pair:?} twice");
            assert_ne!(pair, pool.own());
        }
        assert_eq!(all.len(), 4093);
        pool.give_back(&first);
        assert_eq!(pool.take(&[]), Some(first));
    }

    #[test]
    fn a_client_keeps_its_addresses_with_another_agent_unless_somebody_has_them() {
        let mut old = Addresses::draw(&mut rand::rng());
        let mut new = Addresses::draw(&mut rand::rng());
        let had = old.take(&[]).unwrap();
        assert_eq!(new.take(&had), Some(had));
        assert_ne!(new.take(&had), Some(had));
        let foreign: Pair = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_ne!(new.take(&foreign), Some(foreign));
        assert_ne!(new.take(&new.own()), Some(new.own()));
    }
}
