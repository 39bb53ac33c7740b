//! What of the name space is ours.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::ProtoError;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record};
use ipnet::IpNet;

use super::name::{labels, reverse_ancestor};
use super::table::SharedDomains;
use super::translate::Translate;

/// How long, in seconds, resolvers may keep our answers: endpoints come and go.
pub(super) const TTL: u32 = 5;
/// How long, in seconds, they may keep that there is nothing: a developer waits for what was just made.
const NEGATIVE_TTL: u32 = 2;

/// A cluster domain that can't be one.
#[derive(Debug, thiserror::Error)]
#[error("{domain:?} can't be a cluster's domain: {reason}")]
pub struct ZoneError {
    domain: String,
    reason: ProtoError,
}

/// What of the name space is ours, and what it is called.
#[derive(Clone, Debug)]
pub struct Zone {
    /// `<domain>.`
    pub(super) domain: Name,
    /// `svc.`
    pub(super) short_services: Name,
    /// `svc.<domain>.`
    pub(super) services: Name,
    /// `pod.<domain>.`
    pub(super) pods: Name,
    /// `dns-version.<domain>.`
    pub(super) version: Name,
    /// `ns.dns.<domain>.`
    pub(super) server: Name,
    pub(super) server_addresses: Vec<IpAddr>,
    pub(super) reverse: Vec<IpNet>,
    pub(super) short_names: bool,
    pub(super) search: Vec<String>,
    pub(super) translate: Option<Arc<dyn Translate>>,
    pub(super) domains: SharedDomains,
}

impl Zone {
    /// The zone of a cluster with this DNS domain, mostly `cluster.local`.
    ///
    /// # Errors
    /// Where the domain is no name, is empty, or leaves no room for names below it.
    pub fn new(domain: &str) -> Result<Self, ZoneError> {
        let error = |reason| ZoneError {
            domain: domain.to_owned(),
            reason,
        };
        let mut root = Name::from_ascii(domain).map_err(error)?;
        root.set_fqdn(true);
        if root.is_root() {
            return Err(error(ProtoError::from("it is empty")));
        }
        let below = |name: &[&str]| {
            Name::from_labels(name.iter().map(|label| label.as_bytes()))
                .and_then(|name| name.append_domain(&root))
                .map_err(error)
        };
        Ok(Self {
            short_services: Name::from_labels([b"svc".as_slice()]).map_err(error)?,
            services: below(&["svc"])?,
            pods: below(&["pod"])?,
            version: below(&["dns-version"])?,
            server: below(&["ns", "dns"])?,
            server_addresses: Vec::new(),
            reverse: Vec::new(),
            short_names: true,
            search: Vec::new(),
            translate: None,
            domains: SharedDomains::default(),
            domain: root,
        })
    }

    /// Addresses of these prefixes are ours in reverse (PTR): those that are steered into the tunnel.
    #[must_use]
    pub fn with_reverse(mut self, prefixes: Vec<IpNet>) -> Self {
        self.reverse = prefixes;
        self
    }

    /// Where this server is reached: the addresses of the zone's NS.
    #[must_use]
    pub fn with_server_addresses(mut self, addresses: Vec<IpAddr>) -> Self {
        self.server_addresses = addresses;
        self
    }

    /// Whether `name.namespace` is ours where there is such a service. True unless said. To be turned
    /// off where resolvers reach those names by a search domain: the form collides with outside names.
    #[must_use]
    pub fn with_short_names(mut self, short_names: bool) -> Self {
        self.short_names = short_names;
        self
    }

    /// Namespaces whose services are found by their bare names, too, the first one's first. Such a name is ours where
    /// there is such a service, and the outside does not have it, as `name.namespace` is.
    #[must_use]
    pub fn with_search(mut self, namespaces: Vec<String>) -> Self {
        self.search = namespaces;
        self
    }

    /// Names lead to what this says that the machine uses for the cluster's addresses.
    #[must_use]
    pub fn with_translate(mut self, translate: Arc<dyn Translate>) -> Self {
        self.translate = Some(translate);
        self
    }

    /// Domains that lead to services, too. What is ours without them stays as it is, but for the short names.
    #[must_use]
    pub fn with_domains(mut self, domains: SharedDomains) -> Self {
        self.domains = domains;
        self
    }

    /// The cluster's address behind one that the machine uses.
    pub(super) fn real(&self, used: IpAddr) -> IpAddr {
        let translate = self.translate.as_ref();
        translate.and_then(|by| by.real(used)).unwrap_or(used)
    }

    /// Which part of the name space a name belongs to.
    pub(super) fn place(&self, name: &Name) -> Place {
        for apex in [&self.services, &self.short_services] {
            if apex.zone_of(name) {
                return Place::Service {
                    labels: labels(name, apex),
                    apex: apex.clone(),
                };
            }
        }
        if self.pods.zone_of(name) {
            return Place::Pod {
                labels: labels(name, &self.pods),
                apex: self.pods.clone(),
            };
        }
        if self.version.eq_ignore_root(name) {
            return Place::Version;
        }
        if self.server.eq_ignore_root(name) {
            return Place::Server;
        }
        if let Ok(net) = name.parse_arpa_name() {
            let prefix = self.reverse.iter().find(|prefix| prefix.contains(&net));
            return match prefix {
                Some(prefix) => Place::Reverse {
                    net,
                    apex: reverse_ancestor(name, prefix.prefix_len()),
                },
                None => Place::Elsewhere,
            };
        }
        // What else is below the cluster's domain is the cluster's own name server's to know.
        if self.domain.zone_of(name) {
            return Place::Elsewhere;
        }
        let labels = labels(name, &Name::root());
        match labels.as_slice() {
            [service, namespace] if self.short_names => Place::Short {
                service: service.clone(),
                namespace: namespace.clone(),
            },
            // Nobody but the machine itself has a say in `localhost` (RFC 6761, 6.3).
            [service] if !self.search.is_empty() && service != "localhost" => Place::Bare {
                service: service.clone(),
            },
            _ => Place::Elsewhere,
        }
    }

    /// Whether a name has a form that outside names have as well, `name.namespace` or `name`, and the user has not led it
    /// elsewhere.
    pub(super) fn is_short(&self, name: &Name) -> bool {
        matches!(self.place(name), Place::Short { .. } | Place::Bare { .. })
            && !self.domains.get().leads(name)
    }

    /// Whether it is `name` alone.
    pub(super) fn is_bare(&self, name: &Name) -> bool {
        matches!(self.place(name), Place::Bare { .. })
    }

    /// The SOA of one of our zones: who asks for what isn't there learns from it how long to keep that.
    pub(super) fn soa(&self, apex: &Name, serial: u64) -> Record {
        let contact = Name::from_labels([b"hostmaster".as_slice()])
            .and_then(|name| name.append_domain(apex))
            .unwrap_or_else(|_| self.server.clone());
        // Serials are 32 bits wide and wrap (RFC 1982).
        let serial = (serial & u64::from(u32::MAX)) as u32;
        let soa = SOA::new(
            self.server.clone(),
            contact,
            serial,
            7200,
            1800,
            86400,
            NEGATIVE_TTL,
        );
        Record::from_rdata(apex.clone(), NEGATIVE_TTL, RData::SOA(soa))
    }
}

/// A part of the name space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below `svc.<domain>` or `svc`: labels from the left, without the zone's own.
    Service { labels: Vec<String>, apex: Name },
    /// Below `pod.<domain>`.
    Pod { labels: Vec<String>, apex: Name },
    /// `dns-version.<domain>`
    Version,
    /// `ns.dns.<domain>`
    Server,
    /// An address, or a part of one, within our reverse prefixes.
    Reverse { net: IpNet, apex: Name },
    /// `name.namespace`, ours only if there is such a service.
    Short { service: String, namespace: String },
    /// `name`, ours only if there is such a service in one of [`Zone::search`].
    Bare { service: String },
    /// Not ours.
    Elsewhere,
}
