//! Which routes of the machine a wanted prefix would collide with.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A unicast route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingRoute {
    /// Where it leads; a default route has prefix length 0.
    pub prefix: IpNet,
    /// The routing table, 254 is the main one.
    pub table: u32,
    /// The device, where the route has exactly one.
    pub index: Option<u32>,
    /// Name of that device, where it is known.
    pub device: Option<String>,
    /// The next hop, where there is one.
    pub gateway: Option<IpAddr>,
    /// The source address that the route gives to packets.
    pub prefsrc: Option<IpAddr>,
}

/// How a wanted prefix and a route overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// The same prefix: only one of them can win.
    Same,
    /// The route is wider: the wanted prefix takes a part of what goes there now (a VPN's 10.0.0.0/8).
    Wider,
    /// The route is narrower: it keeps a part of the wanted prefix for itself (a bridge of Docker's).
    Narrower,
}

/// A wanted prefix and the route that it collides with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// What was wanted.
    pub prefix: IpNet,
    /// The route's prefix.
    pub route: IpNet,
    /// The route's device, as far as it is known.
    pub device: Option<String>,
    /// How they overlap.
    pub overlap: Overlap,
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, route, .. } = self;
        let device = self.device.as_deref().unwrap_or("another device");
        match self.overlap {
            Overlap::Same => write!(f, "{prefix} already goes to {device}"),
            Overlap::Wider => write!(f, "{prefix} lies in {route}, which goes to {device}"),
            Overlap::Narrower => write!(f, "{prefix} holds {route}, which goes to {device}"),
        }
    }
}

/// Every overlap of a wanted prefix with a route that leads to another device than `own`.
///
/// Routes that stand for "everything" are none: a default route, and the halves or eighths of the address
/// space that VPNs use to outdo one. They are meant to be overridden by whatever is narrower.
pub fn conflicts(wanted: &[IpNet], existing: &[ExistingRoute], own: Option<u32>) -> Vec<Conflict> {
    let mut found = Vec::new();
    for prefix in wanted {
        for route in existing {
            if is_everything(&route.prefix) || (own.is_some() && route.index == own) {
                continue;
            }
            let overlap = if route.prefix.trunc() == prefix.trunc() {
                Overlap::Same
            } else if route.prefix.contains(prefix) {
                Overlap::Wider
            } else if prefix.contains(&route.prefix) {
                Overlap::Narrower
            } else {
                continue;
            };
            let conflict = Conflict {
                prefix: prefix.trunc(),
                route: route.prefix,
                device: route.device.clone(),
                overlap,
            };
            if !found.contains(&conflict) {
                found.push(conflict);
            }
        }
    }
    found
}

fn is_everything(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(p) => p.prefix_len() <= 1,
        // 2000::/3 is all of the global unicast space (RFC 4291, section 2.4).
        IpNet::V6(p) => p.prefix_len() <= 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(s: &str) -> IpNet {
        s.parse().unwrap()
    }

    fn route(prefix: &str, index: u32, device: &str) -> ExistingRoute {
        ExistingRoute {
            prefix: net(prefix),
            table: 254,
            index: Some(index),
            device: Some(device.to_owned()),
            gateway: None,
            prefsrc: None,
        }
    }

    fn overlaps(wanted: &str, existing: &[ExistingRoute]) -> Vec<Overlap> {
        conflicts(&[net(wanted)], existing, Some(99))
            .into_iter()
            .map(|c| c.overlap)
            .collect()
    }

    #[test]
    fn a_vpn_that_covers_the_prefix_is_found_and_named() {
        let found = conflicts(
            &[net("10.96.0.0/16")],
            &[route("10.0.0.0/8", 5, "vpn0")],
            None,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].overlap, Overlap::Wider);
        assert_eq!(
            found[0].to_string(),
            "10.96.0.0/16 lies in 10.0.0.0/8, which goes to vpn0"
        );
    }

    #[test]
    fn a_bridge_inside_the_prefix_is_found() {
        assert_eq!(
            overlaps("172.16.0.0/12", &[route("172.17.0.0/16", 3, "docker0")]),
            [Overlap::Narrower]
        );
    }

    #[test]
    fn the_same_prefix_is_found_also_when_host_bits_are_set() {
        assert_eq!(
            overlaps("10.96.1.2/16", &[route("10.96.0.0/16", 4, "other")]),
            [Overlap::Same]
        );
    }

    #[test]
    fn routes_of_the_own_device_are_no_conflict() {
        assert!(overlaps("10.96.0.0/16", &[route("10.96.0.0/16", 99, "pmz0")]).is_empty());
    }

    #[test]
    fn default_routes_and_their_halves_are_no_conflict() {
        let existing = [
            route("0.0.0.0/0", 2, "eth0"),
            route("0.0.0.0/1", 7, "vpn0"),
            route("::/0", 2, "eth0"),
            route("2000::/3", 7, "vpn0"),
        ];
        assert!(overlaps("10.96.0.0/16", &existing).is_empty());
        assert!(overlaps("2001:db8::/32", &existing).is_empty());
    }

    #[test]
    fn families_and_neighbours_do_not_collide() {
        let existing = [
            route("fd00::/8", 2, "eth0"),
            route("10.97.0.0/16", 2, "eth0"),
        ];
        assert!(overlaps("10.96.0.0/16", &existing).is_empty());
    }

    #[test]
    fn two_routes_alike_are_named_once() {
        let existing = [
            route("10.0.0.0/8", 5, "vpn0"),
            route("10.0.0.0/8", 5, "vpn0"),
        ];
        assert_eq!(overlaps("10.96.0.0/16", &existing).len(), 1);
    }
}
