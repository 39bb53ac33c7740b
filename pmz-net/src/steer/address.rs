//! Addresses and prefixes as the maps hold them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use pmz_xdp_types::Address;

use super::SteerError;

/// An address as a key. An IPv4-mapped IPv6 address has none: it would be another's.
pub(super) fn key(address: IpAddr) -> Result<Address, SteerError> {
    match address {
        IpAddr::V4(v4) => Ok(Address::v4(u32::from_ne_bytes(v4.octets()))),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(SteerError::Mapped(address)),
        IpAddr::V6(v6) => {
            let mut words = [0; 4];
            for (word, octets) in words.iter_mut().zip(v6.octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
            }
            Ok(Address(words))
        }
    }
}

/// The address that a key stands for.
pub(super) fn address(key: &Address) -> IpAddr {
    if key.is_v4() {
        return Ipv4Addr::from(key.0[3].to_ne_bytes()).into();
    }
    let mut octets = [0; 16];
    for (place, word) in octets.chunks_exact_mut(4).zip(key.0) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    Ipv6Addr::from(octets).into()
}

/// The bits of a prefix as a key, and how many count.
pub(super) fn prefix_key(prefix: IpNet) -> Result<(u32, Address), SteerError> {
    let prefix = prefix.trunc();
    let bits = u32::from(prefix.prefix_len());
    match prefix {
        IpNet::V4(v4) => Ok((Address::MAPPED_BITS + bits, key(IpAddr::V4(v4.network()))?)),
        // All shorter ones that reach into ::ffff:0:0/96 are the ones that hold it whole.
        IpNet::V6(v6)
            if bits >= Address::MAPPED_BITS && v6.network().to_ipv4_mapped().is_some() =>
        {
            Err(SteerError::Mapped(v6.network().into()))
        }
        IpNet::V6(v6) => {
            let mut words = [0; 4];
            for (word, octets) in words.iter_mut().zip(v6.network().octets().chunks_exact(4)) {
                *word = u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]);
            }
            Ok((bits, Address(words)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_come_back_from_their_keys() {
        for text in [
            "10.96.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "fd00:10::1",
            "::",
            "::1",
            "ff02::1",
            "::10.96.0.1",
        ] {
            let given: IpAddr = text.parse().unwrap();
            assert_eq!(address(&key(given).unwrap()), given);
        }
    }

    #[test]
    fn a_key_holds_an_address_as_it_lies_in_a_packet() {
        let mut bytes = Vec::new();
        for word in key("10.96.0.1".parse().unwrap()).unwrap().0 {
            bytes.extend(word.to_ne_bytes());
        }
        assert_eq!(
            bytes,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 1]
        );
    }

    #[test]
    fn ipv4_mapped_addresses_and_prefixes_are_refused() {
        assert!(matches!(
            key("::ffff:10.96.0.1".parse().unwrap()),
            Err(SteerError::Mapped(_))
        ));
        for text in [
            "::ffff:10.96.0.0/108",
            "::ffff:0:0/96",
            "::ffff:1.2.3.4/128",
        ] {
            assert!(
                matches!(
                    prefix_key(text.parse().unwrap()),
                    Err(SteerError::Mapped(_))
                ),
                "{text}"
            );
        }
    }

    #[test]
    fn a_prefix_is_known_by_its_own_bits_only() {
        assert_eq!(
            prefix_key("10.96.7.1/12".parse().unwrap()).unwrap(),
            (108, key("10.96.0.0".parse().unwrap()).unwrap())
        );
        assert_eq!(
            prefix_key("fd00:10:1::7/32".parse().unwrap()).unwrap(),
            (32, key("fd00:10::".parse().unwrap()).unwrap())
        );
        assert_eq!(
            prefix_key("::/0".parse().unwrap()).unwrap(),
            (0, Address::default())
        );
        // Holds the mapped addresses, and much else.
        assert_eq!(
            prefix_key("::/64".parse().unwrap()).unwrap(),
            (64, Address::default())
        );
        // Short enough to reach into them, though not named after them.
        assert_eq!(
            prefix_key("::ffff:1:2/80".parse().unwrap()).unwrap(),
            (80, Address::default())
        );
    }
}
