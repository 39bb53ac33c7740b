//! The playground's address plan.
//!
//! | network | IPv4 | IPv6 |
//! |---|---|---|
//! | lan of laptop and node | 10.99.0.0/24 | fd99::/64 |
//! | pods of the node | 10.244.0.0/24 of 10.244.0.0/16 | fd00:10:244::/64 |
//! | services | 10.96.0.0/16 | fd00:10:96::/112 |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The node's addresses on the lan.
pub const NODE: [IpAddr; 2] = lan(11);
/// The laptop's addresses on the lan.
pub const LAPTOP: [IpAddr; 2] = lan(20);
/// Prefix lengths of the lan, by family.
pub const LAN_PREFIX_LENGTHS: [u8; 2] = [24, 64];
/// The node's end of each pod's link: what pods have as their router.
pub const POD_GATEWAY: [IpAddr; 2] = pod(1);
/// The first service address is the Kubernetes API's.
pub const API_SERVICE: [IpAddr; 2] = service(1);
/// Where the Kubernetes API listens, on the node's addresses.
pub const API_PORT: u16 = 6443;
/// The agent's UDP port at the node's addresses.
pub const AGENT_NODE_PORT: u16 = 31820;

/// MTU of every link.
pub const MTU: u32 = 1500;

/// Where the node's pods have their addresses from.
pub fn pod_cidrs() -> [IpNet; 2] {
    [v4net(10, 244, 24), v6net(0x244, 64)]
}

/// Where all nodes' pods have their addresses from.
pub fn cluster_pod_cidrs() -> [IpNet; 2] {
    [v4net(10, 244, 16), v6net(0x244, 64)]
}

/// Where ClusterIPs come from.
pub fn service_cidrs() -> [IpNet; 2] {
    [v4net(10, 96, 16), v6net(0x96, 112)]
}

/// Addresses of the pod with that number, which is at least 2.
pub const fn pod(number: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 244, 0, number)),
        IpAddr::V6(Ipv6Addr::new(
            0xfd00,
            0x10,
            0x244,
            0,
            0,
            0,
            0,
            number as u16,
        )),
    ]
}

/// ClusterIPs of the service with that number, which is at least 1.
pub const fn service(number: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 96, 0, number)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, number as u16)),
    ]
}

const fn lan(number: u8) -> [IpAddr; 2] {
    [
        IpAddr::V4(Ipv4Addr::new(10, 99, 0, number)),
        IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number as u16)),
    ]
}

fn v4net(first: u8, second: u8, length: u8) -> IpNet {
    let network = Ipv4Addr::new(first, second, 0, 0);
    IpNet::V4(Ipv4Net::new_assert(network, length))
}

fn v6net(third: u16, length: u8) -> IpNet {
    let network = Ipv6Addr::new(0xfd00, 0x10, third, 0, 0, 0, 0, 0);
    IpNet::V6(Ipv6Net::new_assert(network, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_networks_and_networks_apart() {
        for (family, node) in NODE.iter().enumerate() {
            assert!(pod_cidrs()[family].contains(&pod(255)[family]));
            assert!(cluster_pod_cidrs()[family].contains(&pod_cidrs()[family]));
            assert!(service_cidrs()[family].contains(&service(255)[family]));
            assert!(!cluster_pod_cidrs()[family].contains(&service(1)[family]));
            assert!(!pod_cidrs()[family].contains(node));
        }
    }
}
