//! Cryptokey routing: which peer a prefix belongs to, longest prefix first.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::PeerId;

/// Prefixes and their peers. A look-up costs one hash per distinct prefix length in use: an agent has
/// two (/32 and /128), a client two (/0 of each family).
#[derive(Default)]
pub(super) struct AllowedIps {
    owners: HashMap<IpNet, PeerId>,
    /// Lengths in use with the number of prefixes of each, longest first.
    v4: Vec<(u8, usize)>,
    v6: Vec<(u8, usize)>,
}

impl AllowedIps {
    pub(super) fn owner(&self, net: IpNet) -> Option<PeerId> {
        self.owners.get(&net.trunc()).copied()
    }

    pub(super) fn insert(&mut self, net: IpNet, peer: PeerId) {
        if self.owners.insert(net.trunc(), peer).is_some() {
            return;
        }
        let lengths = self.lengths(net);
        match lengths.binary_search_by(|(len, _)| net.prefix_len().cmp(len)) {
            Ok(at) => lengths[at].1 += 1,
            Err(at) => lengths.insert(at, (net.prefix_len(), 1)),
        }
    }

    pub(super) fn remove(&mut self, net: IpNet) {
        if self.owners.remove(&net.trunc()).is_none() {
            return;
        }
        let lengths = self.lengths(net);
        if let Ok(at) = lengths.binary_search_by(|(len, _)| net.prefix_len().cmp(len)) {
            lengths[at].1 -= 1;
            if lengths[at].1 == 0 {
                lengths.remove(at);
            }
        }
    }

    pub(super) fn lookup(&self, address: IpAddr) -> Option<PeerId> {
        let lengths = match address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        lengths.iter().find_map(|(len, _)| {
            let net = IpNet::new(address, *len).ok()?;
            self.owners.get(&net.trunc()).copied()
        })
    }

    fn lengths(&mut self, net: IpNet) -> &mut Vec<(u8, usize)> {
        match net {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_and_leaves_when_removed() {
        let mut table = AllowedIps::default();
        table.insert(net("0.0.0.0/0"), PeerId(1));
        table.insert(net("10.0.0.0/8"), PeerId(2));
        table.insert(net("10.1.2.3/32"), PeerId(3));
        let at = |t: &AllowedIps, a: &str| t.lookup(a.parse().unwrap());
        assert_eq!(at(&table, "10.1.2.3"), Some(PeerId(3)));
        assert_eq!(at(&table, "10.1.2.4"), Some(PeerId(2)));
        assert_eq!(at(&table, "11.0.0.1"), Some(PeerId(1)));
        assert_eq!(at(&table, "::1"), None);
        table.remove(net("10.1.2.3/32"));
        table.remove(net("0.0.0.0/0"));
        assert_eq!(at(&table, "10.1.2.3"), Some(PeerId(2)));
        assert_eq!(at(&table, "11.0.0.1"), None);
    }
}
