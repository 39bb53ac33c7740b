//! What the machine's routing holds, as far as it can collide with prefixes that pmz wants.

use std::net::IpAddr;

use ipnet::IpNet;

use super::prefix::overlap;
use super::rule::Rule;

/// Devices of a multipath route that are named.
const MAX_NAMED: usize = 4;

/// What a route does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends them on.
    #[default]
    Unicast,
    /// Takes them for this machine.
    Local,
    /// Drops them.
    Blackhole,
    /// Drops them, and says that nobody is there.
    Unreachable,
    /// Drops them, and says that it is forbidden.
    Prohibit,
    /// Leaves them to the next rule.
    Throw,
}

/// One of several ways of a multipath route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The device's index.
    pub index: u32,
    /// Its name, where it is known.
    pub device: Option<String>,
    /// The next hop, where there is one.
    pub gateway: Option<IpAddr>,
}

/// A route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingRoute {
    /// Where it leads; a default route has prefix length 0.
    pub prefix: IpNet,
    /// The routing table, 254 is the main one.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Of two routes for one prefix the one with the lower metric is taken.
    pub metric: u32,
    /// The device, where the route has exactly one.
    pub index: Option<u32>,
    /// Name of that device, where it is known.
    pub device: Option<String>,
    /// The next hop, where there is exactly one.
    pub gateway: Option<IpAddr>,
    /// The source address that the route gives to packets.
    pub prefsrc: Option<IpAddr>,
    /// The ways of a multipath route; empty for all others.
    pub hops: Vec<Hop>,
}

impl ExistingRoute {
    fn leads_only_to(&self, index: u32) -> bool {
        self.index == Some(index)
            || (!self.hops.is_empty() && self.hops.iter().all(|hop| hop.index == index))
    }

    /// The names of the devices that it leads to, so many as anybody reads.
    pub(super) fn devices(&self) -> Vec<String> {
        let mut names: Vec<String> = self.device.iter().cloned().collect();
        for hop in &self.hops {
            let name = hop.device.clone();
            names.extend(name.filter(|name| !names.contains(name)));
        }
        names.truncate(MAX_NAMED);
        names
    }
}

/// An address of this machine's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address, with the length of the network that it stands in.
    pub address: IpNet,
    /// The device that has it.
    pub index: u32,
    /// Its name, where it is known.
    pub device: Option<String>,
    /// Whether the network becomes a route as soon as the device is up, and the device is down.
    pub sleeping: bool,
}

/// What the kernel answered when it was asked for a route (`ip route get fibmatch`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// What it was asked for.
    pub address: IpAddr,
    /// The route that it found. Its table is the main one also where the route is in `local`, as long as
    /// the machine has no rules of its own: Linux keeps both in one trie until then (fib_trie.c).
    pub route: ExistingRoute,
}

/// All of it, of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Routes of all tables, without those for broadcast and multicast.
    pub routes: Vec<ExistingRoute>,
    /// Policy rules of both families, in the order in which the kernel asks them.
    pub rules: Vec<Rule>,
    /// This machine's addresses.
    pub addresses: Vec<OwnAddress>,
    /// What the kernel says itself, for addresses out of the wanted prefixes. Where it found no route, or
    /// one that drops packets, there is no entry.
    pub lookups: Vec<Lookup>,
    /// Devices that send to whatever address without asking a neighbour: VPNs' mostly.
    pub quiet: Vec<String>,
    /// The user whose packets are meant: rules can be for some users only.
    pub user: u32,
}

impl Survey {
    /// What of it is about addresses within a prefix.
    #[must_use]
    pub(super) fn near(&self, net: &IpNet) -> Self {
        let mut near = self.clone();
        near.routes.retain(|route| overlap(net, &route.prefix));
        near.addresses.retain(|own| overlap(net, &own.address));
        near.lookups.retain(|lookup| net.contains(&lookup.address));
        near
    }

    /// Forgets what hangs on a device, which is the tunnel's own.
    #[must_use]
    pub fn without(mut self, index: u32) -> Self {
        self.routes.retain(|route| !route.leads_only_to(index));
        self.addresses.retain(|own| own.index != index);
        self.lookups
            .retain(|lookup| !lookup.route.leads_only_to(index));
        self
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::tables::MAIN;
    use super::*;

    /// A route of the main table; each device has an index of its own.
    pub(crate) fn device_route(prefix: &str, device: &str) -> ExistingRoute {
        ExistingRoute {
            prefix: prefix.parse().unwrap(),
            table: MAIN,
            kind: RouteKind::Unicast,
            metric: 0,
            index: Some(device.bytes().map(u32::from).sum()),
            device: Some(device.to_owned()),
            gateway: None,
            prefsrc: None,
            hops: Vec::new(),
        }
    }

    /// A machine without policy routing that has these routes.
    pub(crate) fn survey(routes: &[ExistingRoute]) -> Survey {
        Survey {
            routes: routes.to_vec(),
            user: 1000,
            ..Survey::default()
        }
    }

    #[test]
    fn what_hangs_on_the_own_device_is_forgotten_and_a_shared_route_is_not() {
        let hop = |index| Hop {
            index,
            device: None,
            gateway: None,
        };
        let own = device_route("10.96.0.0/16", "pmz0");
        let index = own.index.unwrap();
        let other = device_route("10.97.0.0/16", "eth0");
        let mut both = device_route("10.98.0.0/16", "pmz0");
        (both.index, both.device) = (None, None);
        both.hops = vec![hop(index), hop(index + 1)];
        let mut twice = both.clone();
        twice.hops = vec![hop(index), hop(index)];
        let address = |index| OwnAddress {
            address: "240.64.0.2/32".parse().unwrap(),
            index,
            device: None,
            sleeping: false,
        };
        let lookup = |route: &ExistingRoute| Lookup {
            address: route.prefix.network(),
            route: route.clone(),
        };
        let all = Survey {
            addresses: vec![address(index), address(2)],
            lookups: vec![lookup(&own), lookup(&other)],
            ..survey(&[own, other.clone(), both.clone(), twice])
        };
        let left = all.without(index);
        assert_eq!(left.routes, [other.clone(), both]);
        assert_eq!(left.addresses, [address(2)]);
        assert_eq!(left.lookups, [lookup(&other)]);
    }
}
