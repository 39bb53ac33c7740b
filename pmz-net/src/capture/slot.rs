//! Addresses that stand for servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pmz_xdp_types::capture::V4_NETWORK;
use serde::{Deserialize, Serialize};

/// A server that programs have asked, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// Which addresses stand for servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// A /112, where there is IPv6.
    v6: Option<Ipv6Addr>,
}

impl Slots {
    /// IPv4 servers have theirs in 127.112.0.0/16, IPv6 servers in the /112 of this address.
    pub fn new(v6: Option<Ipv6Addr>) -> Self {
        Self {
            v6: v6.map(|network| Ipv6Addr::from(u128::from(network) & !u128::from(u16::MAX))),
        }
    }

    /// With a /112 that no network has: chosen at random among the unique local ones (RFC 4193, section 3.2.2).
    pub fn random() -> Self {
        let bits = rand::random::<u128>() & ((1 << 120) - 1) | 0xfd << 120;
        Self::new(Some(Ipv6Addr::from(bits)))
    }

    /// The network of IPv6 slots, a /112.
    pub fn v6(&self) -> Option<Ipv6Addr> {
        self.v6
    }

    /// The slot that an address stands for.
    pub fn slot(&self, address: IpAddr) -> Option<Slot> {
        match address {
            IpAddr::V4(address) => {
                let [a, b, high, low] = address.octets();
                (a == V4_NETWORK[0] && b == V4_NETWORK[1])
                    .then(|| Slot(u16::from_be_bytes([high, low])))
            }
            IpAddr::V6(address) => {
                let (network, bits) = (u128::from(self.v6?), u128::from(address));
                (bits & !u128::from(u16::MAX) == network).then_some(Slot((bits & 0xffff) as u16))
            }
        }
    }

    /// What stands for a slot of an IPv4 server.
    pub fn v4_address(slot: Slot) -> Ipv4Addr {
        let [high, low] = slot.0.to_be_bytes();
        Ipv4Addr::new(V4_NETWORK[0], V4_NETWORK[1], high, low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_a_slot_in_either_network_and_nowhere_else() {
        let slots = Slots::new(Some("fd01:2:3:4:5:6:7:8".parse().unwrap()));
        let slot = |text: &str| slots.slot(text.parse().unwrap()).map(|slot| slot.0);
        assert_eq!(slot("127.112.1.2"), Some(0x0102));
        assert_eq!(slot("127.112.0.0"), Some(0));
        assert_eq!(slot("127.113.1.2"), None);
        assert_eq!(slot("127.0.0.53"), None);
        assert_eq!(slot("fd01:2:3:4:5:6:7:abcd"), Some(0xabcd));
        assert_eq!(slot("fd01:2:3:4:5:6:8:abcd"), None);
        assert_eq!(
            Slots::new(None).slot("fd01:2:3:4:5:6:7:1".parse().unwrap()),
            None
        );
        assert_eq!(Slots::v4_address(Slot(0x0102)).to_string(), "127.112.1.2");
    }

    #[test]
    fn a_random_network_is_unique_local() {
        for _ in 0..100 {
            let network = Slots::random().v6().unwrap();
            assert_eq!(network.octets()[0], 0xfd);
            assert_eq!(network.segments()[7], 0);
        }
    }
}
