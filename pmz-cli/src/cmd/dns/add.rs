//! `pmz dns add`.

use std::process::ExitCode as Code;

use clap::Args;
use pmz_net::catalog::{Port, Protocol};

use super::super::Global;
use super::{Asked, Kept, ask_daemon, domain, done, named_context};
use crate::daemon::{AddDomain, Ask};
use crate::domains::{Change, DomainLine, Entry, KubeName, Lead, check_name, put};
use crate::failure::{ExitCode, Failure};

/// Ports that programs take without being told.
const USUAL_PORTS: [u16; 2] = [80, 443];

/// Options of `pmz dns add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The name, such as www.dns.com, or a wildcard, such as *.shop.test, for all names below it
    #[arg(long, value_name = "DOMAIN")]
    domain: String,
    /// Name of the service that it leads to
    #[arg(long, value_name = "NAME")]
    service: String,
    /// A port of the service, by number or name: the only one with SRV records. It must be there; addresses in DNS have
    /// no ports, and programs use the service's own
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
    /// Add it also where it leads elsewhere already, its service or port is not there, or it takes a whole top-level domain
    #[arg(long)]
    force: bool,
}

pub(super) fn run(
    global: &Global,
    namespace: Option<&str>,
    args: &AddArgs,
) -> Result<Code, Failure> {
    let wish = wish(global, namespace, args)?;
    match ask_daemon(global, &Ask::AddDomain(wish.clone()))? {
        Asked::Told(told) => {
            let (change, line) = done(told)?;
            eprintln!("{}", say(&change, &line));
        }
        Asked::Nobody(kept) => {
            let why = kept.why.clone();
            let (change, entry) = keep(kept, wish)?;
            eprintln!("{}", say_kept(&change, &entry, &why));
        }
    }
    Ok(Code::SUCCESS)
}

fn wish(global: &Global, namespace: Option<&str>, args: &AddArgs) -> Result<AddDomain, Failure> {
    let usage = |cause: String, next: &str| Failure::new(ExitCode::Usage, cause, next);
    let name = |text: &str, what: &str| -> Result<KubeName, Failure> {
        text.parse().map_err(|error| {
            usage(
                format!("{error}"),
                &format!("Give the {what}'s name as `kubectl get {what}s` shows it"),
            )
        })
    };
    // As kubectl takes it, too.
    let service = ["service/", "services/", "svc/"]
        .iter()
        .find_map(|kind| args.service.strip_prefix(kind))
        .unwrap_or(&args.service);
    let port = args.port.as_ref().map(|port| port.parse()).transpose();
    Ok(AddDomain {
        domain: domain(&args.domain)?,
        service: name(service, "service")?,
        namespace: namespace.map(|text| name(text, "namespace")).transpose()?,
        port: port.map_err(|error: pmz_net::dns::PortRefError| {
            usage(
                error.to_string(),
                "Give a port of the service as `kubectl get service` shows it",
            )
        })?,
        context: named_context(global)?,
        force: args.force,
    })
}

/// Adds the domain to the file alone.
fn keep(kept: Kept, wish: AddDomain) -> Result<(Change, Entry), Failure> {
    check_name(&wish.domain, &kept.ours, wish.force)?;
    let namespace = match wish.namespace {
        Some(namespace) => namespace,
        None => kept.namespace.parse().map_err(|error| {
            let cause = format!("The context's namespace can't be used: {error}");
            Failure::new(ExitCode::Usage, cause, "Name one by `--namespace`")
        })?,
    };
    let entry = Entry {
        domain: wish.domain,
        context: kept.context,
        namespace,
        service: wish.service,
        port: wish.port,
    };
    let added = entry.clone();
    let change = kept
        .store
        .change(|entries| put(entries, added, wish.force))?;
    Ok((change, entry))
}

fn changed(change: &Change, entry: &Entry, verb: &str) -> String {
    let (domain, target) = (&entry.domain, entry.target());
    match change {
        Change::Added => format!("{domain} {verb} {target}"),
        Change::Unchanged => format!("{domain} {verb} {target} already: unchanged"),
        Change::Replaced(old) => format!(
            "{domain} {verb} {target}, and not to {} any more",
            old.target()
        ),
        Change::Removed => format!("{domain} does not lead to {target} any more"),
    }
}

fn say_kept(change: &Change, entry: &Entry, why: &str) -> String {
    format!(
        "{} as soon as pmz is connected to context {:?}: {why}. Whether there is such a service is not checked.",
        changed(change, entry, "is kept, and leads to"),
        entry.context
    )
}

fn say(change: &Change, line: &DomainLine) -> String {
    let mut text = changed(change, &line.entry, "leads to");
    let Some(lead) = &line.lead else {
        text.push_str(". Whether there is such a service is not known yet.");
        return text;
    };
    let places: Vec<String> = match &lead.external_name {
        Some(name) => vec![name.clone()],
        None => lead.addresses.iter().map(ToString::to_string).collect(),
    };
    if !places.is_empty() {
        text.push_str(&format!(" ({})", places.join(", ")));
    }
    text.push('.');
    if let Some(problem) = &line.problem {
        text.push_str(&format!(" {problem}."));
    } else if places.is_empty() {
        text.push_str(" It has no address at present.");
    }
    if let Some(hint) = ports_hint(line, lead) {
        text.push_str(&format!(" {hint}"));
    }
    text
}

/// DNS leads to addresses; which port is meant, programs must be told where it is none of the usual ones.
fn ports_hint(line: &DomainLine, lead: &Lead) -> Option<String> {
    let tcp: Vec<&Port> = lead
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp)
        .collect();
    let is_meant = |port: &Port| line.entry.port.as_ref().is_some_and(|it| it.is(port));
    let ports: Vec<u16> = match tcp.iter().find(|port| is_meant(port)) {
        Some(meant) => vec![meant.port],
        None => tcp.iter().map(|port| port.port).collect(),
    };
    let [first, ..] = ports.as_slice() else {
        return None;
    };
    if ports.iter().any(|port| USUAL_PORTS.contains(port)) {
        return None;
    }
    let host = match line.entry.domain.as_str().strip_prefix('*') {
        Some(below) => format!("NAME{below}"),
        None => line.entry.domain.to_string(),
    };
    Some(format!(
        "DNS knows no ports: programs that don't ask for SRV records need it, such as {host}:{first}."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(port: u16, wanted: Option<&str>) -> DomainLine {
        let entry = Entry {
            domain: "www.dns.com".parse().unwrap(),
            context: "dev".to_owned(),
            namespace: "default".parse().unwrap(),
            service: "echo".parse().unwrap(),
            port: wanted.map(|port| port.parse().unwrap()),
        };
        let port = Port {
            name: Some("web".to_owned()),
            protocol: Protocol::Tcp,
            port,
        };
        DomainLine {
            entry,
            lead: Some(Lead {
                addresses: vec!["10.96.0.10".parse().unwrap()],
                ports: vec![port],
                ..Lead::default()
            }),
            problem: None,
        }
    }

    #[test]
    fn what_is_done_is_said_with_the_address() {
        let line80 = line(80, None);
        assert_eq!(
            say(&Change::Added, &line80),
            "www.dns.com leads to echo.default.svc (10.96.0.10)."
        );
        assert_eq!(
            say(&Change::Unchanged, &line80),
            "www.dns.com leads to echo.default.svc already: unchanged (10.96.0.10)."
        );
        let text = say(&Change::Replaced(line(80, Some("web")).entry), &line80);
        assert!(
            text.contains("and not to echo.default.svc:web any more"),
            "{text}"
        );
        let kept = say_kept(&Change::Added, &line80.entry, "pmz is not running");
        for words in ["is kept", "\"dev\"", "pmz is not running", "not checked"] {
            assert!(kept.contains(words), "{kept}");
        }
    }

    #[test]
    fn a_port_that_no_program_guesses_is_said() {
        let text = say(&Change::Added, &line(8080, Some("web")));
        assert!(text.contains("www.dns.com:8080"), "{text}");
        let text = say(&Change::Added, &line(443, Some("web")));
        assert!(!text.contains(":443"), "{text}");
    }

    #[test]
    fn a_service_without_an_address_is_said() {
        let mut nowhere = line(80, None);
        nowhere.lead = Some(Lead::default());
        let text = say(&Change::Added, &nowhere);
        assert!(text.contains("no address at present"), "{text}");
        nowhere.problem = Some("There is no such service".to_owned());
        let text = say(&Change::Added, &nowhere);
        assert!(text.contains("There is no such service."), "{text}");
        nowhere.lead = None;
        let text = say(&Change::Added, &nowhere);
        assert!(text.contains("not known yet"), "{text}");
    }
}
