//! Arithmetic of prefixes, and which of them a user can mean.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Why a prefix that a user has written is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPrefix {
    /// Neither an address nor a prefix.
    #[error(
        "{text:?} is no prefix: write a network and its length, as in 10.1.0.0/16 or fd00:1::/64"
    )]
    Unreadable {
        /// As it was written.
        text: String,
    },
    /// Bits are set behind the prefix length.
    #[error(
        "{given} is a host's address with a network's length: write {network} for the network, or {host} for \
         the host"
    )]
    HostBits {
        /// As it was written.
        given: IpNet,
        /// What may be meant.
        network: IpNet,
        /// What else may be meant.
        host: IpNet,
    },
    /// IPv4 in IPv6's clothes (RFC 4291, section 2.5.5.2), which no packet has on a wire.
    #[error("{given} is IPv4 written as IPv6: write {meant}")]
    Mapped {
        /// As it was written.
        given: IpNet,
        /// What is meant.
        meant: IpNet,
    },
    /// Addresses that no packet through a tunnel can have.
    #[error("{given} holds {what} addresses ({of}), which stay on this machine or its link")]
    Local {
        /// As it was written.
        given: IpNet,
        /// Which kind.
        what: &'static str,
        /// Their prefix.
        of: IpNet,
    },
}

/// What belongs to the machine or the link, with its name (RFC 6890).
pub(super) fn local_prefixes() -> [(IpNet, &'static str); 8] {
    let v4 = |a: u8, b: u8, len| IpNet::V4(Ipv4Net::new_assert([a, b, 0, 0].into(), len));
    let v6 = |a: u16, len| IpNet::V6(Ipv6Net::new_assert([a, 0, 0, 0, 0, 0, 0, 0].into(), len));
    [
        (v4(0, 0, 8), "unspecified"),
        (v4(127, 0, 8), "loopback"),
        (v4(169, 254, 16), "link-local"),
        (v4(224, 0, 4), "multicast"),
        (
            IpNet::V4(Ipv4Net::new_assert([255; 4].into(), 32)),
            "broadcast",
        ),
        // The loopback, mapped and compatible addresses, and nothing that anybody routes.
        (v6(0, 16), "loopback and IPv4-mapped"),
        (v6(0xfe80, 10), "link-local"),
        (v6(0xff00, 8), "multicast"),
    ]
}

/// What nobody means by "all traffic": the machine's and the link's, and what is reserved for ever
/// (RFC 1112, section 4).
pub(super) fn never_meant() -> impl Iterator<Item = IpNet> {
    let reserved = IpNet::V4(Ipv4Net::new_assert([240, 0, 0, 0].into(), 4));
    let local = local_prefixes().into_iter().map(|(local, _)| local);
    local.chain([reserved])
}

/// Reads a prefix as users write it; an address alone stands for itself.
///
/// # Errors
/// See [`BadPrefix`]. A prefix that [`is_vast`] is none: whether it is meant is to be asked.
pub fn parse_prefix(text: &str) -> Result<IpNet, BadPrefix> {
    let text = text.trim();
    let given = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| BadPrefix::Unreadable {
            text: text.to_owned(),
        })?;
    if let IpNet::V6(net) = given
        && let Some(address) = net.addr().to_ipv4_mapped()
        && let Some(len) = net.prefix_len().checked_sub(96)
    {
        let meant = Ipv4Net::new(address, len).map_or(given, |net| IpNet::V4(net.trunc()));
        return Err(BadPrefix::Mapped { given, meant });
    }
    if given != given.trunc() {
        return Err(BadPrefix::HostBits {
            given,
            network: given.trunc(),
            host: given.addr().into(),
        });
    }
    let local = local_prefixes()
        .into_iter()
        .find(|(local, _)| local.contains(&given) || (!is_vast(&given) && given.contains(local)));
    match local {
        Some((of, what)) => Err(BadPrefix::Local { given, what, of }),
        None => Ok(given),
    }
}

/// Whether a prefix stands for "everything": a default route, and the halves or eighths of the address
/// space that VPNs use to outdo one. Such routes are meant to be overridden by whatever is narrower.
pub fn is_everything(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(p) => p.prefix_len() <= 1,
        // 2000::/3 is all of the global unicast space (RFC 4291, section 2.4).
        IpNet::V6(p) => p.prefix_len() <= 3,
    }
}

/// Whether a prefix is wider than a network can be: nobody should lead one into a tunnel by mistake.
pub fn is_vast(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(p) => p.prefix_len() < 8,
        IpNet::V6(p) => p.prefix_len() < 16,
    }
}

/// Whether two prefixes have addresses in common.
pub(super) fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The prefixes without those that lie within another one, sorted, without host bits.
pub fn outermost(prefixes: impl IntoIterator<Item = IpNet>) -> Vec<IpNet> {
    let mut sorted: Vec<IpNet> = prefixes.into_iter().map(|net| net.trunc()).collect();
    // What holds a prefix stands before it, and nothing that it does not hold stands between.
    sorted.sort_by_key(|net| (net.network(), net.prefix_len()));
    let mut kept: Vec<IpNet> = Vec::new();
    for net in sorted {
        if !kept.last().is_some_and(|wider| wider.contains(&net)) {
            kept.push(net);
        }
    }
    kept
}

/// What is left of a prefix when others are cut out of it: as few prefixes as that takes, sorted.
pub fn cut(net: IpNet, excluded: &[IpNet]) -> Vec<IpNet> {
    let near: Vec<IpNet> = excluded
        .iter()
        .filter(|hole| overlap(&net, hole))
        .copied()
        .collect();
    if near.iter().any(|hole| hole.contains(&net)) {
        return Vec::new();
    }
    // An address without neighbours that overlaps with a hole lies in it.
    match net.subnets(net.prefix_len() + 1) {
        Ok(halves) if !near.is_empty() => halves.flat_map(|half| cut(half, &near)).collect(),
        _ => vec![net.trunc()],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace()
            .map(|s| s.parse().unwrap())
            .collect()
    }

    fn said(text: &str) -> String {
        parse_prefix(text).unwrap_err().to_string()
    }

    #[test]
    fn prefixes_and_addresses_are_read() {
        for (text, net) in [
            ("10.1.0.0/16", "10.1.0.0/16"),
            ("10.1.2.3", "10.1.2.3/32"),
            (" fd00:1::/64 ", "fd00:1::/64"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("240.1.0.0/16", "240.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse_prefix(text).unwrap().to_string(), net);
        }
    }

    #[test]
    fn a_prefix_with_host_bits_is_asked_back_with_both_that_may_be_meant() {
        let text = said("10.1.2.3/16");
        assert!(text.contains("10.1.0.0/16 for the network"), "{text}");
        assert!(text.contains("10.1.2.3/32 for the host"), "{text}");
        assert!(said("fd00::1/64").contains("fd00::/64"));
    }

    #[test]
    fn mapped_addresses_are_answered_with_their_ipv4() {
        assert!(said("::ffff:10.1.0.0/112").ends_with("write 10.1.0.0/16"));
        assert!(said("::ffff:10.1.2.3").ends_with("write 10.1.2.3/32"));
    }

    #[test]
    fn what_stays_on_the_machine_or_the_link_is_refused_by_name() {
        for (text, what) in [
            ("127.0.0.1", "loopback"),
            ("127.0.0.0/8", "loopback"),
            ("169.254.169.254", "link-local"),
            ("224.0.0.0/4", "multicast"),
            ("239.1.0.0/16", "multicast"),
            ("255.255.0.0/16", "broadcast"),
            ("0.0.0.0/8", "unspecified"),
            ("::1", "loopback"),
            ("fe80::/64", "link-local"),
            ("ff02::/16", "multicast"),
            ("::fffe:0:0/95", "IPv4-mapped"),
        ] {
            let said = said(text);
            assert!(said.contains(what), "{text}: {said}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused_with_an_example() {
        for text in ["", "10.1.0.0/33", "10.1/16", "cluster", "10.1.0.0/-1"] {
            assert!(said(text).contains("10.1.0.0/16"), "{text}");
        }
    }

    #[test]
    fn prefixes_within_others_and_twins_are_dropped() {
        assert_eq!(
            outermost(nets(
                "10.2.0.0/16 10.0.0.0/8 10.0.0.0/8 fd00::1/128 fd00::/8 11.0.0.0/8"
            )),
            nets("10.0.0.0/8 11.0.0.0/8 fd00::/8")
        );
    }

    #[test]
    fn what_is_cut_out_leaves_the_fewest_prefixes() {
        let left = cut("10.0.0.0/8".parse().unwrap(), &nets("10.128.0.0/9"));
        assert_eq!(left, nets("10.0.0.0/9"));
        let left = cut(
            "10.0.0.0/30".parse().unwrap(),
            &nets("10.0.0.1/32 fd00::/8"),
        );
        assert_eq!(left, nets("10.0.0.0/32 10.0.0.2/31"));
        let left = cut("10.0.0.0/16".parse().unwrap(), &nets("10.0.0.0/8"));
        assert!(left.is_empty(), "{left:?}");
        let left = cut("0.0.0.0/0".parse().unwrap(), &nets("203.0.113.5/32"));
        assert_eq!(left.len(), 32);
    }

    /// Prefixes close enough to each other to overlap often, with the addresses around them.
    fn v4() -> impl Strategy<Value = IpNet> {
        (any::<u16>(), 14_u8..=32).prop_map(|(low, len)| {
            IpNet::new([10, 1, (low >> 8) as u8, low as u8].into(), len)
                .unwrap()
                .trunc()
        })
    }

    fn v6() -> impl Strategy<Value = IpNet> {
        (any::<u16>(), 110_u8..=128).prop_map(|(low, len)| {
            IpNet::new([0xfd00, 0, 0, 0, 0, 0, 0, low].into(), len)
                .unwrap()
                .trunc()
        })
    }

    proptest! {
        #[test]
        fn an_address_is_left_if_it_was_there_and_not_cut_out(
            (net, holes, probes) in prop_oneof![
                (v4(), prop::collection::vec(v4(), 0..6), prop::collection::vec(v4(), 40)),
                (v6(), prop::collection::vec(v6(), 0..6), prop::collection::vec(v6(), 40)),
            ]
        ) {
            let left = cut(net, &holes);
            let probes = probes.iter().chain(&holes).chain([&net]);
            for address in probes.flat_map(|net| [net.network(), net.broadcast()]) {
                let wanted = net.contains(&address) && !holes.iter().any(|h| h.contains(&address));
                let count = left.iter().filter(|piece| piece.contains(&address)).count();
                prop_assert_eq!(count, usize::from(wanted), "{} of {:?}", address, left);
            }
            // As few as can be: no two could be one.
            prop_assert_eq!(IpNet::aggregate(&left).len(), left.len());
        }

        #[test]
        fn the_outermost_cover_the_same_addresses_and_none_holds_another(
            all in prop::collection::vec(prop_oneof![v4(), v6()], 0..12)
        ) {
            let kept = outermost(all.clone());
            for net in &all {
                prop_assert_eq!(kept.iter().filter(|k| k.contains(net)).count(), 1);
            }
            for net in &kept {
                prop_assert!(all.contains(net));
            }
        }
    }
}
