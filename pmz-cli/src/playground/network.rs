//! The cables: who is joined to whom, with which addresses and routes.

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;

use super::addresses::{LAN_PREFIX_LENGTHS, LAPTOP, MTU, NODE, POD_GATEWAY};
use super::addresses::{pod_cidrs, service_cidrs};
use super::link::{LinkEmulator, LinkEnd, LinkSpec};
use super::machine::Machine;
use super::netlink::{Links, Via};
use super::nft::NodeNetwork;

/// Name of the lan's interface on laptop and node, and of a pod's only interface.
pub(super) const INTERFACE: &str = "eth0";

/// Sysctls of every machine: nothing of this is left to what the machine underneath has set.
const COMMON: [(&str, &str); 6] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    // Addresses can be used at once, link-local ones too.
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
];
const NODE_ONLY: [(&str, &str); 4] = [
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    // `Unreachable` is an answer each time: some six a second would make the others time out.
    ("net/ipv4/icmp_ratemask", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
];
/// Whoever is in a pod may ping, as container runtimes have it.
const POD_ONLY: [(&str, &str); 1] = [("net/ipv4/ping_group_range", "0 2147483647")];

pub(super) fn laptop_sysctls() -> Vec<(String, String)> {
    owned(&[&COMMON])
}

pub(super) fn node_sysctls() -> Vec<(String, String)> {
    owned(&[&COMMON, &NODE_ONLY])
}

pub(super) fn pod_sysctls() -> Vec<(String, String)> {
    owned(&[&COMMON, &POD_ONLY])
}

fn owned(lists: &[&[(&str, &str)]]) -> Vec<(String, String)> {
    lists
        .concat()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What the node's service table must know.
pub(super) fn node_network() -> NodeNetwork {
    NodeNetwork {
        lan_interface: INTERFACE.into(),
        addresses: NODE.to_vec(),
        service_cidrs: service_cidrs().to_vec(),
        pod_cidrs: pod_cidrs().to_vec(),
    }
}

/// Joins laptop and node, by a plain cable or by one with delay, loss and a rate. The laptop has no route
/// but to the lan.
pub(super) async fn join_lan(
    laptop: &Machine,
    node: &Machine,
    link: Option<(LinkSpec, u64)>,
) -> Result<Option<LinkEmulator>> {
    let (laptop_links, node_links) = (Links::open(laptop.netns())?, Links::open(node.netns())?);
    laptop_links.up("lo").await?;
    node_links.up("lo").await?;
    let laptop_addresses = on_lan(LAPTOP)?;
    let node_addresses = on_lan(NODE)?;
    let emulator = match link {
        Some((spec, seed)) => {
            let laptop = LinkEnd {
                netns: laptop.netns(),
                interface: INTERFACE,
                addresses: &laptop_addresses,
            };
            let node = LinkEnd {
                netns: node.netns(),
                interface: INTERFACE,
                addresses: &node_addresses,
            };
            Some(LinkEmulator::between(laptop, node, MTU, spec, seed).await?)
        }
        None => {
            node_links
                .add_veth(INTERFACE, &laptop_links, INTERFACE, MTU)
                .await?;
            for (links, addresses) in [
                (&laptop_links, &laptop_addresses),
                (&node_links, &node_addresses),
            ] {
                for address in addresses {
                    links.add_address(INTERFACE, *address).await?;
                }
            }
            None
        }
    };
    // A process of the node itself gets as far as the output hook only if there is a route. What isn't
    // translated there vanishes on the lan, as on a real node.
    for prefix in service_cidrs() {
        node_links.add_route(INTERFACE, prefix, Via::Link).await?;
    }
    Ok(emulator)
}

fn on_lan(addresses: [IpAddr; 2]) -> Result<Vec<IpNet>> {
    let with_length = addresses.into_iter().zip(LAN_PREFIX_LENGTHS);
    Ok(with_length
        .map(|(address, length)| IpNet::new(address, length))
        .collect::<Result<_, _>>()?)
}

/// Joins a pod to the node, as the CNI plugin `ptp` does it: a cable of its own, with the node as its
/// router.
pub(super) async fn join_pod(node: &Machine, pod: &Machine, addresses: &[IpAddr]) -> Result<()> {
    let (node_links, pod_links) = (Links::open(node.netns())?, Links::open(pod.netns())?);
    let cable = cable_name(addresses);
    pod_links.up("lo").await?;
    node_links
        .add_veth(&cable, &pod_links, INTERFACE, MTU)
        .await?;
    for address in addresses {
        let gateway = gateway(*address);
        node_links.add_address(&cable, IpNet::from(gateway)).await?;
        node_links
            .add_route(&cable, IpNet::from(*address), Via::Link)
            .await?;
        pod_links
            .add_address(INTERFACE, IpNet::from(*address))
            .await?;
        pod_links
            .add_route(INTERFACE, IpNet::from(gateway), Via::Link)
            .await?;
        pod_links
            .add_route(INTERFACE, default_route(*address)?, Via::Gateway(gateway))
            .await?;
    }
    Ok(())
}

/// Takes a pod's cable away.
pub(super) async fn part_pod(node: &Machine, addresses: &[IpAddr]) -> Result<()> {
    Links::open(node.netns())?
        .delete(&cable_name(addresses))
        .await
}

/// The node's end of a pod's cable: after the pod's number, so that it is free again when the address is.
fn cable_name(addresses: &[IpAddr]) -> String {
    let number = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(address.octets()[3]),
        IpAddr::V6(_) => None,
    });
    format!("pod{}", number.unwrap_or(0))
}

fn gateway(of: IpAddr) -> IpAddr {
    POD_GATEWAY[usize::from(of.is_ipv6())]
}

fn default_route(like: IpAddr) -> Result<IpNet> {
    let unspecified = match like {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    Ok(IpNet::new(unspecified, 0)?)
}
