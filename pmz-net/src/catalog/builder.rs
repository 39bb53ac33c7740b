//! The agent's side: services are put together from what Kubernetes tells about them piece by piece.
//!
//! A service and the slices of its endpoints come as separate objects, in any order, in any number. The
//! builder keeps both, notes which services a change touches, and [`Builder::commit`] makes one delta
//! of all that has really changed since the last.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use super::model::{Delta, Endpoint, Port, Service, ServiceKey, ServiceKind, Snapshot};

/// A service as its own object describes it: all but its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInput {
    /// Identity.
    pub key: ServiceKey,
    /// Where its names lead.
    pub kind: ServiceKind,
    /// Ports of the service itself.
    pub ports: Vec<Port>,
    /// As [`Service::publish_not_ready`].
    pub publish_not_ready: bool,
}

/// Identity of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceKey {
    /// Kubernetes namespace, that of its service too.
    pub namespace: String,
    /// Name of the slice object.
    pub name: String,
}

/// Some of the endpoints of one service, all of one family, all listening on the same ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceInput {
    /// Identity.
    pub key: SliceKey,
    /// Name of the service that it belongs to.
    pub service: String,
    /// Ports of all its endpoints.
    pub ports: Vec<Port>,
    /// The endpoints.
    pub endpoints: Vec<EndpointInput>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointInput {
    /// Its addresses; all reach the same thing.
    pub addresses: Vec<IpAddr>,
    /// As [`Endpoint::hostname`].
    pub hostname: Option<String>,
    /// As [`Endpoint::pod`].
    pub pod: Option<String>,
    /// As [`Endpoint::ready`].
    pub ready: bool,
}

/// Services and slices as they are now, and the catalog as it was last told.
#[derive(Debug, Default)]
pub struct Builder {
    version: u64,
    inputs: HashMap<ServiceKey, ServiceInput>,
    slices: HashMap<SliceKey, SliceInput>,
    by_service: HashMap<ServiceKey, BTreeSet<SliceKey>>,
    touched: BTreeSet<ServiceKey>,
    services: BTreeMap<ServiceKey, Service>,
}

impl Builder {
    /// A new or changed service.
    pub fn upsert_service(&mut self, service: ServiceInput) {
        if self.inputs.get(&service.key) == Some(&service) {
            return;
        }
        self.touched.insert(service.key.clone());
        self.inputs.insert(service.key.clone(), service);
    }

    /// A service is gone. Its slices stay until they are deleted themselves, and show no more.
    pub fn delete_service(&mut self, key: &ServiceKey) {
        if self.inputs.remove(key).is_some() {
            self.touched.insert(key.clone());
        }
    }

    /// Deletes all services but those in `seen`: the end of a new list.
    pub fn retain_services(&mut self, seen: &BTreeSet<ServiceKey>) {
        let gone: Vec<_> = self
            .inputs
            .keys()
            .filter(|key| !seen.contains(*key))
            .cloned()
            .collect();
        for key in &gone {
            self.delete_service(key);
        }
    }

    /// A new or changed slice, also one that moved to another service.
    pub fn upsert_slice(&mut self, slice: SliceInput) {
        if self.slices.get(&slice.key) == Some(&slice) {
            return;
        }
        self.delete_slice(&slice.key);
        let service = owner(&slice);
        self.touched.insert(service.clone());
        self.by_service
            .entry(service)
            .or_default()
            .insert(slice.key.clone());
        self.slices.insert(slice.key.clone(), slice);
    }

    /// A slice is gone.
    pub fn delete_slice(&mut self, key: &SliceKey) {
        let Some(slice) = self.slices.remove(key) else {
            return;
        };
        let service = owner(&slice);
        if let Some(slices) = self.by_service.get_mut(&service) {
            slices.remove(key);
            if slices.is_empty() {
                self.by_service.remove(&service);
            }
        }
        self.touched.insert(service);
    }

    /// Deletes all slices but those in `seen`: the end of a new list.
    pub fn retain_slices(&mut self, seen: &BTreeSet<SliceKey>) {
        let gone: Vec<_> = self
            .slices
            .keys()
            .filter(|key| !seen.contains(*key))
            .cloned()
            .collect();
        for key in &gone {
            self.delete_slice(key);
        }
    }

    /// Makes one delta of what has changed since the last call; `None` where nothing has.
    pub fn commit(&mut self) -> Option<Delta> {
        let mut upserted = Vec::new();
        let mut removed = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            match (self.assemble(&key), self.services.entry(key)) {
                (Some(service), Entry::Occupied(old)) if *old.get() == service => {}
                (Some(service), entry) => {
                    upserted.push(service.clone());
                    entry.insert_entry(service);
                }
                (None, Entry::Occupied(old)) => removed.push(old.remove_entry().0),
                (None, Entry::Vacant(_)) => {}
            }
        }
        if upserted.is_empty() && removed.is_empty() {
            return None;
        }
        self.version += 1;
        Some(Delta {
            version: self.version,
            upserted,
            removed,
        })
    }

    /// The version that the last delta led to; 0 before the first.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Everything, as of the last commit.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            version: self.version,
            services: self.services.values().cloned().collect(),
        }
    }

    fn assemble(&self, key: &ServiceKey) -> Option<Service> {
        let input = self.inputs.get(key)?;
        let slices = self.by_service.get(key).into_iter().flatten();
        let endpoints = merge(slices.filter_map(|slice| self.slices.get(slice)));
        Some(Service {
            key: key.clone(),
            kind: input.kind.clone(),
            ports: input.ports.clone(),
            publish_not_ready: input.publish_not_ready,
            endpoints,
        })
    }
}

fn owner(slice: &SliceInput) -> ServiceKey {
    ServiceKey {
        namespace: slice.key.namespace.clone(),
        name: slice.service.clone(),
    }
}

/// The endpoints of several slices, each address once. While endpoints move from one slice to another
/// Kubernetes shows them in both; and pods whose named ports differ stand in slices of their own.
fn merge<'a>(slices: impl Iterator<Item = &'a SliceInput>) -> Vec<Endpoint> {
    let mut merged: BTreeMap<IpAddr, Endpoint> = BTreeMap::new();
    for slice in slices {
        for input in &slice.endpoints {
            for &address in &input.addresses {
                let endpoint = merged.entry(address).or_insert_with(|| Endpoint {
                    address,
                    hostname: None,
                    pod: None,
                    ready: false,
                    ports: Vec::new(),
                });
                endpoint.hostname = endpoint.hostname.take().or_else(|| input.hostname.clone());
                endpoint.pod = endpoint.pod.take().or_else(|| input.pod.clone());
                endpoint.ready |= input.ready;
                for port in &slice.ports {
                    if !endpoint.ports.contains(port) {
                        endpoint.ports.push(port.clone());
                    }
                }
            }
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::super::mirror::Mirror;
    use super::super::model::Protocol;
    use super::super::samples::{key, port};
    use super::*;

    fn service(name: &str) -> ServiceInput {
        ServiceInput {
            key: key("default", name),
            kind: ServiceKind::ClusterIp {
                addresses: vec!["10.96.0.7".parse().unwrap()],
            },
            ports: vec![port("http", Protocol::Tcp, 80)],
            publish_not_ready: false,
        }
    }

    fn slice_key(name: &str) -> SliceKey {
        SliceKey {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    fn slice(name: &str, service: &str, addresses: &[&str]) -> SliceInput {
        let endpoints = addresses.iter().map(|address| EndpointInput {
            addresses: vec![address.parse().unwrap()],
            hostname: None,
            pod: None,
            ready: true,
        });
        SliceInput {
            key: slice_key(name),
            service: service.to_owned(),
            ports: vec![port("http", Protocol::Tcp, 8080)],
            endpoints: endpoints.collect(),
        }
    }

    fn addresses(builder: &Builder, name: &str) -> Vec<String> {
        let service = &builder.services[&key("default", name)];
        service
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.to_string())
            .collect()
    }

    #[test]
    fn slices_of_both_families_are_merged_whatever_comes_first() {
        let mut builder = Builder::default();
        builder.upsert_slice(slice("echo-b", "echo", &["fd00::5", "fd00::6"]));
        assert_eq!(builder.commit(), None, "a slice alone is no service");
        builder.upsert_service(service("echo"));
        builder.upsert_slice(slice("echo-a", "echo", &["10.244.0.6", "10.244.0.5"]));
        let delta = builder.commit().unwrap();
        assert_eq!((delta.version, delta.upserted.len()), (1, 1));
        assert_eq!(
            addresses(&builder, "echo"),
            ["10.244.0.5", "10.244.0.6", "fd00::5", "fd00::6"]
        );
    }

    #[test]
    fn an_address_in_two_slices_is_one_endpoint() {
        let mut builder = Builder::default();
        builder.upsert_service(service("echo"));
        let mut first = slice("echo-a", "echo", &["10.244.0.5"]);
        first.endpoints[0].ready = false;
        builder.upsert_slice(first);
        let mut second = slice("echo-b", "echo", &["10.244.0.5"]);
        second.ports.push(port("metrics", Protocol::Tcp, 9090));
        second.endpoints[0].hostname = Some("echo-0".to_owned());
        builder.upsert_slice(second);
        let endpoints = &builder.commit().unwrap().upserted[0].endpoints;
        let expected = Endpoint {
            address: "10.244.0.5".parse().unwrap(),
            hostname: Some("echo-0".to_owned()),
            pod: None,
            ready: true,
            ports: vec![
                port("http", Protocol::Tcp, 8080),
                port("metrics", Protocol::Tcp, 9090),
            ],
        };
        assert_eq!(endpoints, &[expected]);
    }

    #[test]
    fn what_changes_nothing_makes_no_delta() {
        let mut builder = Builder::default();
        builder.upsert_service(service("echo"));
        builder.upsert_slice(slice("echo-a", "echo", &["10.244.0.5"]));
        builder.commit().unwrap();
        builder.upsert_service(service("echo"));
        builder.upsert_slice(slice("echo-a", "echo", &["10.244.0.5"]));
        // Gone and back within one batch.
        builder.delete_slice(&slice_key("echo-a"));
        builder.upsert_slice(slice("echo-a", "echo", &["10.244.0.5"]));
        assert_eq!(builder.commit(), None);
        assert_eq!(builder.version(), 1);
    }

    #[test]
    fn a_slice_that_moves_leaves_its_old_service() {
        let mut builder = Builder::default();
        builder.upsert_service(service("echo"));
        builder.upsert_service(service("other"));
        builder.upsert_slice(slice("s", "echo", &["10.244.0.5"]));
        builder.commit().unwrap();
        builder.upsert_slice(slice("s", "other", &["10.244.0.5"]));
        assert_eq!(builder.commit().unwrap().upserted.len(), 2);
        assert!(addresses(&builder, "echo").is_empty());
        assert_eq!(addresses(&builder, "other"), ["10.244.0.5"]);
    }

    #[test]
    fn a_new_list_removes_what_it_does_not_hold() {
        let mut builder = Builder::default();
        for name in ["echo", "gone"] {
            builder.upsert_service(service(name));
            builder.upsert_slice(slice(name, name, &["10.244.0.5"]));
        }
        builder.commit().unwrap();
        builder.retain_services(&BTreeSet::from([key("default", "echo")]));
        builder.retain_slices(&BTreeSet::new());
        let delta = builder.commit().unwrap();
        assert_eq!(delta.removed, [key("default", "gone")]);
        assert_eq!(delta.upserted.len(), 1);
        assert!(addresses(&builder, "echo").is_empty());
        assert!(builder.by_service.is_empty());
    }

    #[test]
    fn a_mirror_that_follows_the_deltas_holds_what_a_snapshot_says() {
        let mut builder = Builder::default();
        let mut mirror = Mirror::default();
        mirror.apply_snapshot(builder.snapshot()).unwrap();
        let mut random = 1u32;
        for _ in 0..500 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let name = ["a", "b", "c", "d"][(random >> 8) as usize % 4];
            let address = format!("10.244.0.{}", (random >> 12) % 5);
            match random >> 29 {
                0 | 1 => builder.upsert_service(service(name)),
                2 => builder.delete_service(&key("default", name)),
                3 => builder.delete_slice(&slice_key(name)),
                _ => builder.upsert_slice(slice(name, name, &[&address])),
            }
            if random >> 16 & 1 == 0
                && let Some(delta) = builder.commit()
            {
                mirror.apply_delta(delta).unwrap();
                let mut held: Vec<_> = mirror.services().map(|held| (**held).clone()).collect();
                held.sort_by(|a, b| a.key.cmp(&b.key));
                assert_eq!(held, builder.snapshot().services);
            }
        }
        assert!(builder.version() > 50);
    }
}
