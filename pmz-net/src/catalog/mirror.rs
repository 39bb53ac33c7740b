//! The client's copy of the catalog, with the look-ups that names need.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::model::{Delta, Service, ServiceKey, ServiceKind, Snapshot};

/// Services that a mirror holds at most: many times what a snapshot's frame can carry.
pub const MAX_SERVICES: usize = 100_000;
/// Endpoints that a mirror holds at most, over all services.
pub const MAX_ENDPOINTS: usize = 1_000_000;

/// Why an update could not be taken. The services are as they were before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Deltas are missing, or there was no snapshot yet: only a snapshot helps.
    #[error("the catalog here is at version {held}, the delta leads to {offered}")]
    Gap {
        /// Version of the mirror.
        held: u64,
        /// Version of the delta.
        offered: u64,
    },
    /// More than any cluster has.
    #[error(
        "the catalog is too large: more than {MAX_SERVICES} services or {MAX_ENDPOINTS} endpoints"
    )]
    TooLarge,
}

/// All services as of one version, found by name and by address.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    version: u64,
    filled: bool,
    namespaces: HashMap<String, HashMap<String, Arc<Service>>>,
    by_address: HashMap<IpAddr, Vec<Arc<Service>>>,
    services: usize,
    endpoints: usize,
}

impl Mirror {
    /// The version of the last update taken; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether there has been a snapshot, and no step after it was lost.
    pub fn is_filled(&self) -> bool {
        self.filled
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.services
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.services == 0
    }

    /// The service `name` in `namespace`, both in lower case, as Kubernetes has them.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.namespaces.get(namespace)?.get(name)
    }

    /// Whether the namespace has any service.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// The services that have this address as ClusterIP or as an endpoint's, in no particular order.
    pub fn by_address(&self, address: IpAddr) -> &[Arc<Service>] {
        self.by_address.get(&address).map_or(&[], Vec::as_slice)
    }

    /// All services, in no particular order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.namespaces.values().flat_map(HashMap::values)
    }

    /// Forgets everything and takes the snapshot.
    ///
    /// # Errors
    /// [`MirrorError::TooLarge`].
    pub fn apply_snapshot(&mut self, snapshot: Snapshot) -> Result<(), MirrorError> {
        let endpoints = snapshot
            .services
            .iter()
            .map(|service| service.endpoints.len())
            .sum();
        if snapshot.services.len() > MAX_SERVICES || MAX_ENDPOINTS < endpoints {
            return Err(MirrorError::TooLarge);
        }
        *self = Self {
            version: snapshot.version,
            filled: true,
            ..Self::default()
        };
        for service in snapshot.services {
            self.upsert(Arc::new(service));
        }
        Ok(())
    }

    /// Takes one step. A delta that the mirror is already past is ignored (false).
    ///
    /// # Errors
    /// [`MirrorError::Gap`] where steps before it are missing, [`MirrorError::TooLarge`].
    pub fn apply_delta(&mut self, delta: Delta) -> Result<bool, MirrorError> {
        if self.filled && delta.version <= self.version {
            return Ok(false);
        }
        let checked = self.check(&delta);
        // What was lost once stays lost: only a snapshot makes up for it.
        self.filled = checked.is_ok();
        checked?;
        for key in &delta.removed {
            self.remove(key);
        }
        for service in delta.upserted {
            self.upsert(Arc::new(service));
        }
        self.version = delta.version;
        Ok(true)
    }

    fn check(&self, delta: &Delta) -> Result<(), MirrorError> {
        if !self.filled || self.version.checked_add(1) != Some(delta.version) {
            return Err(MirrorError::Gap {
                held: self.version,
                offered: delta.version,
            });
        }
        let endpoints: usize = delta
            .upserted
            .iter()
            .map(|service| service.endpoints.len())
            .sum();
        if self.services + delta.upserted.len() > MAX_SERVICES
            || self.endpoints.saturating_add(endpoints) > MAX_ENDPOINTS
        {
            return Err(MirrorError::TooLarge);
        }
        Ok(())
    }

    fn upsert(&mut self, service: Arc<Service>) {
        self.remove(&service.key);
        for address in addresses(&service) {
            let entry = self.by_address.entry(address).or_default();
            // One service's addresses come one after the other: a repeated one is the last.
            if !entry.last().is_some_and(|last| Arc::ptr_eq(last, &service)) {
                entry.push(service.clone());
            }
        }
        self.services += 1;
        self.endpoints += service.endpoints.len();
        let ServiceKey { namespace, name } = service.key.clone();
        self.namespaces
            .entry(namespace)
            .or_default()
            .insert(name, service);
    }

    fn remove(&mut self, key: &ServiceKey) {
        let Some(services) = self.namespaces.get_mut(&key.namespace) else {
            return;
        };
        let Some(service) = services.remove(&key.name) else {
            return;
        };
        if services.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        self.services -= 1;
        self.endpoints -= service.endpoints.len();
        for address in addresses(&service) {
            let Some(entry) = self.by_address.get_mut(&address) else {
                continue;
            };
            entry.retain(|other| !Arc::ptr_eq(other, &service));
            if entry.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }
}

/// ClusterIPs and endpoints' addresses.
fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let cluster_ips = match &service.kind {
        ServiceKind::ClusterIp { addresses } => addresses.as_slice(),
        ServiceKind::Headless | ServiceKind::ExternalName { .. } => &[],
    };
    cluster_ips
        .iter()
        .copied()
        .chain(service.endpoints.iter().map(|endpoint| endpoint.address))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{cluster_ip, headless, key};
    use super::*;

    fn names(mirror: &Mirror, address: &str) -> Vec<String> {
        let mut names: Vec<_> = mirror
            .by_address(address.parse().unwrap())
            .iter()
            .map(|service| service.key.name.clone())
            .collect();
        names.sort();
        names
    }

    fn filled() -> Mirror {
        let mut mirror = Mirror::default();
        let services = vec![
            cluster_ip(
                "default",
                "echo",
                &["10.96.0.7"],
                &["10.244.0.5", "10.244.0.6"],
            ),
            headless("default", "db", &[("db-0", "10.244.0.5")]),
        ];
        mirror
            .apply_snapshot(Snapshot {
                version: 4,
                services,
            })
            .unwrap();
        mirror
    }

    #[test]
    fn services_are_found_by_name_and_by_every_address() {
        let mirror = filled();
        assert_eq!(mirror.len(), 2);
        assert_eq!(
            mirror.service("default", "echo").unwrap().key,
            key("default", "echo")
        );
        assert!(mirror.service("shop", "echo").is_none());
        assert!(mirror.has_namespace("default") && !mirror.has_namespace("shop"));
        assert_eq!(names(&mirror, "10.96.0.7"), ["echo"]);
        assert_eq!(names(&mirror, "10.244.0.5"), ["db", "echo"]);
        assert_eq!(names(&mirror, "10.244.0.6"), ["echo"]);
        assert!(names(&mirror, "10.244.0.9").is_empty());
    }

    #[test]
    fn a_delta_moves_addresses_and_removes_what_is_gone() {
        let mut mirror = filled();
        let delta = Delta {
            version: 5,
            upserted: vec![cluster_ip(
                "default",
                "echo",
                &["10.96.0.8"],
                &["10.244.0.6"],
            )],
            removed: vec![key("default", "db"), key("default", "never-there")],
        };
        assert_eq!(mirror.apply_delta(delta), Ok(true));
        assert_eq!((mirror.version(), mirror.len()), (5, 1));
        assert_eq!(names(&mirror, "10.96.0.8"), ["echo"]);
        for gone in ["10.96.0.7", "10.244.0.5"] {
            assert!(names(&mirror, gone).is_empty(), "{gone}");
        }
    }

    #[test]
    fn the_last_service_takes_its_namespace_along() {
        let mut mirror = filled();
        let removed = vec![key("default", "db"), key("default", "echo")];
        mirror
            .apply_delta(Delta {
                version: 5,
                upserted: vec![],
                removed,
            })
            .unwrap();
        assert!(mirror.is_empty() && !mirror.has_namespace("default"));
        assert!(mirror.by_address.is_empty());
        assert_eq!(mirror.endpoints, 0);
    }

    #[test]
    fn a_gap_is_refused_and_nothing_changes() {
        let step = |version| Delta {
            version,
            upserted: vec![],
            removed: vec![key("default", "db")],
        };
        let mut empty = Mirror::default();
        assert_eq!(
            empty.apply_delta(step(1)),
            Err(MirrorError::Gap {
                held: 0,
                offered: 1
            })
        );
        let mut mirror = filled();
        assert_eq!(
            mirror.apply_delta(step(6)),
            Err(MirrorError::Gap {
                held: 4,
                offered: 6
            })
        );
        assert_eq!((mirror.version(), mirror.len()), (4, 2));
        assert!(!mirror.is_filled() && mirror.apply_delta(step(5)).is_err());
        let mut mirror = filled();
        assert_eq!(mirror.apply_delta(step(4)), Ok(false));
        assert_eq!((mirror.len(), mirror.is_filled()), (2, true));
    }

    #[test]
    fn a_service_that_repeats_an_address_is_found_once() {
        let mut mirror = Mirror::default();
        let services = vec![cluster_ip(
            "a",
            "b",
            &["10.96.0.1"],
            &["10.244.0.1", "10.244.0.1"],
        )];
        mirror
            .apply_snapshot(Snapshot {
                version: 1,
                services,
            })
            .unwrap();
        assert_eq!(names(&mirror, "10.244.0.1"), ["b"]);
    }

    #[test]
    fn a_catalog_beyond_all_measure_is_refused() {
        let mut mirror = filled();
        let services = vec![headless("a", "b", &[]); MAX_SERVICES + 1];
        let snapshot = Snapshot {
            version: 9,
            services,
        };
        assert_eq!(mirror.apply_snapshot(snapshot), Err(MirrorError::TooLarge));
        assert_eq!(mirror.version(), 4);
    }
}
