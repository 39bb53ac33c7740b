//! Which domains are taken, and which are refused for what reason.

use pmz_net::catalog::{Port, Protocol, Service, ServiceKind};
use pmz_net::dns::{Domain, Name};
use serde::{Deserialize, Serialize};

use super::Entry;
use crate::failure::{ExitCode, Failure};

/// What a domain must not touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The name of the API server, where it has one: pmz itself must find it.
    pub api: Option<Name>,
}

/// What came of a wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The domain is new.
    Added,
    /// It was as it should be.
    Unchanged,
    /// It led elsewhere before.
    Replaced(Entry),
    /// It is gone.
    Removed,
}

/// Refuses a domain that is ours already, that pmz itself needs, or that takes more than anybody means to give.
///
/// # Errors
/// With the reason. What `force` is for passes with it.
pub fn check_name(domain: &Domain, ours: &Ours, force: bool) -> Result<(), Failure> {
    let refused = |cause: String, next: &str| Failure::new(ExitCode::Usage, cause, next);
    for own in [ours.cluster_domain.as_str(), "svc"] {
        let within = Name::from_ascii(own).is_ok_and(|own| own.zone_of(domain.name()));
        if within && !domain.name().is_root() {
            return Err(refused(
                format!(
                    "{domain} can't lead anywhere else: names at and below {own} are the cluster's own"
                ),
                "Choose a name that is not the cluster's, such as one below `.test`",
            ));
        }
    }
    let is_api = |api: &Name| domain.name().eq_ignore_root(api);
    if !domain.is_wildcard() && ours.api.as_ref().is_some_and(is_api) {
        return Err(refused(
            format!("{domain} is the name of the cluster's API server, which pmz itself must find"),
            "Choose another name",
        ));
    }
    if domain.is_broad() && !force {
        let what = match domain.is_wildcard() {
            true => "takes every name of a top-level domain, or of all",
            false => "is a single label, which resolvers complete by their search domains",
        };
        return Err(refused(
            format!("{domain} {what}"),
            "Name more of it, such as `*.shop.test`; `--force` adds it all the same",
        ));
    }
    Ok(())
}

/// Refuses a domain whose service, or whose port of it, is not there, and one that would lead back to itself.
///
/// # Errors
/// With the reason.
pub fn check_service(entry: &Entry, service: Option<&Service>) -> Result<(), Failure> {
    let refused = |cause: String, next: String| Failure::new(ExitCode::Usage, cause, next);
    let Entry {
        domain,
        namespace,
        service: name,
        port,
        ..
    } = entry;
    let Some(service) = service else {
        return Err(refused(
            format!("There is no service {name:?} in namespace {namespace:?}", name = name.as_str(), namespace = namespace.as_str()),
            "`pmz dns list` shows those that are there, `--namespace` names another namespace; `--force` adds the domain all the \
             same, for a service that will come"
                .to_owned(),
        ));
    };
    if let ServiceKind::ExternalName { target } = &service.kind
        && let Ok(target) = Name::from_ascii(target)
        && domain.covers(&target)
    {
        return Err(refused(
            format!(
                "{name}.{namespace}.svc is an external name for {target}, which would lead back to itself"
            ),
            "Choose another name".to_owned(),
        ));
    }
    if let Some(port) = port
        && !service.ports.iter().any(|own| port.is(own))
    {
        let ports = service.ports.iter().map(describe).collect::<Vec<_>>();
        let has = match ports.as_slice() {
            [] => "it has none".to_owned(),
            ports => format!("it has {}", ports.join(", ")),
        };
        return Err(refused(
            format!("{name}.{namespace}.svc has no port {port}: {has}"),
            "Name one of those, or none; `--force` adds the domain all the same".to_owned(),
        ));
    }
    Ok(())
}

/// A port such as `http 80/TCP`.
fn describe(port: &Port) -> String {
    let name = port.name.as_ref().map(|name| format!("{name} "));
    format!(
        "{}{}/{}",
        name.unwrap_or_default(),
        port.port,
        protocol(port.protocol)
    )
}

/// As Kubernetes writes it.
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// Puts a domain into the list.
///
/// # Errors
/// Where it leads elsewhere already, unless `force` is given.
pub fn put(entries: &mut Vec<Entry>, entry: Entry, force: bool) -> Result<Change, Failure> {
    let same = |it: &&mut Entry| it.context == entry.context && it.domain == entry.domain;
    match entries.iter_mut().find(same) {
        None => {
            entries.push(entry);
            Ok(Change::Added)
        }
        Some(old) if *old == entry => Ok(Change::Unchanged),
        Some(old) if force => Ok(Change::Replaced(std::mem::replace(old, entry))),
        Some(old) => Err(Failure::new(
            ExitCode::General,
            format!("{} leads to {} already", old.domain, old.target()),
            format!(
                "`--force` leads it to {} instead; `pmz dns remove --domain {}` frees it",
                entry.target(),
                old.domain
            ),
        )),
    }
}

/// Takes a domain out of the list.
///
/// # Errors
/// Where it is not in it.
pub fn take(entries: &mut Vec<Entry>, context: &str, domain: &Domain) -> Result<Entry, Failure> {
    let same = |it: &Entry| it.context == context && it.domain == *domain;
    if let Some(index) = entries.iter().position(same) {
        return Ok(entries.remove(index));
    }
    let others: Vec<_> = entries
        .iter()
        .filter(|it| it.domain == *domain)
        .map(|it| format!("{:?}", it.context))
        .collect();
    let next = match others.as_slice() {
        [] => "`pmz dns list` shows those that were added".to_owned(),
        others => format!(
            "It was for {}: name it by `--context`",
            others.join(" and ")
        ),
    };
    Err(Failure::new(
        ExitCode::Usage,
        format!("{domain} has not been added for context {context:?}"),
        next,
    ))
}

#[cfg(test)]
mod tests;
