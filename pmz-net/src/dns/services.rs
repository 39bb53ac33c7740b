//! Names below `svc`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::found::{Found, address_records};
use super::name::{below, dashed};
use super::zone::{TTL, Zone};
use crate::catalog::mirror::Mirror;
use crate::catalog::{Endpoint, Port, Protocol, Service, ServiceKind};

/// What the labels before `svc` lead to.
pub(super) fn look_up(
    mirror: &Mirror,
    zone: &Zone,
    labels: &[String],
    name: &Name,
    record_type: RecordType,
) -> Found {
    let [front @ .., service_name, namespace] = labels else {
        return match labels {
            [namespace] if mirror.has_namespace(namespace) => Found::NoData,
            _ => Found::NxDomain,
        };
    };
    let Some(service) = mirror.service(namespace, service_name) else {
        return Found::NxDomain;
    };
    match front {
        [] => self::service(service, zone, name, record_type),
        [label] => match label.strip_prefix('_').and_then(protocol) {
            // `_tcp`: nothing itself, but where there is something below, it exists (RFC 8020).
            Some(protocol) if has_port(service, |port| is(port, protocol, None)) => Found::NoData,
            Some(_) => Found::NxDomain,
            None => endpoint(service, label, zone, name, record_type),
        },
        [port, transport] => {
            let port = port.strip_prefix('_');
            let protocol = transport.strip_prefix('_').and_then(protocol);
            match (port, protocol) {
                (Some(port), Some(protocol)) => {
                    named_port(service, port, protocol, zone, name, record_type)
                }
                _ => Found::NxDomain,
            }
        }
        _ => Found::NxDomain,
    }
}

/// The service itself, by whatever name it was asked for.
pub(super) fn service(
    service: &Service,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Found {
    if let ServiceKind::ExternalName { target } = &service.kind {
        let Ok(mut target) = Name::from_ascii(target) else {
            return Found::Broken;
        };
        target.set_fqdn(true);
        return Found::Alias(target);
    }
    // The specification: a headless service without ready endpoints has no name.
    if service.kind == ServiceKind::Headless
        && !service.endpoints.iter().any(|it| shows(service, it))
    {
        return Found::NxDomain;
    }
    match record_type {
        RecordType::SRV => servers(service, zone, name, |_| true),
        _ => {
            let addresses = addresses(service, |_| true);
            Found::records(address_records(name, record_type, addresses))
        }
    }
}

/// The name that one endpoint has below its service.
pub(super) fn endpoint_label(endpoint: &Endpoint) -> String {
    match &endpoint.hostname {
        Some(hostname) => hostname.to_ascii_lowercase(),
        None => dashed(endpoint.address),
    }
}

/// Whether names lead to the endpoint.
pub(super) fn shows(service: &Service, endpoint: &Endpoint) -> bool {
    endpoint.ready || service.publish_not_ready
}

/// The full name of a service, or of what is below it.
pub(super) fn full_name(front: &[&str], service: &Service, zone: &Zone) -> Option<Name> {
    let mut labels = front.to_vec();
    labels.extend([service.key.name.as_str(), service.key.namespace.as_str()]);
    below(&labels, &zone.services)
}

fn endpoint(
    service: &Service,
    label: &str,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Found {
    let endpoints: Vec<_> = service
        .endpoints
        .iter()
        .filter(|it| shows(service, it) && endpoint_label(it) == label)
        .collect();
    if endpoints.is_empty() {
        return Found::NxDomain;
    }
    if record_type == RecordType::SRV {
        return endpoint_servers(service, &endpoints, zone, name, |_| true);
    }
    let addresses = endpoints.iter().map(|endpoint| endpoint.address);
    Found::records(address_records(name, record_type, addresses))
}

/// `_port._protocol` of a service. Asked for addresses it gives those that have the port, as CoreDNS does.
pub(super) fn named_port(
    service: &Service,
    port_name: &str,
    protocol: Protocol,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Found {
    let wanted = |port: &Port| is(port, protocol, Some(port_name));
    if !has_port(service, wanted) {
        return Found::NxDomain;
    }
    if record_type == RecordType::SRV {
        return servers(service, zone, name, wanted);
    }
    let has_it = |endpoint: &Endpoint| endpoint.ports.iter().any(wanted);
    let addresses = addresses(service, has_it);
    Found::records(address_records(name, record_type, addresses))
}

/// Whether a service has such a port: itself, or where it has no address of its own, by an endpoint to which names lead.
fn has_port(service: &Service, wanted: impl Fn(&Port) -> bool) -> bool {
    match &service.kind {
        ServiceKind::ClusterIp { .. } => service.ports.iter().any(wanted),
        ServiceKind::Headless => {
            let mut endpoints = service.endpoints.iter().filter(|it| shows(service, it));
            endpoints.any(|endpoint| endpoint.ports.iter().any(&wanted))
        }
        ServiceKind::ExternalName { .. } => false,
    }
}

/// SRV records: of the service where it has an address of its own, else of each endpoint.
pub(super) fn servers(
    service: &Service,
    zone: &Zone,
    name: &Name,
    wanted: impl Fn(&Port) -> bool,
) -> Found {
    if service.kind == ServiceKind::Headless {
        let endpoints: Vec<_> = service
            .endpoints
            .iter()
            .filter(|it| shows(service, it))
            .collect();
        return endpoint_servers(service, &endpoints, zone, name, wanted);
    }
    let Some(target) = full_name(&[], service, zone) else {
        return Found::Broken;
    };
    let ports: BTreeSet<_> = service
        .ports
        .iter()
        .filter(|port| wanted(port))
        .map(|port| port.port)
        .collect();
    if ports.is_empty() {
        return Found::NoData;
    }
    let weight = weight(ports.len());
    let answers = ports
        .iter()
        .map(|port| srv(name, weight, *port, target.clone()))
        .collect();
    let additionals = both_families(&target, addresses(service, |_| true));
    Found::Records {
        answers,
        additionals,
    }
}

/// SRV records of endpoints, with the ports on which these listen themselves.
fn endpoint_servers(
    service: &Service,
    endpoints: &[&Endpoint],
    zone: &Zone,
    name: &Name,
    wanted: impl Fn(&Port) -> bool,
) -> Found {
    // An endpoint of both families stands here twice, under one name.
    let mut seen = BTreeSet::new();
    for endpoint in endpoints {
        let ports = endpoint.ports.iter().filter(|port| wanted(port));
        seen.extend(ports.map(|port| (endpoint_label(endpoint), port.port)));
    }
    let mut answers = Vec::new();
    for (label, port) in &seen {
        let Some(target) = full_name(&[label], service, zone) else {
            return Found::Broken;
        };
        answers.push(srv(name, weight(seen.len()), *port, target));
    }
    if answers.is_empty() {
        return Found::NoData;
    }
    let named = endpoints.iter().filter_map(|endpoint| {
        if !endpoint.ports.iter().any(&wanted) {
            return None;
        }
        let target = full_name(&[&endpoint_label(endpoint)], service, zone)?;
        Some(both_families(&target, [endpoint.address]))
    });
    Found::Records {
        answers,
        additionals: named.flatten().collect(),
    }
}

fn srv(name: &Name, weight: u16, port: u16, target: Name) -> Record {
    Record::from_rdata(
        name.clone(),
        TTL,
        RData::SRV(SRV::new(0, weight, port, target)),
    )
}

/// All servers alike, in hundred parts.
fn weight(servers: usize) -> u16 {
    u16::try_from(100 / servers.max(1)).unwrap_or(1).max(1)
}

fn both_families(name: &Name, addresses: impl IntoIterator<Item = IpAddr> + Clone) -> Vec<Record> {
    let mut records = address_records(name, RecordType::A, addresses.clone());
    records.extend(address_records(name, RecordType::AAAA, addresses));
    records
}

/// Its own addresses, or else those of its endpoints that are wanted.
fn addresses(
    service: &Service,
    wanted: impl Fn(&Endpoint) -> bool + Clone,
) -> impl Iterator<Item = IpAddr> + Clone {
    let (own, endpoints) = match &service.kind {
        ServiceKind::ClusterIp { addresses } => (addresses.as_slice(), &[][..]),
        ServiceKind::Headless => (&[][..], service.endpoints.as_slice()),
        ServiceKind::ExternalName { .. } => (&[][..], &[][..]),
    };
    let endpoints = endpoints
        .iter()
        .filter(move |it| shows(service, it) && wanted(it))
        .map(|it| it.address);
    own.iter().copied().chain(endpoints)
}

pub(super) fn protocol(label: &str) -> Option<Protocol> {
    match label {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Whether a port has a name, the one given if any, and this protocol.
pub(super) fn is(port: &Port, protocol: Protocol, name: Option<&str>) -> bool {
    let own = port.name.as_deref();
    port.protocol == protocol
        && own.is_some_and(|own| name.is_none_or(|name| own.eq_ignore_ascii_case(name)))
}
