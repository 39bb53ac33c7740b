//! Domains that the user leads to services: what is kept of them, and which are refused.
//!
//! A domain belongs to a context of the kubeconfig, and leads to a service in a namespace of that cluster. The same name
//! may lead to one service in one cluster and to another one, or nowhere, in the next: whoever connects to production
//! must not find a name of the test cluster's there.

mod report;
mod rules;
mod store;

use std::fmt;
use std::str::FromStr;

use pmz_net::catalog::ServiceKey;
use pmz_net::dns::{CustomDomain, Domain, PortRef};
use serde::{Deserialize, Serialize};

pub use report::{DomainLine, Lead, NamesPage, ServiceLine};
pub use rules::{Change, Ours, check_name, check_service, put, take};
pub use store::{Store, StoreError};

/// A cluster's domain where nobody has said another.
pub const USUAL_CLUSTER_DOMAIN: &str = "cluster.local";

/// The name of a service or of a namespace: a DNS label (RFC 1123).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KubeName(String);

/// A text that no service or namespace has for a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of Kubernetes': up to 63 lower-case letters, digits and hyphens are")]
pub struct KubeNameError(String);

impl KubeName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KubeName {
    type Err = KubeNameError;

    fn from_str(text: &str) -> Result<Self, KubeNameError> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(fits)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(KubeNameError(text.chars().take(64).collect()))
        }
    }
}

impl TryFrom<String> for KubeName {
    type Error = KubeNameError;

    fn try_from(text: String) -> Result<Self, KubeNameError> {
        text.parse()
    }
}

impl From<KubeName> for String {
    fn from(name: KubeName) -> Self {
        name.0
    }
}

impl fmt::Display for KubeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A domain and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name.
    pub domain: Domain,
    /// The kubeconfig's context for whose cluster it holds.
    pub context: String,
    /// Namespace of the service.
    pub namespace: KubeName,
    /// Name of the service.
    pub service: KubeName,
    /// The only port that has SRV records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRef>,
}

impl Entry {
    /// Where it leads, such as `echo.default.svc`, with the port where there is one.
    pub fn target(&self) -> String {
        let port = self.port.as_ref().map(|port| format!(":{port}"));
        format!(
            "{}.{}.svc{}",
            self.service,
            self.namespace,
            port.unwrap_or_default()
        )
    }
}

impl From<&Entry> for CustomDomain {
    fn from(entry: &Entry) -> Self {
        Self {
            domain: entry.domain.clone(),
            service: ServiceKey {
                namespace: entry.namespace.to_string(),
                name: entry.service.to_string(),
            },
            port: entry.port.clone(),
        }
    }
}
