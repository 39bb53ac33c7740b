//! What the helper refuses whoever asks: it works for a peer with fewer rights than its own.

use std::net::IpAddr;

use ipnet::IpNet;
use pmz_net::route::{Kind, MAX_ROUTES, Wishes, is_vast};

use super::message::{Claim, Refusal};

const MAX_ADDRESSES: usize = 4;
const MAX_SEARCH: usize = 8;
/// Domains of the TUN's link at most: what a message has room for. systemd-resolved takes 1024 (LINK_SEARCH_DOMAINS_MAX).
pub const MAX_DOMAINS: usize = 512;

fn invalid<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Invalid {
        message: message.into(),
    })
}

/// Names of pmz's own devices only: `pmz0` to `pmz9999`, or `pmz%d`.
pub(super) fn device_name(name: &str) -> Result<(), Refusal> {
    let Some(number) = name.strip_prefix("pmz") else {
        return invalid(format!("a device called {name:?}"));
    };
    let digits =
        !number.is_empty() && number.len() <= 4 && number.bytes().all(|b| b.is_ascii_digit());
    if number == "%d" || digits {
        Ok(())
    } else {
        invalid(format!("a device called {name:?}"))
    }
}

/// From what IPv6 needs (RFC 8200, section 5) up to the largest packet.
pub(super) fn mtu(mtu: u16) -> Result<(), Refusal> {
    if mtu < 1280 {
        invalid(format!("an MTU of {mtu} bytes"))
    } else {
        Ok(())
    }
}

/// Unicast addresses that could belong to a host behind a tunnel.
pub(super) fn addresses(addresses: &[IpAddr]) -> Result<(), Refusal> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return invalid(format!("{} addresses", addresses.len()));
    }
    match addresses.iter().find(|a| !is_host(**a)) {
        Some(address) => invalid(format!("the address {address}")),
        None => Ok(()),
    }
}

fn is_host(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(a) => {
            // 240.0.0.0/4 is reserved, which is why tunnels have their addresses from it.
            a.is_link_local() || a.is_broadcast() || a.octets()[0] == 0
        }
        IpAddr::V6(a) => a.is_unicast_link_local() || a.to_ipv4_mapped().is_some(),
    };
    !(local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

/// Prefixes that a cluster can have: nothing that stands for "everything", unless that is wished, and
/// nothing that belongs to the machine or the link.
pub(super) fn prefixes(prefixes: &[IpNet], claim: Claim) -> Result<(), Refusal> {
    if prefixes.is_empty() || prefixes.len() > MAX_ROUTES {
        return invalid(format!("{} prefixes", prefixes.len()));
    }
    for prefix in prefixes {
        let (first, last) = (prefix.network(), prefix.broadcast());
        let is_wished = claim == Claim::Everything || !is_vast(prefix);
        if !is_wished || !is_host(first) || !is_host(last) {
            return invalid(format!("a route for {prefix}"));
        }
    }
    Ok(())
}

/// Wishes that can be looked into: what the cluster says of itself is held to what a cluster can have, what
/// the user says is the user's.
pub(super) fn wishes(wishes: &Wishes) -> Result<(), Refusal> {
    let count = wishes.wanted.len() + wishes.excluded.len();
    if wishes.wanted.is_empty() || count > MAX_ROUTES {
        return invalid(format!("{count} prefixes"));
    }
    for wanted in &wishes.wanted {
        let is_everything = wanted.kind == Kind::Included && is_vast(&wanted.net);
        if !is_everything {
            prefixes(&[wanted.net], Claim::Free)?;
        }
    }
    wishes
        .pool
        .check()
        .or_else(|error| invalid(error.to_string()))
}

/// The TUN's own addresses only: whoever asks can't point the machine's names to anybody else.
pub(super) fn nameservers(nameservers: &[IpAddr], own: &[IpAddr]) -> Result<(), Refusal> {
    if nameservers.is_empty() {
        return invalid("no nameserver");
    }
    match nameservers.iter().find(|n| !own.contains(n)) {
        Some(other) => invalid(format!("the nameserver {other}, which is not the tunnel's")),
        None => Ok(()),
    }
}

/// Domains that fit on one line of resolv.conf and can't start another.
pub(super) fn search(domains: &[String]) -> Result<(), Refusal> {
    if domains.len() > MAX_SEARCH {
        return invalid(format!("{} search domains", domains.len()));
    }
    plain(domains)
}

/// Domains that can be a link's.
pub(super) fn domains(domains: &[String]) -> Result<(), Refusal> {
    if domains.len() > MAX_DOMAINS {
        return invalid(format!("{} domains", domains.len()));
    }
    plain(domains)
}

fn plain(domains: &[String]) -> Result<(), Refusal> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let is_bad = |d: &&String| d.is_empty() || d.len() > 253 || !d.bytes().all(plain);
    match domains.iter().find(is_bad) {
        Some(domain) => invalid(format!("the domain {domain:?}")),
        None => Ok(()),
    }
}

/// The algorithms that pmz knows what to do with.
pub(super) fn congestion(algorithm: &str) -> Result<(), Refusal> {
    if matches!(algorithm, "bbr" | "cubic") {
        Ok(())
    } else {
        invalid(format!("the congestion control {algorithm:?}"))
    }
}

#[cfg(test)]
mod tests {
    use pmz_net::route::Wanted;

    use super::*;

    #[test]
    fn only_pmz_devices_can_be_named() {
        for good in ["pmz0", "pmz%d", "pmz9999"] {
            assert!(device_name(good).is_ok(), "{good}");
        }
        for bad in [
            "eth0", "pmz", "pmz%s", "pmz0%d", "pmz/0", "pmz12345", "lo", "pmz0\n", "",
        ] {
            assert!(device_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_mtu_below_what_ipv6_needs_is_refused() {
        assert!(mtu(1279).is_err());
        assert!(mtu(1280).is_ok());
        assert!(mtu(u16::MAX).is_ok());
    }

    #[test]
    fn addresses_of_the_machine_and_the_link_are_refused() {
        let check = |s: &str| addresses(&[s.parse().unwrap()]);
        for good in ["240.64.0.2", "100.64.0.2", "10.1.2.3", "fd00:70:6d7a::2"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.0.1",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for bad in ["::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(addresses(&[]).is_err());
        assert!(addresses(&["10.0.0.1".parse().unwrap(); 5]).is_err());
    }

    #[test]
    fn routes_for_everything_or_for_the_machine_itself_are_refused() {
        let check = |s: &str| prefixes(&[s.parse().unwrap()], Claim::Overlapping);
        for good in [
            "10.96.0.0/16",
            "10.0.0.0/8",
            "100.64.0.1/32",
            "fd00::/108",
            "2001:db8::/32",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "0.0.0.0/0",
            "128.0.0.0/1",
            "0.0.0.0/8",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "224.0.0.0/8",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for bad in [
            "::/0",
            "2000::/3",
            "fe80::/64",
            "ff00::/16",
            "::1/128",
            "::ffff:0.0.0.0/96",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(prefixes(&[], Claim::Free).is_err());
        assert!(
            prefixes(
                &vec!["10.0.0.0/8".parse().unwrap(); MAX_ROUTES + 1],
                Claim::Free
            )
            .is_err()
        );
    }

    #[test]
    fn wide_routes_that_are_wished_are_let_through_but_none_of_the_machine_itself() {
        let check = |s: &str| prefixes(&[s.parse().unwrap()], Claim::Everything);
        for good in ["64.0.0.0/3", "2000::/3"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["0.0.0.0/0", "127.0.0.0/8", "224.0.0.0/4", "fe80::/64"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_cluster_can_not_have_is_only_the_users_to_wish() {
        let check = |net: &str, kind| {
            let net = net.parse().unwrap();
            wishes(&Wishes {
                wanted: vec![Wanted { net, kind }],
                ..Wishes::default()
            })
        };
        for kind in [Kind::Services, Kind::Pods] {
            assert!(check("10.96.0.0/16", kind).is_ok());
            for bad in ["0.0.0.0/0", "128.0.0.0/1", "127.0.0.0/8", "::/0"] {
                assert!(check(bad, kind).is_err(), "{bad}");
            }
        }
        assert!(check("0.0.0.0/0", Kind::Included).is_ok());
        assert!(check("127.0.0.0/8", Kind::Included).is_err());
        assert!(wishes(&Wishes::default()).is_err());
    }

    #[test]
    fn too_many_wishes_and_pools_of_no_use_are_refused() {
        let good = Wishes {
            wanted: vec![Wanted {
                net: "10.96.0.0/16".parse().unwrap(),
                kind: Kind::Services,
            }],
            ..Wishes::default()
        };
        let mut many = good.clone();
        many.excluded = vec!["10.96.1.0/24".parse().unwrap(); MAX_ROUTES];
        assert!(wishes(&many).is_err());
        let mut pool = good;
        pool.pool.v4 = Some("10.0.0.0/31".parse().unwrap());
        assert!(wishes(&pool).is_err());
    }

    #[test]
    fn names_can_only_be_led_to_the_tunnel() {
        let own = ["100.64.0.2".parse().unwrap()];
        assert!(nameservers(&own, &own).is_ok());
        assert!(nameservers(&["8.8.8.8".parse().unwrap()], &own).is_err());
        assert!(nameservers(&[], &own).is_err());
    }

    #[test]
    fn a_search_domain_can_not_smuggle_a_line_in() {
        assert!(search(&["svc.cluster.local".to_owned()]).is_ok());
        for bad in ["a\nnameserver 8.8.8.8", "a b", "", "x;y", "ä.example"] {
            assert!(search(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
        assert!(search(&vec!["a".to_owned(); MAX_SEARCH + 1]).is_err());
        assert!(domains(&vec!["a".to_owned(); MAX_DOMAINS]).is_ok());
        assert!(domains(&vec!["a".to_owned(); MAX_DOMAINS + 1]).is_err());
        assert!(domains(&["a b".to_owned()]).is_err());
        assert!(search(&["a".repeat(254)]).is_err());
    }
}
