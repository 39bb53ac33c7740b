//! What is in the playground's cluster, as plain data: namespaces, services, pods, and which pods stand
//! behind which service.
//!
//! Three readers live from it: the Kubernetes API's stand-in turns it into objects, the service table
//! into address translation, and the machines are made after it. Whoever changes it does so through
//! [`SharedModel::update`], which wakes them all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

pub use pmz_net::catalog::Protocol;

/// Labels of an object, or the labels that a selector asks for.
pub type Labels = BTreeMap<String, String>;

/// The whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Names of the Kubernetes namespaces, sorted.
    pub namespaces: Vec<String>,
    /// The only node.
    pub node: NodeSpec,
    /// Where ClusterIPs come from, IPv4 first.
    pub service_cidrs: Vec<IpNet>,
    /// Services, in the order in which they were made.
    pub services: Vec<ServiceSpec>,
    /// Pods, in the order in which they were made.
    pub pods: Vec<PodSpec>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Addresses on the lan (`InternalIP`), IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Where its pods' addresses come from, IPv4 first.
    pub pod_cidrs: Vec<IpNet>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Labels of the service itself.
    pub labels: Labels,
    /// Its type, with what belongs to it.
    pub kind: ServiceType,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Which pods are behind it: those of the same namespace that carry all of these labels. Empty:
    /// none.
    pub selector: Labels,
    /// Endpoints that aren't pods, always ready: the API server's address for `kubernetes`.
    pub external_endpoints: Vec<IpAddr>,
}

/// `spec.type`, where a headless service counts as one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Reached at addresses of the service network.
    ClusterIp {
        /// `spec.clusterIPs`, IPv4 first.
        cluster_ips: Vec<IpAddr>,
    },
    /// As `ClusterIp`, and at [`ServicePort::node_port`] of the node's addresses.
    NodePort {
        /// `spec.clusterIPs`, IPv4 first.
        cluster_ips: Vec<IpAddr>,
    },
    /// `clusterIP: None`.
    Headless,
    /// A name outside of the cluster.
    ExternalName {
        /// `spec.externalName`.
        target: String,
    },
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name.
    pub name: Option<String>,
    /// Transport.
    pub protocol: Protocol,
    /// Number at the service.
    pub port: u16,
    /// Number at the pods.
    pub target_port: u16,
    /// Number at the node, for [`ServiceType::NodePort`].
    pub node_port: Option<u16>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSpec {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// Name of its only container.
    pub container: String,
    /// `spec.serviceAccountName`.
    pub service_account: String,
    /// Addresses, IPv4 first (`status.podIPs`).
    pub addresses: Vec<IpAddr>,
    /// Ports that the container declares.
    pub ports: Vec<ContainerPort>,
    /// `spec.hostname`: gives it a name of its own below the headless service [`Self::subdomain`].
    pub hostname: Option<String>,
    /// `spec.subdomain`: name of its headless service.
    pub subdomain: Option<String>,
    /// `status.phase`.
    pub phase: PodPhase,
    /// Its `Ready` condition.
    pub ready: bool,
    /// Being deleted: it carries a `deletionTimestamp`.
    pub terminating: bool,
    /// Name of the node that it runs on.
    pub node: String,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<String>,
    /// Transport.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Accepted, not yet running.
    Pending,
    /// Running.
    Running,
    /// Ended with an error.
    Failed,
}

impl ServiceSpec {
    /// Its ClusterIPs; none for a headless service or a name outside.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.kind {
            ServiceType::ClusterIp { cluster_ips } | ServiceType::NodePort { cluster_ips } => {
                cluster_ips
            }
            ServiceType::Headless | ServiceType::ExternalName { .. } => &[],
        }
    }

    /// Whether its selector asks for this pod.
    pub fn selects(&self, pod: &PodSpec) -> bool {
        !self.selector.is_empty()
            && self.namespace == pod.namespace
            && self
                .selector
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value))
    }
}

impl PodSpec {
    /// Whether connections should be sent to it.
    pub fn serves(&self) -> bool {
        self.ready && !self.terminating && self.phase == PodPhase::Running
    }
}

impl Model {
    /// The service of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&ServiceSpec> {
        self.services
            .iter()
            .find(|s| s.namespace == namespace && s.name == name)
    }

    /// The pod of that name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&PodSpec> {
        self.pods
            .iter()
            .find(|p| p.namespace == namespace && p.name == name)
    }

    /// The pods that a service selects and that have addresses, whether they are ready or not (an
    /// EndpointSlice lists them all).
    pub fn endpoints<'a>(&'a self, service: &'a ServiceSpec) -> impl Iterator<Item = &'a PodSpec> {
        self.pods.iter().filter(|p| {
            service.selects(p) && !p.addresses.is_empty() && p.phase == PodPhase::Running
        })
    }
}

/// The model with those who watch it. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedModel {
    current: watch::Sender<Arc<Model>>,
}

impl SharedModel {
    /// Begins with `model`.
    pub fn new(model: Model) -> Self {
        Self {
            current: watch::Sender::new(Arc::new(model)),
        }
    }

    /// As it is now.
    pub fn get(&self) -> Arc<Model> {
        self.current.borrow().clone()
    }

    /// A receiver that wakes at each change. It may skip versions; it never misses the last.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Model>> {
        self.current.subscribe()
    }

    /// Changes the model and wakes those who watch it, unless nothing was changed.
    pub fn update(&self, change: impl FnOnce(&mut Model)) {
        self.current.send_if_modified(|current| {
            let mut next = Model::clone(current);
            change(&mut next);
            let changed = next != **current;
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
    }
}

/// A new `metadata.uid` (a random UUID, RFC 9562 version 4).
pub fn new_uid() -> String {
    let bits = (rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str, app: &str) -> PodSpec {
        PodSpec {
            namespace: namespace.into(),
            name: name.into(),
            uid: new_uid(),
            labels: Labels::from([("app".into(), app.into())]),
            container: app.into(),
            service_account: "default".into(),
            addresses: vec![IpAddr::from([10, 244, 0, 10])],
            ports: vec![],
            hostname: None,
            subdomain: None,
            phase: PodPhase::Running,
            ready: true,
            terminating: false,
            node: "node".into(),
        }
    }

    fn service(namespace: &str, app: Option<&str>) -> ServiceSpec {
        ServiceSpec {
            namespace: namespace.into(),
            name: "echo".into(),
            uid: new_uid(),
            labels: Labels::new(),
            kind: ServiceType::Headless,
            ports: vec![],
            selector: app
                .map(|a| ("app".to_owned(), a.to_owned()))
                .into_iter()
                .collect(),
            external_endpoints: vec![],
        }
    }

    fn model() -> Model {
        Model {
            namespaces: vec!["default".into(), "shop".into()],
            node: NodeSpec {
                name: "node".into(),
                uid: new_uid(),
                addresses: vec![],
                pod_cidrs: vec![],
            },
            service_cidrs: vec![],
            services: vec![],
            pods: vec![
                pod("default", "echo-0", "echo"),
                pod("shop", "echo-0", "echo"),
                pod("default", "db-0", "db"),
            ],
        }
    }

    #[test]
    fn a_service_has_the_pods_of_its_own_namespace_that_carry_its_labels() {
        let model = model();
        let echo = service("default", Some("echo"));
        let found: Vec<_> = model
            .endpoints(&echo)
            .map(|p| (p.namespace.as_str(), p.name.as_str()))
            .collect();
        assert_eq!(found, [("default", "echo-0")]);
    }

    #[test]
    fn a_service_without_a_selector_has_no_pods() {
        let model = model();
        assert_eq!(model.endpoints(&service("default", None)).count(), 0);
    }

    #[test]
    fn watchers_wake_at_a_change_and_only_then() {
        let shared = SharedModel::new(model());
        let mut watcher = shared.subscribe();
        shared.update(|_| {});
        assert!(!watcher.has_changed().unwrap());
        shared.update(|m| m.pods[0].ready = false);
        assert!(watcher.has_changed().unwrap());
        assert!(!watcher.borrow_and_update().pods[0].ready);
    }

    #[test]
    fn uids_are_random_uuids_of_version_4() {
        let uid = new_uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert!(
            matches!(uid.as_bytes()[19], b'8' | b'9' | b'a' | b'b'),
            "{uid}"
        );
        assert_ne!(uid, new_uid());
    }
}
