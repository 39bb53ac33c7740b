//! Domains that the user leads to services.
//!
//! A domain has the records that the service's own name has: addresses as they are at that moment, or an external name
//! (CNAME) and what it leads to, and SRV for the service's ports. It never has anything of what DNS outside says of that
//! name: what the service has not is NODATA. So it is when the service is gone. The name exists, since the user says so;
//! NXDOMAIN would be kept for all that is below it, too (RFC 8020), SERVFAIL would have resolvers try again and elsewhere,
//! and asking outside would send the developer's requests to whoever has the name in earnest.
//!
//! An exact domain goes before a wildcard, and of several wildcards the longest counts. As in RFC 4592 a wildcard stands
//! for one or more labels, and not for the name above it. One thing is other than there: an exact name does not hide what
//! is below it from a wildcard (4592, 2.2.1, has that for names of one zone). The domains are no zone, but lie over what
//! is outside: who leads `api.shop.test` elsewhere has not said anything of `v1.api.shop.test`.

use std::collections::HashMap;
use std::sync::Arc;

use hickory_proto::rr::{Name, RecordType};
use tokio::sync::watch;

use super::domain::Domain;
use super::found::Found;
use super::port::PortRef;
use super::services;
use super::zone::Zone;
use crate::catalog::mirror::Mirror;
use crate::catalog::{Port, Service, ServiceKey, ServiceKind};

/// A domain and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomDomain {
    /// The name.
    pub domain: Domain,
    /// The service whose records it has.
    pub service: ServiceKey,
    /// The only port that has SRV records; all have where none is named. Addresses know no ports.
    pub port: Option<PortRef>,
}

/// All domains of one cluster.
#[derive(Clone, Debug, Default)]
pub struct DomainTable {
    all: Vec<CustomDomain>,
    exact: HashMap<Name, usize>,
    wildcards: HashMap<Name, usize>,
    /// Labels of the longest wildcard, without its `*`.
    deepest: usize,
    never: Vec<Name>,
}

impl DomainTable {
    /// These domains; of two that are the same the later counts. A name of `never` is none of theirs, whatever covers it:
    /// the cluster's API server's, which pmz itself must find.
    pub fn new(all: Vec<CustomDomain>, never: Vec<Name>) -> Self {
        let mut table = Self {
            never,
            ..Self::default()
        };
        for (index, custom) in all.iter().enumerate() {
            let names = match custom.domain.is_wildcard() {
                true => &mut table.wildcards,
                false => &mut table.exact,
            };
            names.insert(custom.domain.name().clone(), index);
        }
        let depths = table.wildcards.keys().map(|name| name.iter().count());
        table.deepest = depths.max().unwrap_or_default();
        table.all = all;
        table
    }

    /// All of them.
    pub fn domains(&self) -> &[CustomDomain] {
        &self.all
    }

    /// The names for which questions have to reach us, for the name itself and all that is below it, each once: what a
    /// resolver that sorts questions by domain is to be told. Of what is not ours among them, the server asks others.
    pub fn routed(&self) -> Vec<Name> {
        let exact = self.exact.keys();
        let others = exact.filter(|name| !self.wildcards.contains_key(*name));
        let mut names: Vec<Name> = self.wildcards.keys().chain(others).cloned().collect();
        names.sort();
        names
    }

    fn exact(&self, name: &Name) -> Option<&CustomDomain> {
        if self.is_never(name) {
            return None;
        }
        self.exact.get(name).and_then(|index| self.all.get(*index))
    }

    fn wildcard(&self, name: &Name) -> Option<&CustomDomain> {
        if self.wildcards.is_empty() || self.is_never(name) || is_reverse(name) {
            return None;
        }
        // `num_labels` leaves a `*` out.
        let above = name.iter().count().checked_sub(1)?;
        let depths = (0..=above.min(self.deepest)).rev();
        let mut ancestors = depths.map(|labels| name.trim_to(labels));
        let index = ancestors.find_map(|ancestor| self.wildcards.get(&ancestor))?;
        self.all.get(*index)
    }

    fn is_never(&self, name: &Name) -> bool {
        self.never.iter().any(|never| never.eq_ignore_root(name))
    }
}

fn is_reverse(name: &Name) -> bool {
    name.iter()
        .next_back()
        .is_some_and(|top| top.eq_ignore_ascii_case(b"arpa"))
}

/// A handle to the domains that are answered. Clones share them. The one place that knows them: who sorts questions by
/// domain before they reach the server follows [`SharedDomains::subscribe`], and [`DomainTable::routed`] is its list.
#[derive(Clone, Debug)]
pub struct SharedDomains {
    table: watch::Sender<Arc<DomainTable>>,
}

impl Default for SharedDomains {
    fn default() -> Self {
        Self {
            table: watch::Sender::new(Arc::default()),
        }
    }
}

impl SharedDomains {
    /// As they are now.
    pub fn get(&self) -> Arc<DomainTable> {
        self.table.borrow().clone()
    }

    /// Other ones, from the next question on.
    pub fn set(&self, table: DomainTable) {
        self.table.send_replace(Arc::new(table));
    }

    /// Tells of each change; a slow receiver sees the last.
    pub fn subscribe(&self) -> watch::Receiver<Arc<DomainTable>> {
        self.table.subscribe()
    }
}

/// Whether the user leads a name somewhere.
pub(super) fn is_led(zone: &Zone, name: &Name) -> bool {
    let table = zone.domains.get();
    table.exact(name).is_some() || table.wildcard(name).is_some()
}

/// What a name has by the user's word, and the apex for negative answers; `None` where the user has said nothing of it.
pub(super) fn look_up(
    mirror: &Mirror,
    zone: &Zone,
    name: &Name,
    record_type: RecordType,
) -> Option<(Found, Name)> {
    let table = zone.domains.get();
    if table.all.is_empty() || zone.domain.zone_of(name) {
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
