//! The plain data of the catalog, as it travels in a session.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A service's identity: unique in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceKey {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
}

/// What names of a service lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ServiceKind {
    /// Reached by the cluster's virtual addresses, at most one of each family.
    ClusterIp {
        /// `spec.clusterIPs`.
        addresses: Vec<IpAddr>,
    },
    /// `clusterIP: None`: names lead to the endpoints themselves.
    Headless,
    /// A name outside; a CNAME in DNS.
    ExternalName {
        /// `spec.externalName`.
        target: String,
    },
}

/// A transport protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port, of a service or of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Port {
    /// Its name; unnamed ports (a service with one port) have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Transport.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// One address behind a service, out of its EndpointSlices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address of the pod (or whatever stands behind).
    pub address: IpAddr,
    /// `hostname` of the endpoint: gives it a name of its own below a headless service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Name of the pod, where the endpoint is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// `conditions.ready`; absent counts as ready.
    pub ready: bool,
    /// Ports as the pods listen on them (target ports).
    #[serde(default)]
    pub ports: Vec<Port>,
}

/// A service with the endpoints behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Identity.
    pub key: ServiceKey,
    /// Where its names lead.
    #[serde(flatten)]
    pub kind: ServiceKind,
    /// Ports of the service itself.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// `spec.publishNotReadyAddresses`: names lead to endpoints that aren't ready, too.
    #[serde(default)]
    pub publish_not_ready: bool,
    /// Sorted by address.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
}

/// Everything, as of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Counts up by one with each delta.
    pub version: u64,
    /// Sorted by key.
    pub services: Vec<Service>,
}

/// One step from `version - 1` to `version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The version that this leads to.
    pub version: u64,
    /// New or changed, whole.
    #[serde(default)]
    pub upserted: Vec<Service>,
    /// Gone.
    #[serde(default)]
    pub removed: Vec<ServiceKey>,
}
