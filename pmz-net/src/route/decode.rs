//! The kernel's messages about routes, rules and addresses, read.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::packet_route::rule::{self, RuleAttribute, RuleFlags, RuleMessage};

use super::rule::{Rule, RuleAction};
use super::survey::{ExistingRoute, Hop, OwnAddress, RouteKind};

/// Nothing, between attributes (fib_rules.h).
const FRA_PAD: u16 = 18;

/// A link's name, and how it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) name: Option<String>,
    pub(super) is_up: bool,
    /// Sends without asking neighbours (IFF_NOARP, which holds for IPv6 as well).
    pub(super) is_quiet: bool,
}

/// All links, by index.
pub(super) type Links = HashMap<u32, Link>;

fn name(links: &Links, index: u32) -> Option<String> {
    links.get(&index)?.name.clone()
}

/// A route; `None` for broadcast, multicast and other families.
pub(super) fn route(message: &RouteMessage, links: &Links) -> Option<ExistingRoute> {
    let kind = match message.header.kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        _ => return None,
    };
    let length = message.header.destination_prefix_length;
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => [0u8; 4].into(),
        AddressFamily::Inet6 => [0u8; 16].into(),
        _ => return None,
    };
    let mut route = ExistingRoute {
        prefix: IpNet::new(any, length).ok()?,
        table: u32::from(message.header.table),
        kind,
        metric: 0,
        index: None,
        device: None,
        gateway: None,
        prefsrc: None,
        hops: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.prefix = IpNet::new(address(to)?, length).ok()?;
            }
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => route.index = Some(*index),
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::PrefSource(source) => route.prefsrc = address(source),
            RouteAttribute::MultiPath(ways) => {
                route.hops = ways.iter().map(|way| hop(way, links)).collect();
            }
            _ => {}
        }
    }
    // Dropping routes of IPv6 hang on the loopback device, and lead nowhere.
    if matches!(kind, RouteKind::Unicast | RouteKind::Local) {
        route.device = route.index.and_then(|index| name(links, index));
    } else {
        route.index = None;
    }
    Some(route)
}

fn hop(way: &rtnetlink::packet_route::route::RouteNextHop, links: &Links) -> Hop {
    let gateway = way.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(gateway) => address(gateway),
        _ => None,
    });
    Hop {
        index: way.interface_index,
        device: name(links, way.interface_index),
        gateway,
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

/// An address of the machine's own.
pub(super) fn own_address(message: &AddressMessage, links: &Links) -> Option<OwnAddress> {
    let mut flags = AddressFlags::empty();
    let (mut local, mut peer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let index = message.header.index;
    // On a link between two, the local address is the machine's, and the other is the peer's.
    let own = local.or(peer)?;
    let length = message.header.prefix_len;
    let is_up = links.get(&index).is_some_and(|link| link.is_up);
    Some(OwnAddress {
        address: IpNet::new(own, length).ok()?,
        index,
        device: name(links, index),
        sleeping: !is_up && !flags.contains(AddressFlags::Noprefixroute),
    })
}

/// A rule; `None` for what can't lead packets anywhere.
pub(super) fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let ipv6 = match header.family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return None,
    };
    let mut table = u32::from(header.table);
    let mut target = None;
    let (mut mark, mut mask) = (None, u32::MAX);
    let mut read = Rule {
        ipv6,
        preference: 0,
        invert: header.flags.contains(RuleFlags::Invert),
        ..Rule::default()
    };
    if header.tos != 0 {
        read.others
            .push(format!("with type of service {:#x}", header.tos));
    }
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Destination(to) => read.to = IpNet::new(*to, header.dst_len).ok(),
            RuleAttribute::Source(from) => read.from = IpNet::new(*from, header.src_len).ok(),
            RuleAttribute::Iifname(device) => read.input = Some(device.clone()),
            RuleAttribute::Oifname(device) => read.output = Some(device.clone()),
            RuleAttribute::Goto(preference) => target = Some(*preference),
            RuleAttribute::Priority(preference) => read.preference = *preference,
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = *value,
            RuleAttribute::TunId(id) => read.decapsulated = *id != 0,
            RuleAttribute::Table(wide) => table = *wide,
            RuleAttribute::L3MDev(vrf) => read.vrf = *vrf,
            RuleAttribute::UidRange(range) => read.users = Some((range.start, range.end)),
            RuleAttribute::IpProtocol(protocol) => {
                let words = format!("of protocol {protocol:?}").to_lowercase();
                read.others.push(words);
            }
            RuleAttribute::SourcePortRange(ports) => {
                read.others
                    .push(format!("from port {} to {}", ports.start, ports.end));
            }
            RuleAttribute::DestinationPortRange(ports) => {
                read.others
                    .push(format!("to port {} to {}", ports.start, ports.end));
            }
            // The kernel writes all bits where nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(length) => {
                read.suppress = Some(*length).filter(|length| *length != u32::MAX);
            }
            RuleAttribute::Realm(_)
            | RuleAttribute::SuppressIfGroup(_)
            | RuleAttribute::Protocol(_) => {}
            RuleAttribute::Other(other) if other.kind() == FRA_PAD => {}
            // A selector of a newer kernel: some packets will meet it.
            _ => read.others.push("that are of a certain kind".to_owned()),
        }
    }
    read.mark = mark.map(|mark| (mark, mask));
    read.action = match header.action {
        rule::RuleAction::ToTable => RuleAction::Table(table),
        rule::RuleAction::Goto if header.flags.contains(RuleFlags::Unresolved) => RuleAction::Nop,
        rule::RuleAction::Goto => RuleAction::Goto(target?),
        rule::RuleAction::Nop => RuleAction::Nop,
        rule::RuleAction::Blackhole => RuleAction::Blackhole,
        rule::RuleAction::Unreachable => RuleAction::Unreachable,
        rule::RuleAction::Prohibit => RuleAction::Prohibit,
        _ => return None,
    };
    Some(read)
}
