//! Kubernetes objects become the catalog's plain inputs.
//!
//! Objects come from the API server and are taken as they are: what can't be read (an address that is
//! none, a port out of range) is left out, the rest of the object counts.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pmz_net::catalog::builder::{EndpointInput, ServiceInput, SliceInput, SliceKey};
use pmz_net::catalog::{Port, Protocol, ServiceKey, ServiceKind};

/// The label that says to which service a slice belongs.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// What the DNS specification (2.1) has for `publishNotReadyAddresses`: the annotation from before that field.
const TOLERATE_UNREADY: &str = "service.alpha.kubernetes.io/tolerate-unready-endpoints";

/// Identity of a Service; `None` where the metadata has no name.
pub(super) fn service_key(metadata: &ObjectMeta) -> Option<ServiceKey> {
    Some(ServiceKey {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
    })
}

/// Identity of an EndpointSlice; `None` where the metadata has no name.
pub(super) fn slice_key(metadata: &ObjectMeta) -> Option<SliceKey> {
    Some(SliceKey {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
    })
}

/// A Service; `None` where names of it lead nowhere.
pub(super) fn service(service: &Service) -> Option<ServiceInput> {
    let key = service_key(&service.metadata)?;
    let spec = service.spec.as_ref()?;
    let cluster_ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let kind = if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec
            .external_name
            .as_deref()?
            .trim_end_matches('.')
            .to_ascii_lowercase();
        ServiceKind::ExternalName { target }
    } else if cluster_ip == "None" {
        ServiceKind::Headless
    } else {
        let all = spec.cluster_ips.as_deref().unwrap_or_default();
        let addresses = if all.is_empty() {
            cluster_ip.parse().into_iter().collect()
        } else {
            all.iter()
                .filter_map(|address| address.parse().ok())
                .collect()
        };
        ServiceKind::ClusterIp { addresses }
    };
    let annotations = service.metadata.annotations.as_ref();
    let tolerates_unready = annotations
        .and_then(|all| all.get(TOLERATE_UNREADY))
        .is_some_and(|value| value == "true");
    Some(ServiceInput {
        key,
        kind,
        ports: spec
            .ports
            .iter()
            .flatten()
            .filter_map(service_port)
            .collect(),
        publish_not_ready: tolerates_unready || spec.publish_not_ready_addresses.unwrap_or(false),
    })
}

/// An EndpointSlice; `None` where it belongs to no service or holds no addresses (type FQDN).
pub(super) fn slice(slice: &EndpointSlice) -> Option<SliceInput> {
    let key = slice_key(&slice.metadata)?;
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_LABEL)?.clone();
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
        return None;
    }
    Some(SliceInput {
        key,
        service,
        ports: slice
            .ports
            .iter()
            .flatten()
            .filter_map(endpoint_port)
            .collect(),
        endpoints: slice.endpoints.iter().map(endpoint).collect(),
    })
}

fn endpoint(endpoint: &Endpoint) -> EndpointInput {
    let target = endpoint.target_ref.as_ref();
    EndpointInput {
        addresses: endpoint
            .addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect(),
        hostname: endpoint
            .hostname
            .clone()
            .filter(|hostname| !hostname.is_empty()),
        pod: target
            .filter(|target| target.kind.as_deref() == Some("Pod"))
            .and_then(|target| target.name.clone()),
        ready: endpoint
            .conditions
            .as_ref()
            .and_then(|it| it.ready)
            .unwrap_or(true),
    }
}

fn service_port(port: &ServicePort) -> Option<Port> {
    Some(Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
    })
}

fn endpoint_port(port: &EndpointPort) -> Option<Port> {
    Some(Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.port?).ok()?,
    })
}

fn protocol(protocol: Option<&str>) -> Option<Protocol> {
    match protocol {
        None | Some("TCP" | "") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The endpoints' addresses in a slice, and whether each is a pod's.
pub(super) fn slice_addresses(slice: &SliceInput) -> impl Iterator<Item = (IpAddr, bool)> {
    slice.endpoints.iter().flat_map(|endpoint| {
        endpoint
            .addresses
            .iter()
            .map(|address| (*address, endpoint.pod.is_some()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service_of(spec: serde_json::Value) -> Option<ServiceInput> {
        let object = json!({"metadata": {"namespace": "shop", "name": "echo"}, "spec": spec});
        service(&serde_json::from_value(object).unwrap())
    }

    fn slice_of(object: serde_json::Value) -> Option<SliceInput> {
        slice(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_dual_stack_service_has_both_addresses_and_its_readable_ports() {
        let input = service_of(json!({
            "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7", "?"],
            "ports": [
                {"name": "http", "port": 80, "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "bad", "port": 70000},
                {"name": "new", "port": 1, "protocol": "QUIC"},
            ],
        }))
        .unwrap();
        let addresses = vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        assert_eq!(input.kind, ServiceKind::ClusterIp { addresses });
        let ports: Vec<_> = input
            .ports
            .iter()
            .map(|port| (port.protocol, port.port))
            .collect();
        assert_eq!(ports, [(Protocol::Tcp, 80), (Protocol::Udp, 53)]);
    }

    #[test]
    fn unready_endpoints_are_tolerated_by_the_field_and_by_the_annotation() {
        let tolerates = |annotation: &str, field: bool| {
            let object = json!({
                "metadata": {"namespace": "shop", "name": "db", "annotations": {TOLERATE_UNREADY: annotation}},
                "spec": {"clusterIP": "None", "publishNotReadyAddresses": field},
            });
            let input = service(&serde_json::from_value(object).unwrap()).unwrap();
            input.publish_not_ready
        };
        assert!(tolerates("true", false) && tolerates("false", true));
        assert!(!tolerates("false", false));
    }

    #[test]
    fn headless_and_external_services_are_told_from_the_rest() {
        let headless =
            service_of(json!({"clusterIP": "None", "publishNotReadyAddresses": true})).unwrap();
        assert_eq!(headless.kind, ServiceKind::Headless);
        assert!(headless.publish_not_ready);
        let external =
            service_of(json!({"type": "ExternalName", "externalName": "WWW.example.org."}))
                .unwrap();
        assert_eq!(
            external.kind,
            ServiceKind::ExternalName {
                target: "www.example.org".into()
            }
        );
        assert_eq!(service_of(json!({"type": "ExternalName"})), None);
        let old = service_of(json!({"clusterIP": "10.96.0.9"})).unwrap();
        let addresses = vec!["10.96.0.9".parse().unwrap()];
        assert_eq!(old.kind, ServiceKind::ClusterIp { addresses });
    }

    #[test]
    fn a_slice_keeps_hostnames_pods_and_readiness() {
        let input = slice_of(json!({
            "metadata": {"namespace": "default", "name": "db-x1", "labels": {SERVICE_LABEL: "db"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 5432, "protocol": "TCP"}, {"name": "all"}],
            "endpoints": [
                {"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true},
                 "targetRef": {"kind": "Pod", "name": "db-0"}},
                {"addresses": ["10.244.0.6"], "conditions": {"ready": false}},
                {"addresses": ["nonsense"], "targetRef": {"kind": "Node", "name": "n"}},
            ],
        }))
        .unwrap();
        assert_eq!((input.service.as_str(), input.ports.len()), ("db", 1));
        assert_eq!(input.ports[0].name, None);
        let [first, second, third] = input.endpoints.as_slice() else {
            panic!("three endpoints");
        };
        assert_eq!(
            (first.hostname.as_deref(), first.pod.as_deref()),
            (Some("db-0"), Some("db-0"))
        );
        assert!(first.ready && !second.ready);
        assert!(third.addresses.is_empty() && third.ready && third.pod.is_none());
    }

    #[test]
    fn slices_of_no_service_or_of_names_are_left_out() {
        let metadata = json!({"namespace": "default", "name": "x"});
        assert_eq!(
            slice_of(json!({"metadata": metadata, "addressType": "IPv4"})),
            None
        );
        let named = json!({
            "metadata": {"namespace": "default", "name": "x", "labels": {SERVICE_LABEL: "db"}},
            "addressType": "FQDN", "endpoints": [{"addresses": ["db.example.org"]}],
        });
        assert_eq!(slice_of(named), None);
    }
}
