//! Addresses that stand for the cluster's own where these would collide with the machine's.
//!
//! A service or a pod in a prefix that the machine uses for something else gets a virtual address out of a pool
//! that nothing else uses. Names lead to it, and what goes there is rewritten on the way into the tunnel and back.
//! Here is only who has which: no socket, no clock.

mod pool;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pool::Pool;

/// For this long a virtual address belongs to what it was handed out for, whether or not it is used: as long as a
/// connection may be silent before a translator may forget it (RFC 5382, REQ-5).
pub const KEPT: Duration = Duration::from_secs(124 * 60);

/// What the machine uses for an address of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// The address itself: nothing collides there.
    Itself,
    /// A virtual one.
    Virtual(IpAddr),
    /// A virtual one that is not handed out yet: [`AddressMap::assign`].
    None,
}

/// A virtual address that was handed out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// Whose it was before, if anybody's.
    pub was: Option<IpAddr>,
}

/// There is no virtual address left, and none that is out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// The pool has no prefix of this family.
    #[error("there are no virtual addresses of the family of {0}")]
    Family(IpAddr),
    /// All of them are in use.
    #[error("all {0} virtual addresses are in use")]
    Exhausted(u64),
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    address: IpAddr,
    asked: Instant,
}

/// Who has which virtual address. An address stays with what it was handed out for, until it is needed again and
/// was not used for [`KEPT`].
#[derive(Debug, Default)]
pub struct AddressMap {
    remapped: Vec<IpNet>,
    pools: Vec<Pool>,
    holders: HashMap<IpAddr, Holder>,
    /// By virtual address.
    real: HashMap<IpAddr, IpAddr>,
}

impl AddressMap {
    /// Addresses in `remapped` get virtual ones out of `pool`, at most one prefix for each family.
    pub fn new(remapped: Vec<IpNet>, pool: &[IpNet]) -> Self {
        let mut map = Self {
            remapped,
            ..Self::default()
        };
        for prefix in pool {
            map.add_pool(prefix);
        }
        map
    }

    /// Adds a prefix to hand out of, where there is none of its family yet.
    pub fn add_pool(&mut self, prefix: &IpNet) {
        let ipv4 = prefix.addr().is_ipv4();
        if !self.pools.iter().any(|pool| pool.is_ipv4() == ipv4) {
            self.pools.push(Pool::new(prefix));
        }
    }

    /// Changes which prefixes are remapped. What was handed out stays.
    pub fn set_remapped(&mut self, remapped: Vec<IpNet>) {
        self.remapped = remapped;
    }

    /// Which prefixes are remapped.
    pub fn remapped(&self) -> &[IpNet] {
        &self.remapped
    }

    /// What stands for this address of the cluster now. That it was asked for keeps it from being taken away.
    pub fn used(&mut self, now: Instant, real: IpAddr) -> Used {
        let used = self.peek(real);
        if let (Used::Virtual(_), Some(holder)) = (used, self.holders.get_mut(&real)) {
            holder.asked = now;
        }
        used
    }

    /// As [`AddressMap::used`], without keeping it.
    pub fn peek(&self, real: IpAddr) -> Used {
        if !self.remapped.iter().any(|net| net.contains(&real)) {
            return Used::Itself;
        }
        let holder = self.holders.get(&real);
        holder.map_or(Used::None, |holder| Used::Virtual(holder.address))
    }

    /// What is handed out: the cluster's address, then the virtual one. In no particular order.
    pub fn handed_out(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        let holders = self.holders.iter();
        holders.map(|(real, holder)| (*real, holder.address))
    }

    /// The cluster's address behind a virtual one.
    pub fn real(&self, address: IpAddr) -> Option<IpAddr> {
        self.real.get(&address).copied()
    }

    /// How many are handed out.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Hands out a virtual address. `in_use` tells of one whether packets went there in the last [`KEPT`]; it is
    /// only asked where no address is free.
    ///
    /// # Errors
    /// Where there is none.
    pub fn assign(
        &mut self,
        now: Instant,
        real: IpAddr,
        in_use: impl Fn(IpAddr) -> bool,
    ) -> Result<Assigned, NoAddress> {
        if let Some(holder) = self.holders.get_mut(&real) {
            holder.asked = now;
            let address = holder.address;
            return Ok(Assigned { address, was: None });
        }
        let mut pools = self.pools.iter_mut();
        let pool = pools
            .find(|pool| pool.is_ipv4() == real.is_ipv4())
            .ok_or(NoAddress::Family(real))?;
        let (address, was) = match pool.next() {
            Some(address) => (address, None),
            None => {
                let size = pool.size();
                let (old, address) = self
                    .longest_unused(now, real.is_ipv4(), in_use)
                    .ok_or(NoAddress::Exhausted(size))?;
                self.holders.remove(&old);
                (address, Some(old))
            }
        };
        let holder = Holder {
            address,
            asked: now,
        };
        self.holders.insert(real, holder);
        self.real.insert(address, real);
        Ok(Assigned { address, was })
    }

    fn longest_unused(
        &self,
        now: Instant,
        ipv4: bool,
        in_use: impl Fn(IpAddr) -> bool,
    ) -> Option<(IpAddr, IpAddr)> {
        let mut old: Vec<_> = self
            .holders
            .iter()
            .filter(|(real, holder)| {
                real.is_ipv4() == ipv4 && now.saturating_duration_since(holder.asked) >= KEPT
            })
            .collect();
        old.sort_unstable_by_key(|(real, holder)| (holder.asked, **real));
        let mut old = old.into_iter();
        let (real, holder) = old.find(|(_, holder)| !in_use(holder.address))?;
        Some((*real, holder.address))
    }
}

#[cfg(test)]
mod tests;
