//! "Kubernetes DNS-Based Service Discovery", schema version 1.1.0, clause by clause: questions, and the records that the
//! clause wants. What it leaves open, or does not speak of, is in `extensions`, with the reason for the answer.

mod cluster_ip;
mod extensions;
mod external;
mod headless;

use std::collections::BTreeSet;

use super::*;
use crate::catalog::mirror::Mirror;
use crate::catalog::samples::{cluster_ip, external, headless, port};
use crate::catalog::{Protocol, Service, Snapshot};

/// A question of a clause, and all there is to be answered. Names end in `@`, which stands for `<zone>`; records are
/// written as in a master file: name, TTL, class, type, data.
struct Row {
    clause: &'static str,
    /// Name and type.
    question: &'static str,
    rcode: Rcode,
    answers: &'static [&'static str],
    additionals: &'static [&'static str],
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rcode {
    NoError,
    NxDomain,
    /// No error, and that name's records, which are somebody else's to know.
    Then(&'static str),
}

const fn has(
    clause: &'static str,
    question: &'static str,
    answers: &'static [&'static str],
) -> Row {
    Row {
        clause,
        question,
        rcode: Rcode::NoError,
        answers,
        additionals: &[],
    }
}

/// The name is there, and has no such records.
const fn nodata(clause: &'static str, question: &'static str) -> Row {
    has(clause, question, &[])
}

const fn nxdomain(clause: &'static str, question: &'static str) -> Row {
    Row {
        rcode: Rcode::NxDomain,
        ..has(clause, question, &[])
    }
}

impl Row {
    const fn and(self, additionals: &'static [&'static str]) -> Self {
        Self {
            additionals,
            ..self
        }
    }

    const fn then(self, name: &'static str) -> Self {
        Self {
            rcode: Rcode::Then(name),
            ..self
        }
    }
}

/// Checks a table, in the usual zone and in another one: no clause knows what `<zone>` is.
fn check(table: &[Row]) {
    for domain in ["cluster.local.", "k8s.corp.example."] {
        let (view, zone) = (view(domain), zone(domain));
        for row in table {
            let question = in_zone(row.question, domain);
            let asked = format!("{}, {question}", row.clause);
            let (name, record_type) = question.split_once(' ').unwrap();
            let name = Name::from_ascii(name).unwrap();
            let answer = resolve(&view, &zone, &name, record_type.parse().unwrap());
            row.check(&asked, domain, answer);
        }
    }
}

impl Row {
    fn check(&self, asked: &str, domain: &str, answer: Answer) {
        let (rcode, answers, additionals, soa) = match answer {
            Answer::Records {
                answers,
                additionals,
                chase,
            } => (said(&chase, self), answers, additionals, None),
            Answer::NoData { answers, soa } => (Rcode::NoError, answers, vec![], Some(soa)),
            Answer::NxDomain { answers, soa } => (Rcode::NxDomain, answers, vec![], Some(soa)),
            other => panic!("{asked}: {other:?}"),
        };
        assert_eq!(rcode, self.rcode, "{asked}: {answers:?}");
        assert_eq!(
            lines(&answers),
            wanted(self.answers, domain),
            "{asked}: answers"
        );
        assert_eq!(
            lines(&additionals),
            wanted(self.additionals, domain),
            "{asked}: additionals"
        );
        // RFC 2308, sections 2.1 and 2.2: who is told of nothing is told for how long.
        let wants_soa = rcode == Rcode::NxDomain || rcode == Rcode::NoError && answers.is_empty();
        assert!(soa.is_some() || !wants_soa, "{asked}: no SOA");
        if let Some(soa) = soa {
            let RData::SOA(data) = &soa.data else {
                panic!("{asked}: {soa}");
            };
            assert_eq!((soa.ttl, data.minimum), (2, 2), "{asked}: {soa}");
        }
    }
}

fn said(chase: &Option<Name>, row: &Row) -> Rcode {
    match (chase, &row.rcode) {
        (None, _) => Rcode::NoError,
        (Some(name), Rcode::Then(wanted)) if name.to_ascii() == *wanted => Rcode::Then(wanted),
        (Some(name), _) => panic!("{}: leads to {name}", row.question),
    }
}

fn in_zone(text: &str, domain: &str) -> String {
    text.replace('@', domain)
}

fn wanted(records: &[&str], domain: &str) -> BTreeSet<String> {
    records
        .iter()
        .map(|record| in_zone(record, domain))
        .collect()
}

/// Records as a set. None may stand there twice.
fn lines(records: &[Record]) -> BTreeSet<String> {
    let line = |record: &Record| {
        format!(
            "{} {} {} {} {}",
            record.name.to_ascii(),
            record.ttl,
            record.dns_class,
            record.record_type(),
            record.data
        )
    };
    let lines: BTreeSet<_> = records.iter().map(line).collect();
    assert_eq!(lines.len(), records.len(), "twice: {records:?}");
    lines
}

fn view(domain: &str) -> View {
    let mut mirror = Mirror::default();
    mirror
        .apply_snapshot(Snapshot {
            version: 7,
            services: services(domain.trim_end_matches('.')),
        })
        .unwrap();
    View {
        mirror,
        state: MirrorState::Fresh,
    }
}

fn zone(domain: &str) -> Zone {
    let prefixes = [
        "10.96.0.0/16",
        "10.244.0.0/16",
        "fd00:96::/112",
        "fd00:244::/64",
    ];
    Zone::new(domain)
        .unwrap()
        .with_reverse(prefixes.map(|prefix| prefix.parse().unwrap()).to_vec())
        .with_server_addresses(vec!["10.64.0.1".parse().unwrap()])
}

/// A cluster with a service of every kind, in namespace `prod`.
fn services(domain: &str) -> Vec<Service> {
    let mut web = cluster_ip(
        "prod",
        "web",
        &["10.96.0.7", "fd00:96::7"],
        &["10.244.0.5", "fd00:244::5"],
    );
    web.ports.push(port("https", Protocol::Tcp, 443));
    web.ports.push(port("http3", Protocol::Udp, 443));
    let mut unnamed = cluster_ip("prod", "unnamed", &["10.96.0.8"], &["10.244.0.6"]);
    unnamed.ports = vec![port("", Protocol::Tcp, 81)];
    let mut associations = cluster_ip("prod", "associations", &["10.96.0.12"], &[]);
    associations.ports = vec![port("diameter", Protocol::Sctp, 3868)];

    let members = [
        ("db-0", "10.244.0.10"),
        ("db-0", "fd00:244::10"),
        ("db-1", "10.244.0.11"),
        ("", "10.244.0.12"),
        ("db-3", "10.244.0.13"),
    ];
    let mut db = headless("prod", "db", &members);
    db.ports.push(port("metrics", Protocol::Tcp, 9187));
    for endpoint in &mut db.endpoints {
        endpoint.ports.push(port("metrics", Protocol::Tcp, 9187));
        endpoint.ready = endpoint.hostname.as_deref() != Some("db-3");
    }
    let mut starting = headless("prod", "starting", &[("s-0", "10.244.0.20")]);
    starting.endpoints[0].ready = false;
    let mut published = headless("prod", "published", &[("p-0", "10.244.0.21")]);
    published.endpoints[0].ready = false;
    published.publish_not_ready = true;
    let mut portless = headless("prod", "portless", &[("", "10.244.0.22")]);
    portless.ports.clear();
    portless.endpoints[0].ports.clear();
    let mut rolling = headless(
        "prod",
        "rolling",
        &[("", "10.244.0.23"), ("", "10.244.0.24")],
    );
    rolling.endpoints[0].ports = vec![port("pg", Protocol::Tcp, 5433)];
    rolling.endpoints[1].ports = vec![port("new", Protocol::Tcp, 5434)];
    let pair = [("pair", "10.244.0.25"), ("pair", "10.244.0.26")];
    let mut quiet = headless("prod", "quiet", &[("", "10.244.0.27")]);
    quiet.ports = vec![port("", Protocol::Tcp, 5432)];
    quiet.endpoints[0].ports = vec![port("", Protocol::Tcp, 5432)];

    vec![
        web,
        unnamed,
        associations,
        cluster_ip("prod", "four", &["10.96.0.9"], &["10.244.0.7"]),
        cluster_ip("prod", "six", &["fd00:96::a"], &["fd00:244::7"]),
        cluster_ip("prod", "idle", &["10.96.0.11"], &[]),
        db,
        starting,
        published,
        portless,
        rolling,
        quiet,
        headless("prod", "nobody", &[]),
        headless("prod", "six-only", &[("", "fd00:244::30")]),
        headless("prod", "pairs", &pair),
        external("prod", "outside", "www.example.com"),
        external("prod", "inside", &format!("web.prod.svc.{domain}")),
        external("prod", "absent", &format!("nope.prod.svc.{domain}")),
        external("prod", "digits", "192.0.2.53"),
    ]
}

#[test]
fn the_schema_version_is_told() {
    check(&[
        has(
            "2.2",
            "dns-version.@ TXT",
            &["dns-version.@ 5 IN TXT 1.1.0"],
        ),
        has(
            "2.1: case-insensitive",
            "DNS-Version.@ TXT",
            &["DNS-Version.@ 5 IN TXT 1.1.0"],
        ),
        nodata("2.2: no other record", "dns-version.@ A"),
    ]);
}
