//! Which names lead where. The JSON of `pmz dns list -o json` is made of these; fields are added, never renamed.

use std::net::IpAddr;

use pmz_net::catalog::{Port, Service, ServiceKind};
use serde::{Deserialize, Serialize};

use super::{Entry, check_service};

/// Addresses of one service that are told at most.
const MAX_ADDRESSES: usize = 16;
/// Ports of one service that are told at most.
const MAX_PORTS: usize = 16;

/// Where a name leads at present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Addresses as this machine uses them; of many the first. An address of the cluster that collides with this
    /// machine's has none before somebody asks for it.
    pub addresses: Vec<IpAddr>,
    /// The cluster's own addresses, where they are others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_addresses: Vec<IpAddr>,
    /// Addresses that were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_addresses: usize,
    /// The name outside that it leads to instead (ExternalName).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    /// The service's ports; of a headless one those on which its endpoints listen, which is where programs arrive.
    #[serde(default)]
    pub ports: Vec<Port>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Lead {
    /// Where that service leads; `used` tells what the machine uses for an address of the cluster.
    pub fn of(service: &Service, used: impl Fn(IpAddr) -> Option<IpAddr>) -> Self {
        let mut real: Vec<IpAddr> = Vec::new();
        let mut external_name = None;
        match &service.kind {
            ServiceKind::ClusterIp { addresses } => real.clone_from(addresses),
            ServiceKind::ExternalName { target } => external_name = Some(target.clone()),
            ServiceKind::Headless => {
                let shown = service.endpoints.iter();
                let shown = shown.filter(|it| it.ready || service.publish_not_ready);
                real.extend(shown.map(|endpoint| endpoint.address));
            }
        }
        let mut ports: Vec<Port> = Vec::new();
        let (own, behind) = match service.kind {
            ServiceKind::Headless => (&[][..], service.endpoints.as_slice()),
            ServiceKind::ClusterIp { .. } | ServiceKind::ExternalName { .. } => {
                (service.ports.as_slice(), &[][..])
            }
        };
        for port in own.iter().chain(behind.iter().flat_map(|it| &it.ports)) {
            if ports.len() < MAX_PORTS && !ports.contains(port) {
                ports.push(port.clone());
            }
        }
        let more_addresses = real.len().saturating_sub(MAX_ADDRESSES);
        real.truncate(MAX_ADDRESSES);
        let addresses: Vec<IpAddr> = real.iter().filter_map(|address| used(*address)).collect();
        let cluster_addresses = match addresses == real {
            true => Vec::new(),
            false => real,
        };
        Self {
            addresses,
            cluster_addresses,
            more_addresses,
            external_name,
            ports,
        }
    }
}

/// A domain that the user added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainLine {
    /// The domain and where it is to lead.
    #[serde(flatten)]
    pub entry: Entry,
    /// Where it leads at present; none where nobody is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<Lead>,
    /// Why it does not lead where it is to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl DomainLine {
    /// A domain of which nothing is known but what the user said.
    pub fn unknown(entry: Entry) -> Self {
        Self {
            entry,
            lead: None,
            problem: None,
        }
    }

    /// A domain that leads to this service, or to none.
    pub fn of(
        entry: Entry,
        service: Option<&Service>,
        used: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> Self {
        let problem = check_service(&entry, service)
            .err()
            .map(|failure| failure.cause);
        let lead = service.map(|service| Lead::of(service, used));
        Self {
            lead: Some(lead.unwrap_or_default()),
            entry,
            problem,
        }
    }
}

/// A service and its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLine {
    /// Its name here, such as `echo.default.svc`.
    pub name: String,
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Where it leads at present.
    pub lead: Lead,
}

/// A part of all names; the next follows until one is the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamesPage {
    /// The context that the daemon is connected to.
    pub context: String,
    /// Whether the cluster's services are known, and names lead to them now.
    pub connected: bool,
    /// The domains of that context.
    #[serde(default)]
    pub domains: Vec<DomainLine>,
    /// The cluster's services.
    #[serde(default)]
    pub services: Vec<ServiceLine>,
    /// Whether this was all.
    pub last: bool,
}
