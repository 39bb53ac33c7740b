//! Names taken apart and put together.

use std::net::IpAddr;

use hickory_proto::rr::Name;
use ipnet::IpNet;

/// The labels of `name` before those of `zone`, from the left, in lower case. A label that is no text
/// becomes one that matches nothing in Kubernetes.
pub(super) fn labels(name: &Name, zone: &Name) -> Vec<String> {
    let count = usize::from(name.num_labels()).saturating_sub(usize::from(zone.num_labels()));
    name.iter()
        .take(count)
        .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
        .collect()
}

/// The name of these labels below a zone; `None` where it would be no valid name.
pub(super) fn below(labels: &[&str], zone: &Name) -> Option<Name> {
    let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
    name.append_domain(zone).ok()
}

/// An address as one label: `10-244-0-5`, `fd00-10-244--5`. No label ends in a hyphen, so a last zero is
/// written out (`fd00::` is `fd00--0`), as CoreDNS does it.
pub(super) fn dashed(address: IpAddr) -> String {
    let mut label = address.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    label
}

/// The address that a label stands for, in any way of writing it.
pub(super) fn undashed(label: &str) -> Option<IpAddr> {
    let dotted = label.replace('-', ".").parse().map(IpAddr::V4);
    dotted
        .or_else(|_| label.replace('-', ":").parse().map(IpAddr::V6))
        .ok()
}

/// The ancestor of a reverse name that stands for a prefix of this length, rounded up to whole labels.
pub(super) fn reverse_ancestor(name: &Name, prefix_len: u8) -> Name {
    let is_v4 = name
        .iter()
        .rev()
        .nth(1)
        .is_some_and(|label| label.eq_ignore_ascii_case(b"in-addr"));
    let per_label = if is_v4 { 8 } else { 4 };
    let count = usize::from(prefix_len.div_ceil(per_label)) + 2;
    name.trim_to(count.min(usize::from(name.num_labels())))
}

/// The zones that hold the reverse names of a prefix, and no others: several where it does not end with a label.
pub fn reverse_zones(prefix: &IpNet) -> Vec<Name> {
    let per_label = if prefix.addr().is_ipv4() { 8 } else { 4 };
    let whole = prefix.prefix_len().div_ceil(per_label) * per_label;
    let Ok(parts) = prefix.subnets(whole) else {
        return Vec::new();
    };
    parts
        .map(|part| reverse_ancestor(&Name::from(part.network()), whole))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_a_reverse_zone_for_each_of_its_last_labels() {
        let zones = |prefix: &str| {
            let zones = reverse_zones(&prefix.parse().unwrap());
            zones.iter().map(Name::to_ascii).collect::<Vec<_>>()
        };
        assert_eq!(zones("10.96.0.0/16"), ["96.10.in-addr.arpa."]);
        assert_eq!(zones("10.96.7.9/32"), ["9.7.96.10.in-addr.arpa."]);
        let twelve = zones("10.96.0.0/12");
        assert_eq!(twelve.len(), 16);
        assert_eq!(twelve[15], "111.10.in-addr.arpa.");
        assert_eq!(zones("fd00::/8"), ["d.f.ip6.arpa."]);
        assert_eq!(zones("fd00::/7").len(), 2);
        assert_eq!(zones("0.0.0.0/0"), ["in-addr.arpa."]);
    }

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn labels_stand_without_their_zone_and_in_lower_case() {
        let zone = name("svc.cluster.local.");
        assert_eq!(
            labels(&name("Echo.DEFAULT.svc.cluster.local."), &zone),
            ["echo", "default"]
        );
        assert!(labels(&zone, &zone).is_empty());
    }

    #[test]
    fn addresses_and_labels_are_the_same_both_ways() {
        for (address, label) in [
            ("10.244.0.5", "10-244-0-5"),
            ("fd00:10:244::5", "fd00-10-244--5"),
            ("fd00::", "fd00--0"),
            ("::1", "--1"),
        ] {
            assert_eq!(dashed(address.parse().unwrap()), label);
            assert_eq!(undashed(label), Some(address.parse().unwrap()));
        }
        for label in ["10-244-0", "echo", "10-244-0-256", "", "-", "10.244.0.5.1"] {
            assert_eq!(undashed(label), None, "{label}");
        }
    }

    #[test]
    fn a_reverse_zone_is_cut_at_a_whole_label() {
        let address = name("7.0.96.10.in-addr.arpa.");
        assert_eq!(reverse_ancestor(&address, 16), name("96.10.in-addr.arpa."));
        assert_eq!(reverse_ancestor(&address, 12), name("96.10.in-addr.arpa."));
        assert_eq!(reverse_ancestor(&address, 32), address);
        let six = name("6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.");
        assert_eq!(reverse_ancestor(&six, 16), name("0.0.d.f.ip6.arpa."));
    }
}
