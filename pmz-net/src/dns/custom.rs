//! Domains that the user leads to services.
//!
//! A domain has the records that the service's own name has: addresses as they are at that moment, or an external name
//! (CNAME) and what it leads to, and SRV for the service's ports. It never has anything of what DNS outside says of that
//! name: what the service has not is NODATA. So it is when the service is gone. The name exists, since the user says so;
//! NXDOMAIN would be kept for all that is below it, too (RFC 8020), SERVFAIL would have resolvers try again and elsewhere,
//! and asking outside would send the developer's requests to whoever has the name in earnest.

use std::sync::Arc;

use hickory_proto::rr::{Name, RecordType};

use super::found::Found;
use super::services;
use super::table::{CustomDomain, DomainTable};
use super::zone::Zone;
use crate::catalog::mirror::Mirror;
use crate::catalog::{Port, Service, ServiceKey, ServiceKind};

/// What a name has by the user's word, and the apex for negative answers; `None` where the user has said nothing of it.
pub(super) fn look_up(
    mirror: &Mirror,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Option<(Found, Name)> {
    let table = zone.domains.get();
    if table.domains().is_empty() || zone.domain.zone_of(name) {
        return None;
    }
    if let Some(custom) = table.exact(name) {
        let found = itself(custom, mirror, zone, name, record_type);
        return Some((found, custom.domain.name().clone()));
    }
    if let Some(found) = below(&table, mirror, zone, name, record_type) {
        return Some(found);
    }
    let custom = table.wildcard(name)?;
    let found = itself(custom, mirror, zone, name, record_type);
    Some((found, custom.domain.name().clone()))
}

fn service<'a>(custom: &CustomDomain, mirror: &'a Mirror) -> Option<&'a Service> {
    let ServiceKey { namespace, name } = &custom.service;
    mirror.service(namespace, name).map(Arc::as_ref)
}

fn itself(
    custom: &CustomDomain,
    mirror: &Mirror,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Found {
    let Some(service) = service(custom, mirror) else {
        return Found::NoData;
    };
    let found = match record_type {
        RecordType::SRV if !matches!(service.kind, ServiceKind::ExternalName { .. }) => {
            services::servers(service, zone, name, |port| wants(custom, service, port))
        }
        _ => services::service(service, zone, name, record_type),
    };
    exists(found)
}

/// `_port._protocol` before a domain (RFC 2782), and `_protocol`, which has nothing itself.
fn below(
    table: &DomainTable,
    mirror: &Mirror,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Option<(Found, Name)> {
    let labels: Vec<&[u8]> = name.iter().take(2).collect();
    let labels: Vec<&str> = labels
        .iter()
        .map_while(|label| std::str::from_utf8(label).ok()?.strip_prefix('_'))
        .collect();
    let count = name.iter().count();
    let base = |labels: usize| name.trim_to(count.saturating_sub(labels));
    let found_base = |base: &Name| table.exact(base).or_else(|| table.wildcard(base));
    let protocol = |label: &str| services::protocol(&label.to_ascii_lowercase());
    if let [port_name, label] = labels.as_slice()
        && let Some(protocol) = protocol(label)
        && let Some(custom) = found_base(&base(2))
    {
        let apex = custom.domain.name().clone();
        let found = match service(custom, mirror) {
            Some(service)
                if has(custom, service, |it| {
                    services::is(it, protocol, Some(port_name))
                }) =>
            {
                services::named_port(service, port_name, protocol, zone, name, record_type)
            }
            Some(_) | None => Found::NxDomain,
        };
        return Some((found, apex));
    }
    if let [label, ..] = labels.as_slice()
        && let Some(protocol) = protocol(label)
        && let Some(custom) = found_base(&base(1))
    {
        let apex = custom.domain.name().clone();
        let found = match service(custom, mirror) {
            Some(service) if has(custom, service, |it| services::is(it, protocol, None)) => {
                Found::NoData
            }
            Some(_) | None => Found::NxDomain,
        };
        return Some((found, apex));
    }
    None
}

/// Whether the service has such a port that the domain has SRV records for.
fn has(custom: &CustomDomain, service: &Service, is: impl Fn(&Port) -> bool) -> bool {
    let mut ports = service.ports.iter();
    ports.any(|port| is(port) && wants(custom, service, port))
}

/// Whether the domain has SRV records for a port of the service or of one of its endpoints. The two are joined by their
/// name, as in an EndpointSlice: their numbers may differ.
fn wants(custom: &CustomDomain, service: &Service, port: &Port) -> bool {
    let Some(wanted) = &custom.port else {
        return true;
    };
    let same = |own: &&Port| own.protocol == port.protocol && own.name == port.name;
    service.ports.iter().filter(same).any(|own| wanted.is(own))
}

/// The domain is there whatever the service has.
fn exists(found: Found) -> Found {
    match found {
        Found::NxDomain => Found::NoData,
        other => other,
    }
}
