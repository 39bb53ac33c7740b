//! Services for tests.
#![allow(
    clippy::unwrap_used,
    reason = "tests: a failed unwrap is a failed test"
)]

use super::model::{Endpoint, Port, Protocol, Service, ServiceKey, ServiceKind};

pub(crate) fn key(namespace: &str, name: &str) -> ServiceKey {
    ServiceKey {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

pub(crate) fn port(name: &str, protocol: Protocol, port: u16) -> Port {
    Port {
        name: (!name.is_empty()).then(|| name.to_owned()),
        protocol,
        port,
    }
}

/// A ready endpoint with no name of its own, listening on `http` 8080/TCP.
pub(crate) fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        address: address.parse().unwrap(),
        hostname: None,
        pod: Some(format!("pod-{}", address.replace(['.', ':'], "-"))),
        ready: true,
        ports: vec![port("http", Protocol::Tcp, 8080)],
    }
}

/// A service with `http` 80/TCP.
pub(crate) fn cluster_ip(
    namespace: &str,
    name: &str,
    addresses: &[&str],
    endpoints: &[&str],
) -> Service {
    Service {
        key: key(namespace, name),
        kind: ServiceKind::ClusterIp {
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        },
        ports: vec![port("http", Protocol::Tcp, 80)],
        publish_not_ready: false,
        endpoints: endpoints.iter().map(|address| endpoint(address)).collect(),
    }
}

/// A headless service with `pg` 5432/TCP; endpoints by hostname (empty for none) and address.
pub(crate) fn headless(namespace: &str, name: &str, endpoints: &[(&str, &str)]) -> Service {
    let endpoints = endpoints.iter().map(|(hostname, address)| Endpoint {
        hostname: (!hostname.is_empty()).then(|| (*hostname).to_owned()),
        ports: vec![port("pg", Protocol::Tcp, 5432)],
        ..endpoint(address)
    });
    Service {
        key: key(namespace, name),
        kind: ServiceKind::Headless,
        ports: vec![port("pg", Protocol::Tcp, 5432)],
        publish_not_ready: false,
        endpoints: endpoints.collect(),
    }
}

pub(crate) fn external(namespace: &str, name: &str, target: &str) -> Service {
    Service {
        key: key(namespace, name),
        kind: ServiceKind::ExternalName {
            target: target.to_owned(),
        },
        ports: vec![],
        publish_not_ready: false,
        endpoints: vec![],
    }
}
