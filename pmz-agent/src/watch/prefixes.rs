//! Guessing the cluster's networks from the addresses that are seen in it.
//!
//! A guess is needed where the API may not be asked. A guess that is too narrow leaves a service
//! unreachable; one that is too wide takes the developer's own network away. So it grows around the
//! addresses seen, up to a limit, and never over an address known to be outside.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefixes that a guess has at most; addresses that would need more are left out.
const MAX_PREFIXES: usize = 16;

/// How a guess grows: prefix lengths, for IPv4 and IPv6.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    /// What one address stands for.
    narrowest: (u8, u8),
    /// What several are merged into at most.
    widest: (u8, u8),
}

impl Growth {
    /// Service networks: a /112 is the usual one, /108 the largest that Kubernetes takes.
    pub(super) const SERVICES: Self = Self {
        narrowest: (16, 112),
        widest: (12, 108),
    };
    /// Pod networks: each node has a /64 of its own in most clusters.
    pub(super) const PODS: Self = Self {
        narrowest: (16, 64),
        widest: (12, 48),
    };
}

/// A guess as far as it has come.
#[derive(Clone, Debug)]
pub(super) struct Guess {
    growth: Growth,
    prefixes: Vec<IpNet>,
    outside: Vec<IpAddr>,
}

impl Guess {
    pub(super) fn new(growth: Growth, outside: &[IpAddr]) -> Self {
        Self {
            growth,
            prefixes: Vec::new(),
            outside: outside.to_vec(),
        }
    }

    /// Prefixes, sorted, none within another.
    pub(super) fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// An address of the network was seen. True where the guess has changed.
    pub(super) fn inside(&mut self, address: IpAddr) -> bool {
        if !ordinary(address) || self.prefixes.iter().any(|prefix| prefix.contains(&address)) {
            return false;
        }
        let Some(mut prefix) = network(address, of_family(self.growth.narrowest, address)) else {
            return false;
        };
        if self.holds_outside(&prefix) {
            return false;
        }
        for other in &self.prefixes {
            if let Some(merged) = self.merge(&prefix, other) {
                prefix = merged;
            }
        }
        self.prefixes.retain(|other| !prefix.contains(other));
        if self.prefixes.len() >= MAX_PREFIXES {
            return false;
        }
        self.prefixes.push(prefix);
        self.prefixes.sort();
        true
    }

    /// An address is known not to be of this network: a node's, say. True where the guess has changed.
    pub(super) fn outside(&mut self, address: IpAddr) -> bool {
        if self.outside.contains(&address) {
            return false;
        }
        // Enough for a network's control plane; a cluster does not have more of them.
        if self.outside.len() < 64 {
            self.outside.push(address);
        }
        let before = self.prefixes.len();
        self.prefixes.retain(|prefix| !prefix.contains(&address));
        self.prefixes.len() != before
    }

    fn merge(&self, a: &IpNet, b: &IpNet) -> Option<IpNet> {
        let length = common(a, b)?;
        if length < of_family(self.growth.widest, a.addr()) {
            return None;
        }
        let merged = network(a.addr(), length)?;
        (!self.holds_outside(&merged)).then_some(merged)
    }

    fn holds_outside(&self, prefix: &IpNet) -> bool {
        self.outside.iter().any(|address| prefix.contains(address))
    }
}

fn of_family(lengths: (u8, u8), address: IpAddr) -> u8 {
    if address.is_ipv4() {
        lengths.0
    } else {
        lengths.1
    }
}

/// The prefix of this length around the address.
fn network(address: IpAddr, length: u8) -> Option<IpNet> {
    Some(match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new(address, length).ok()?.trunc()),
        IpAddr::V6(address) => IpNet::V6(Ipv6Net::new(address, length).ok()?.trunc()),
    })
}

/// The length of the longest prefix that holds both.
fn common(a: &IpNet, b: &IpNet) -> Option<u8> {
    let same = match (a.addr(), b.addr()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let shorter = a.prefix_len().min(b.prefix_len());
    Some(u8::try_from(same).map_or(shorter, |same| same.min(shorter)))
}

fn ordinary(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
        }
    };
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(growth: Growth, outside: &[&str], seen: &[&str]) -> Vec<String> {
        let outside: Vec<_> = outside
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        let mut guess = Guess::new(growth, &outside);
        for address in seen {
            guess.inside(address.parse().unwrap());
        }
        guess.prefixes().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_address_stands_for_its_usual_network() {
        let seen = ["10.96.0.1", "10.96.200.3", "fd00:10:96::a"];
        let expected = ["10.96.0.0/16", "fd00:10:96::/112"];
        assert_eq!(guess(Growth::SERVICES, &[], &seen), expected);
        assert_eq!(
            guess(Growth::PODS, &[], &["fd00:10:244:1::5"]),
            ["fd00:10:244:1::/64"]
        );
    }

    #[test]
    fn addresses_are_merged_up_to_the_widest_prefix() {
        let seen = ["10.96.0.1", "10.111.0.1"];
        assert_eq!(guess(Growth::SERVICES, &[], &seen), ["10.96.0.0/12"]);
        let seen = ["10.96.0.1", "10.97.0.1"];
        assert_eq!(guess(Growth::SERVICES, &[], &seen), ["10.96.0.0/15"]);
        let seen = ["10.96.0.1", "10.112.0.1", "172.20.0.1"];
        let expected = ["10.96.0.0/16", "10.112.0.0/16", "172.20.0.0/16"];
        assert_eq!(guess(Growth::SERVICES, &[], &seen), expected);
        let seen = ["fd00::1", "fd00::f:1", "fd00::10:1"];
        assert_eq!(
            guess(Growth::SERVICES, &[], &seen),
            ["fd00::/108", "fd00::10:0/112"]
        );
    }

    #[test]
    fn a_wider_prefix_swallows_what_it_holds() {
        let seen = ["10.96.0.1", "10.112.0.1", "10.98.0.1", "10.97.0.1"];
        let expected = ["10.96.0.0/14", "10.112.0.0/16"];
        assert_eq!(guess(Growth::SERVICES, &[], &seen), expected);
    }

    #[test]
    fn a_guess_never_holds_an_address_known_to_be_outside() {
        let nodes = ["10.98.0.11"];
        let seen = ["10.96.0.1", "10.99.0.1", "10.98.7.7"];
        let expected = ["10.96.0.0/16", "10.99.0.0/16"];
        assert_eq!(guess(Growth::PODS, &nodes, &seen), expected);
    }

    #[test]
    fn an_address_found_to_be_outside_takes_its_prefix_away() {
        let mut guess = Guess::new(Growth::PODS, &[]);
        assert!(guess.inside("10.244.0.5".parse().unwrap()));
        assert!(!guess.inside("10.244.1.5".parse().unwrap()), "already held");
        assert!(guess.outside("10.244.9.9".parse().unwrap()));
        assert!(!guess.outside("10.244.9.9".parse().unwrap()));
        assert!(!guess.inside("10.244.0.5".parse().unwrap()));
        assert!(guess.prefixes().is_empty());
    }

    #[test]
    fn addresses_of_no_network_are_left_out() {
        let seen = [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.3.4",
            "fe80::1",
            "::1",
            "ff02::1",
            "224.0.0.1",
        ];
        assert!(guess(Growth::PODS, &[], &seen).is_empty());
    }

    #[test]
    fn a_guess_does_not_grow_without_bound() {
        let mut guess = Guess::new(Growth::SERVICES, &[]);
        for high in 1..=100 {
            guess.inside(IpAddr::from([high, 1, 0, 1]));
        }
        assert_eq!(guess.prefixes().len(), MAX_PREFIXES);
    }
}
