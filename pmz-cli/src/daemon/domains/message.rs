//! What commands and the daemon say to each other of domains.

use pmz_net::dns::{Domain, PortRef};
use serde::{Deserialize, Serialize};

use crate::domains::{Change, DomainLine, KubeName, NamesPage, ServiceLine};
use crate::failure::Failure;

/// Lines of one page: with the longest names and the most addresses they fit into one message.
const PAGE: usize = 300;

/// A domain that is to lead to a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddDomain {
    /// The name.
    pub domain: Domain,
    /// Name of the service.
    pub service: KubeName,
    /// Namespace of the service; the context's where none is named.
    pub namespace: Option<KubeName>,
    /// The only port with SRV records.
    pub port: Option<PortRef>,
    /// The context that it is for; the daemon's where none is named.
    pub context: Option<String>,
    /// Whether what looks like a mistake is meant.
    pub force: bool,
}

/// A domain that is to lead nowhere any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveDomain {
    /// The name.
    pub domain: Domain,
    /// The context that it was for; the daemon's where none is named.
    pub context: Option<String>,
}

/// What came of a command for a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum DomainTold {
    /// It is done, from now on.
    Done {
        /// What has changed.
        change: Change,
        /// How the domain stands now, or stood.
        line: Box<DomainLine>,
    },
    /// Nothing is done: the daemon is connected to this context, not to the one that was named.
    Elsewhere {
        /// The daemon's.
        context: String,
    },
    /// Nothing is done.
    Refused {
        /// Why.
        failure: Failure,
    },
}

/// All names, as pages.
pub(super) fn pages(
    context: &str,
    connected: bool,
    domains: Vec<DomainLine>,
    services: Vec<ServiceLine>,
) -> Vec<NamesPage> {
    let page = || NamesPage {
        context: context.to_owned(),
        connected,
        ..NamesPage::default()
    };
    let domains = domains.chunks(PAGE).map(|lines| NamesPage {
        domains: lines.to_vec(),
        ..page()
    });
    let services = services.chunks(PAGE).map(|lines| NamesPage {
        services: lines.to_vec(),
        ..page()
    });
    let last = NamesPage {
        last: true,
        ..page()
    };
    domains.chain(services).chain([last]).collect()
}
