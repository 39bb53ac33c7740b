//! The domains that the user leads to services, and which of them a name is of.
//!
//! An exact domain goes before a wildcard, and of several wildcards the longest counts. As in RFC 4592 a wildcard stands
//! for one or more labels, and not for the name above it. One thing is other than there: an exact name does not hide what
//! is below it from a wildcard (4592, 2.2.1, has that for names of one zone). The domains are no zone, but lie over what
//! is outside: who leads `api.shop.test` elsewhere has not said anything of `v1.api.shop.test`.

use std::collections::HashMap;
use std::sync::Arc;

use hickory_proto::rr::Name;
use tokio::sync::watch;

use super::domain::Domain;
use super::port::PortRef;
use crate::catalog::ServiceKey;

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

    pub(super) fn exact(&self, name: &Name) -> Option<&CustomDomain> {
        if self.is_never(name) {
            return None;
        }
        self.exact.get(name).and_then(|index| self.all.get(*index))
    }

    pub(super) fn wildcard(&self, name: &Name) -> Option<&CustomDomain> {
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

    /// Whether the user leads a name somewhere.
    pub(super) fn leads(&self, name: &Name) -> bool {
        self.exact(name).is_some() || self.wildcard(name).is_some()
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
