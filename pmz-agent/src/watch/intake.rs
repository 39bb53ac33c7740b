//! What the watches tell, brought together: the catalog, the agent's own Service, the networks seen.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::Event;
use pmz_net::catalog::builder::{Builder, ServiceInput, SliceInput, SliceKey};
use pmz_net::catalog::{ServiceKey, ServiceKind};

use super::candidates::candidates;
use super::prefixes::{Growth, Guess};
use super::{Prefixes, WatchConfig, convert};

/// One event of one of the watches.
#[derive(Debug)]
pub(super) enum Change {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
}

/// What lies between the watches and everything that is derived from them. No I/O.
#[derive(Debug)]
pub(super) struct Intake {
    config: WatchConfig,
    services: Listing<ServiceKey>,
    slices: Listing<SliceKey>,
    own: Option<Service>,
    service_guess: Guess,
    pod_guess: Guess,
    /// What the API says of the service networks.
    service_cidrs: Option<Vec<IpNet>>,
}

impl Intake {
    pub(super) fn new(config: WatchConfig) -> Self {
        let mut pod_guess = Guess::new(Growth::PODS, &config.host_addresses);
        for &address in &config.pod_addresses {
            pod_guess.inside(address);
        }
        Self {
            services: Listing::default(),
            slices: Listing::default(),
            own: None,
            service_guess: Guess::new(Growth::SERVICES, &config.host_addresses),
            pod_guess,
            service_cidrs: None,
            config,
        }
    }

    /// Takes one event.
    pub(super) fn apply(&mut self, change: Change, builder: &mut Builder) {
        match change {
            Change::Service(event) => self.apply_service(*event, builder),
            Change::Slice(event) => self.apply_slice(*event, builder),
        }
    }

    /// Whether both watches have told all there was at least once.
    pub(super) fn is_complete(&self) -> bool {
        self.services.complete && self.slices.complete
    }

    /// Where clients may try the tunnel's UDP port.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        candidates(self.own.as_ref(), &self.config)
    }

    /// The API was asked for the service networks.
    pub(super) fn set_service_cidrs(&mut self, cidrs: Option<Vec<IpNet>>) {
        self.service_cidrs = cidrs;
    }

    /// The cluster's networks: as the API says, else as configured, else as guessed.
    pub(super) fn prefixes(&self) -> Prefixes {
        let configured = |prefixes: &Vec<IpNet>| (!prefixes.is_empty()).then(|| prefixes.clone());
        let services = self
            .service_cidrs
            .clone()
            .or_else(|| configured(&self.config.service_prefixes))
            .unwrap_or_else(|| self.service_guess.prefixes().to_vec());
        let pods = configured(&self.config.pod_prefixes)
            .unwrap_or_else(|| self.pod_guess.prefixes().to_vec());
        Prefixes { services, pods }
    }

    fn apply_service(&mut self, event: Event<Service>, builder: &mut Builder) {
        match event {
            Event::Init => self.services.begin(),
            Event::InitDone => {
                let Some(seen) = self.services.finish() else {
                    return;
                };
                builder.retain_services(&seen);
                if !seen.iter().any(|key| self.is_own(key)) {
                    self.own = None;
                }
            }
            Event::InitApply(service) | Event::Apply(service) => {
                let Some(key) = convert::service_key(&service.metadata) else {
                    return;
                };
                self.services.saw(&key);
                match convert::service(&service) {
                    Some(input) => {
                        self.look_at_service(&input);
                        builder.upsert_service(input);
                    }
                    None => builder.delete_service(&key),
                }
                if self.is_own(&key) {
                    self.own = Some(service);
                }
            }
            Event::Delete(service) => {
                let Some(key) = convert::service_key(&service.metadata) else {
                    return;
                };
                builder.delete_service(&key);
                if self.is_own(&key) {
                    self.own = None;
                }
            }
        }
    }

    fn apply_slice(&mut self, event: Event<EndpointSlice>, builder: &mut Builder) {
        match event {
            Event::Init => self.slices.begin(),
            Event::InitDone => {
                if let Some(seen) = self.slices.finish() {
                    builder.retain_slices(&seen);
                }
            }
            Event::InitApply(slice) | Event::Apply(slice) => {
                let Some(key) = convert::slice_key(&slice.metadata) else {
                    return;
                };
                self.slices.saw(&key);
                match convert::slice(&slice) {
                    Some(input) => {
                        self.look_at_slice(&input);
                        builder.upsert_slice(input);
                    }
                    None => builder.delete_slice(&key),
                }
            }
            Event::Delete(slice) => {
                if let Some(key) = convert::slice_key(&slice.metadata) {
                    builder.delete_slice(&key);
                }
            }
        }
    }

    fn look_at_service(&mut self, service: &ServiceInput) {
        if let ServiceKind::ClusterIp { addresses } = &service.kind {
            for &address in addresses {
                self.service_guess.inside(address);
            }
        }
    }

    /// Only pods' addresses count: what else stands behind services may be anywhere. The API servers'
    /// own addresses are those of nodes.
    fn look_at_slice(&mut self, slice: &SliceInput) {
        let api_servers = slice.key.namespace == "default" && slice.service == "kubernetes";
        for (address, is_pod) in convert::slice_addresses(slice) {
            if api_servers {
                self.pod_guess.outside(address);
                self.service_guess.outside(address);
            } else if is_pod {
                self.pod_guess.inside(address);
            }
        }
    }

    fn is_own(&self, key: &ServiceKey) -> bool {
        key.namespace == self.config.namespace && key.name == self.config.service
    }
}

/// What a watch's list has held so far: what is not in it at its end has vanished unseen.
#[derive(Debug)]
struct Listing<K> {
    seen: Option<BTreeSet<K>>,
    complete: bool,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self {
            seen: None,
            complete: false,
        }
    }
}

impl<K: Ord + Clone> Listing<K> {
    /// A list begins; one that was cut off counts for nothing.
    fn begin(&mut self) {
        self.seen = Some(BTreeSet::new());
    }

    fn saw(&mut self, key: &K) {
        if let Some(seen) = &mut self.seen {
            seen.insert(key.clone());
        }
    }

    /// The list is whole.
    fn finish(&mut self) -> Option<BTreeSet<K>> {
        self.complete |= self.seen.is_some();
        self.seen.take()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Bench {
        intake: Intake,
        builder: Builder,
    }

    impl Bench {
        fn new() -> Self {
            let config = WatchConfig {
                namespace: "pmz".to_owned(),
                service: "pmz-agent".to_owned(),
                tunnel_port: 51820,
                host_addresses: vec!["10.99.1.11".parse().unwrap()],
                pod_addresses: vec!["10.244.0.9".parse().unwrap()],
                ..WatchConfig::default()
            };
            Self {
                intake: Intake::new(config),
                builder: Builder::default(),
            }
        }

        fn service(&mut self, event: Event<Service>) {
            self.intake
                .apply(Change::Service(Box::new(event)), &mut self.builder);
        }

        fn slice(&mut self, event: Event<EndpointSlice>) {
            self.intake
                .apply(Change::Slice(Box::new(event)), &mut self.builder);
        }

        fn names(&mut self) -> Vec<String> {
            self.builder.commit();
            self.builder
                .snapshot()
                .services
                .into_iter()
                .map(|service| service.key.name)
                .collect()
        }
    }

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [
                {"protocol": "UDP", "port": 51820, "targetPort": 51820, "nodePort": 31820},
            ]},
        }))
        .unwrap()
    }

    fn slice(name: &str, service: &str, pod: Option<&str>, address: &str) -> EndpointSlice {
        let target = pod.map(|pod| json!({"kind": "Pod", "name": pod}));
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": service},
            },
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "targetRef": target}],
        }))
        .unwrap()
    }

    #[test]
    fn the_catalog_is_complete_once_both_lists_have_ended() {
        let mut bench = Bench::new();
        bench.service(Event::Init);
        bench.service(Event::InitApply(service("default", "echo", "10.96.0.7")));
        bench.service(Event::InitDone);
        assert!(!bench.intake.is_complete());
        bench.slice(Event::Init);
        bench.slice(Event::InitApply(slice(
            "echo-1",
            "echo",
            Some("echo-0"),
            "10.244.0.5",
        )));
        assert!(!bench.intake.is_complete());
        bench.slice(Event::InitDone);
        assert!(bench.intake.is_complete());
        let delta = bench.builder.commit().unwrap();
        assert_eq!(delta.upserted[0].endpoints.len(), 1);
        // A new list does not make it incomplete again.
        bench.slice(Event::Init);
        assert!(bench.intake.is_complete());
    }

    #[test]
    fn a_new_list_removes_what_vanished_while_nobody_watched() {
        let mut bench = Bench::new();
        bench.service(Event::Init);
        for name in ["echo", "gone"] {
            bench.service(Event::InitApply(service("default", name, "10.96.0.7")));
        }
        bench.service(Event::InitDone);
        assert_eq!(bench.names(), ["echo", "gone"]);
        // Cut off in the middle, and begun again.
        bench.service(Event::Init);
        bench.service(Event::InitApply(service("default", "gone", "10.96.0.7")));
        bench.service(Event::Init);
        bench.service(Event::InitApply(service("default", "echo", "10.96.0.7")));
        assert_eq!(
            bench.names(),
            ["echo", "gone"],
            "nothing is removed before the list's end"
        );
        bench.service(Event::InitDone);
        assert_eq!(bench.names(), ["echo"]);
        bench.service(Event::Delete(service("default", "echo", "10.96.0.7")));
        assert!(bench.names().is_empty());
    }

    #[test]
    fn candidates_follow_the_agents_own_service() {
        let mut bench = Bench::new();
        let told = |bench: &Bench| -> Vec<String> {
            bench
                .intake
                .candidates()
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        bench.service(Event::Apply(service("other", "pmz-agent", "10.96.0.9")));
        assert_eq!(told(&bench), ["10.244.0.9:51820"]);
        bench.service(Event::Apply(service("pmz", "pmz-agent", "10.96.0.9")));
        assert_eq!(told(&bench), ["10.99.1.11:31820", "10.244.0.9:51820"]);
        bench.service(Event::Init);
        bench.service(Event::InitDone);
        assert_eq!(told(&bench), ["10.244.0.9:51820"]);
    }

    #[test]
    fn networks_are_as_the_api_says_or_as_configured_or_guessed() {
        let mut bench = Bench::new();
        bench.service(Event::Apply(service("default", "echo", "10.96.0.7")));
        bench.slice(Event::Apply(slice("a", "kubernetes", None, "10.240.0.4")));
        bench.slice(Event::Apply(slice(
            "b",
            "echo",
            Some("echo-0"),
            "10.245.0.5",
        )));
        bench.slice(Event::Apply(slice("c", "hand-made", None, "192.0.2.1")));
        let prefixes = |bench: &Bench| {
            let Prefixes { services, pods } = bench.intake.prefixes();
            let text = |prefixes: Vec<IpNet>| {
                prefixes
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (text(services), text(pods))
        };
        let guessed = ("10.96.0.0/16".to_owned(), "10.244.0.0/15".to_owned());
        assert_eq!(prefixes(&bench), guessed);
        bench.intake.config.service_prefixes = vec!["10.112.0.0/12".parse().unwrap()];
        bench.intake.config.pod_prefixes = vec!["10.0.0.0/9".parse().unwrap()];
        assert_eq!(
            prefixes(&bench),
            ("10.112.0.0/12".to_owned(), "10.0.0.0/9".to_owned())
        );
        bench
            .intake
            .set_service_cidrs(Some(vec!["10.96.0.0/12".parse().unwrap()]));
        assert_eq!(prefixes(&bench).0, "10.96.0.0/12");
    }
}
