//! Addresses back to names.

use std::net::IpAddr;

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use ipnet::IpNet;

use super::found::Found;
use super::services::{endpoint_label, full_name, shows};
use super::zone::{TTL, Zone};
use crate::catalog::mirror::Mirror;
use crate::catalog::{Service, ServiceKind};

/// Names that one address is told to have at most.
const MAX_NAMES: usize = 32;

/// What a reverse name leads to: a ClusterIP to its service, any other address to the endpoints that
/// have it.
pub(super) fn look_up(
    mirror: &Mirror,
    zone: &Zone,
    net: IpNet,
    name: &Name,
    record_type: RecordType,
) -> Found {
    if net.prefix_len() != net.max_prefix_len() {
        // A part of an address: addresses are below it.
        return Found::NoData;
    }
    let address = zone.real(net.addr());
    let services = mirror.by_address(address);
    let mut names: Vec<_> = services
        .iter()
        .filter(|service| has_cluster_ip(service, address))
        .filter_map(|service| full_name(&[], service, zone))
        .collect();
    if names.is_empty() {
        names = services
            .iter()
            .filter_map(|service| {
                let mut endpoints = service.endpoints.iter();
                let endpoint = endpoints.find(|it| it.address == address && shows(service, it))?;
                full_name(&[&endpoint_label(endpoint)], service, zone)
            })
            .collect();
    }
    if names.is_empty() {
        return Found::NxDomain;
    }
    if record_type != RecordType::PTR {
        return Found::NoData;
    }
    names.sort();
    names.truncate(MAX_NAMES);
    let records = names.into_iter().map(|target| RData::PTR(PTR(target)));
    Found::records(
        records
            .map(|data| Record::from_rdata(name.clone(), TTL, data))
            .collect(),
    )
}

fn has_cluster_ip(service: &Service, address: IpAddr) -> bool {
    match &service.kind {
        ServiceKind::ClusterIp { addresses } => addresses.contains(&address),
        ServiceKind::Headless | ServiceKind::ExternalName { .. } => false,
    }
}
