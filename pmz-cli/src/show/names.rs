//! `pmz dns list`.

use std::fmt::Write;

use serde::Serialize;

use super::Style;
use crate::domains::{DomainLine, Lead, ServiceLine};

/// All names of one context. The JSON of `-o json` is this; fields are added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// The kubeconfig's context.
    pub context: String,
    /// Whether names lead to the cluster now.
    pub connected: bool,
    /// Domains that were added.
    pub domains: Vec<DomainLine>,
    /// The cluster's services.
    pub services: Vec<ServiceLine>,
}

impl Names {
    /// Leaves out what is of other namespaces.
    pub fn keep(&mut self, namespace: &str) {
        self.domains
            .retain(|line| line.entry.namespace.as_str() == namespace);
        self.services.retain(|line| line.namespace == namespace);
    }
}

/// A line for each name, without where it leads.
pub fn only(names: &Names) -> String {
    let domains = names.domains.iter().map(|line| line.entry.domain.as_str());
    let services = names.services.iter().map(|line| line.name.as_str());
    domains
        .chain(services)
        .map(|name| format!("{name}\n"))
        .collect()
}

/// Name, addresses, and the service that a domain leads to, in columns. Domains first.
pub fn text(names: &Names, style: Style) -> String {
    let mut rows: Vec<[String; 3]> = Vec::new();
    for line in &names.domains {
        let target = line.entry.target();
        let places = line.lead.as_ref().map_or_else(|| "-".to_owned(), places);
        let last = match &line.problem {
            Some(problem) => format!("{target}  {}", style.warn(problem)),
            None => target,
        };
        rows.push([line.entry.domain.to_string(), places, last]);
    }
    for line in &names.services {
        rows.push([line.name.clone(), places(&line.lead), String::new()]);
    }
    let widest = |cells: &mut dyn Iterator<Item = &String>| {
        let widths = cells.map(|cell| cell.chars().count());
        widths.max().unwrap_or_default()
    };
    let name = widest(&mut rows.iter().map(|[name, ..]| name));
    // Only domains have something behind it, and a headless service may have many addresses.
    let domains = rows.iter().take(names.domains.len());
    let place = widest(&mut domains.map(|[_, place, _]| place));
    let mut text = String::new();
    for [first, second, third] in rows {
        let line = format!("{first:<name$}  {second:<place$}  {third}");
        // Writing to a string can't fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Where a name leads, in a word or some.
fn places(lead: &Lead) -> String {
    let list = |addresses: &[std::net::IpAddr]| {
        let told: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        told.join(" ")
    };
    if let Some(name) = &lead.external_name {
        return name.clone();
    }
    let mut told = match lead.addresses.as_slice() {
        [] => "-".to_owned(),
        addresses => list(addresses),
    };
    if !lead.cluster_addresses.is_empty() {
        told.push_str(&format!(" ({})", list(&lead.cluster_addresses)));
    }
    if lead.more_addresses > 0 {
        told.push_str(&format!(" and {} more", lead.more_addresses));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domains::Entry;

    fn lead(addresses: &[&str]) -> Lead {
        Lead {
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
            ..Lead::default()
        }
    }

    fn domain(name: &str, service: &str, lead: Option<Lead>) -> DomainLine {
        DomainLine {
            entry: Entry {
                domain: name.parse().unwrap(),
                context: "dev".to_owned(),
                namespace: "default".parse().unwrap(),
                service: service.parse().unwrap(),
                port: None,
            },
            lead,
            problem: None,
        }
    }

    fn service(name: &str, namespace: &str, lead: Lead) -> ServiceLine {
        ServiceLine {
            name: format!("{name}.{namespace}.svc"),
            namespace: namespace.to_owned(),
            service: name.to_owned(),
            lead,
        }
    }

    fn names() -> Names {
        let mut gone = domain("*.shop.test", "gone", Some(Lead::default()));
        gone.problem = Some("There is no such service".to_owned());
        let mut colliding = lead(&["240.0.0.1"]);
        colliding.cluster_addresses = vec!["10.96.0.8".parse().unwrap()];
        let outside = Lead {
            external_name: Some("www.example.org".to_owned()),
            ..Lead::default()
        };
        Names {
            context: "dev".to_owned(),
            connected: true,
            domains: vec![
                gone,
                domain(
                    "www.dns.com",
                    "echo",
                    Some(lead(&["10.96.25.30", "fd00::1"])),
                ),
                domain("unknown.test", "echo", None),
            ],
            services: vec![
                service("echo", "default", lead(&["10.96.25.30"])),
                service("outside", "default", outside),
                service("web", "shop", colliding),
            ],
        }
    }

    #[test]
    fn names_stand_in_columns_and_domains_first() {
        let expected = "\
*.shop.test          -                    gone.default.svc  There is no such service
www.dns.com          10.96.25.30 fd00::1  echo.default.svc
unknown.test         -                    echo.default.svc
echo.default.svc     10.96.25.30
outside.default.svc  www.example.org
web.shop.svc         240.0.0.1 (10.96.0.8)
";
        assert_eq!(text(&names(), Style::plain()), expected);
        let mut shop = names();
        shop.keep("shop");
        assert_eq!(only(&shop), "web.shop.svc\n");
    }

    #[test]
    fn the_json_is_stable() {
        let json = serde_json::to_value(names()).unwrap();
        assert_eq!(json["context"], "dev");
        assert_eq!(json["connected"], true);
        let domain = &json["domains"][1];
        assert_eq!(domain["domain"], "www.dns.com");
        assert_eq!(domain["context"], "dev");
        assert_eq!(domain["namespace"], "default");
        assert_eq!(domain["service"], "echo");
        assert_eq!(domain["lead"]["addresses"][1], "fd00::1");
        assert!(domain.get("problem").is_none() && domain.get("port").is_none());
        assert!(json["domains"][2].get("lead").is_none());
        assert_eq!(json["domains"][0]["problem"], "There is no such service");
        let service = &json["services"][2];
        assert_eq!(service["name"], "web.shop.svc");
        assert_eq!(service["lead"]["cluster_addresses"][0], "10.96.0.8");
        assert_eq!(
            json["services"][1]["lead"]["external_name"],
            "www.example.org"
        );
    }
}
