//! What the eBPF program is to know of single addresses, out of the mirror and of the virtual addresses that are
//! handed out.

use std::collections::HashMap;
use std::net::IpAddr;

use pmz_net::catalog::{Service, ServiceKind, View};
use pmz_net::remap::{AddressMap, Used};
use pmz_net::steer::{Target, TargetChange};

/// By the address that this machine uses.
pub(super) type Targets = HashMap<IpAddr, Target>;

/// All that there is to know now.
pub(super) fn wanted(view: &View, map: &AddressMap) -> Targets {
    let handed_out = map.handed_out().map(|(real, address)| Target {
        address,
        real: Some(real),
        reject: false,
        service: false,
    });
    let mut wanted: Targets = handed_out.map(|target| (target.address, target)).collect();
    for service in view.mirror.services() {
        let ServiceKind::ClusterIp { addresses } = &service.kind else {
            continue;
        };
        for real in addresses {
            let (address, real) = match map.peek(*real) {
                Used::Itself => (*real, None),
                Used::Virtual(address) => (address, Some(*real)),
                // No name has led there yet.
                Used::None => continue,
            };
            let target = Target {
                address,
                real,
                reject: is_empty(service),
                service: true,
            };
            wanted.insert(address, target);
        }
    }
    wanted
}

/// Nobody is behind the service. Endpoints that are not ready do not make it empty: while all of them are ending,
/// Kubernetes still sends to those that serve.
fn is_empty(service: &Service) -> bool {
    service.endpoints.is_empty()
}

/// From what is known to what is wanted. What goes makes room before what comes.
pub(super) fn changes(known: &Targets, wanted: &Targets) -> Vec<TargetChange> {
    let gone = known
        .keys()
        .filter(|address| !wanted.contains_key(*address));
    let gone = gone.map(|address| TargetChange::Remove(*address));
    let new = wanted
        .values()
        .filter(|target| known.get(&target.address) != Some(*target));
    gone.chain(new.map(|target| TargetChange::Put(*target)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use pmz_net::catalog::{Endpoint, ServiceKey, SharedMirror, Snapshot};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn service(name: &str, addresses: &[&str], endpoints: &[(&str, bool)]) -> Service {
        let endpoints = endpoints.iter().map(|(address, ready)| Endpoint {
            address: ip(address),
            hostname: None,
            pod: None,
            ready: *ready,
            ports: Vec::new(),
        });
        Service {
            key: ServiceKey {
                namespace: "default".to_owned(),
                name: name.to_owned(),
            },
            kind: match addresses {
                [] => ServiceKind::Headless,
                some => ServiceKind::ClusterIp {
                    addresses: some.iter().map(|address| ip(address)).collect(),
                },
            },
            ports: Vec::new(),
            publish_not_ready: false,
            endpoints: endpoints.collect(),
        }
    }

    fn mirror(services: Vec<Service>) -> SharedMirror {
        let mirror = SharedMirror::new();
        let snapshot = Snapshot {
            version: 1,
            services,
        };
        mirror.apply_snapshot(snapshot).unwrap();
        mirror
    }

    fn target(address: &str, real: Option<&str>, reject: bool) -> Target {
        Target {
            address: ip(address),
            real: real.map(ip),
            reject,
            service: true,
        }
    }

    #[test]
    fn services_are_targets_and_those_without_endpoints_are_refused() {
        let mirror = mirror(vec![
            service("echo", &["10.96.0.1", "fd00::1"], &[("10.244.0.1", true)]),
            service("ending", &["10.96.0.2"], &[("10.244.0.2", false)]),
            service("empty", &["10.96.0.3"], &[]),
            service("headless", &[], &[("10.244.0.4", true)]),
        ]);
        let map = AddressMap::new(Vec::new(), &[]);
        let wanted = wanted(&mirror.read(), &map);
        assert_eq!(wanted.len(), 4);
        for (address, reject) in [
            ("10.96.0.1", false),
            ("fd00::1", false),
            ("10.96.0.2", false),
            ("10.96.0.3", true),
        ] {
            assert_eq!(wanted[&ip(address)], target(address, None, reject));
        }
    }

    #[test]
    fn where_addresses_collide_only_what_is_handed_out_is_a_target() {
        let mirror = mirror(vec![
            service("echo", &["10.96.0.1"], &[("10.244.0.1", true)]),
            service("unasked", &["10.96.0.2"], &[("10.244.0.1", true)]),
        ]);
        let collides = ["10.96.0.0/16", "10.244.0.0/16"].map(|net| net.parse().unwrap());
        let mut map = AddressMap::new(collides.to_vec(), &["240.128.0.0/16".parse().unwrap()]);
        for real in ["10.96.0.1", "10.244.0.1"] {
            map.assign(Instant::now(), ip(real), |_| false).unwrap();
        }
        let wanted = wanted(&mirror.read(), &map);
        assert_eq!(wanted.len(), 2);
        assert_eq!(
            wanted[&ip("240.128.0.1")],
            target("240.128.0.1", Some("10.96.0.1"), false)
        );
        let pod = Target {
            service: false,
            ..target("240.128.0.2", Some("10.244.0.1"), false)
        };
        assert_eq!(wanted[&ip("240.128.0.2")], pod);
    }

    #[test]
    fn changes_lead_from_one_to_the_other() {
        let all = |targets: &[Target]| -> Targets {
            let targets = targets.iter().map(|target| (target.address, *target));
            targets.collect()
        };
        let known = all(&[
            target("10.96.0.1", None, false),
            target("10.96.0.2", None, false),
            target("10.96.0.3", None, false),
        ]);
        let wanted = all(&[
            target("10.96.0.1", None, false),
            target("10.96.0.2", None, true),
            target("10.96.0.4", None, false),
        ]);
        let mut found = changes(&known, &wanted);
        assert_eq!(found.remove(0), TargetChange::Remove(ip("10.96.0.3")));
        found.sort_by_key(|change| match change {
            TargetChange::Put(target) => target.address,
            TargetChange::Remove(address) => *address,
        });
        assert_eq!(
            found,
            [
                TargetChange::Put(target("10.96.0.2", None, true)),
                TargetChange::Put(target("10.96.0.4", None, false)),
            ]
        );
        assert!(changes(&wanted, &wanted).is_empty());
    }
}
