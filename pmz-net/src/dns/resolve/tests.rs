//! What is ours beside the specification: other forms of its names, and what is left to others.

mod domains;

use super::*;
use crate::catalog::mirror::Mirror;
use crate::catalog::samples::{cluster_ip, endpoint, external, headless, key, port};
use crate::catalog::{Protocol, Service, Snapshot};
use crate::dns::{CustomDomain, DomainTable, SharedDomains};

fn services() -> Vec<Service> {
    let mut echo = cluster_ip(
        "default",
        "echo",
        &["10.96.0.7", "fd00:96::7"],
        &["10.244.0.5"],
    );
    echo.ports.push(port("dns", Protocol::Udp, 53));
    echo.ports.push(port("", Protocol::Tcp, 81));
    let db = [
        ("db-0", "10.244.0.10"),
        ("db-1", "10.244.0.11"),
        ("db-0", "fd00:244::10"),
        ("", "10.244.0.12"),
    ];
    let mut starting = headless("default", "starting", &[("s-0", "10.244.0.20")]);
    starting.endpoints[0].ready = false;
    vec![
        echo,
        cluster_ip(
            "shop",
            "echo",
            &["10.96.0.8"],
            &["10.244.0.5", "10.244.0.6"],
        ),
        cluster_ip("default", "empty", &["10.96.0.9"], &[]),
        cluster_ip("dev", "shopify", &["10.96.0.10"], &[]),
        headless("default", "db", &db),
        starting,
        external("default", "outside", "www.example.org"),
        external("default", "alias", "echo.shop.svc.cluster.local"),
        external("default", "short-alias", "echo.shop"),
        external("default", "circle", "elcric.default.svc"),
        external("default", "elcric", "circle.default.svc.cluster.local"),
        external("default", "broken", &"x".repeat(64)),
    ]
}

fn view() -> View {
    let mut mirror = Mirror::default();
    mirror
        .apply_snapshot(Snapshot {
            version: 7,
            services: services(),
        })
        .unwrap();
    View {
        mirror,
        state: MirrorState::Fresh,
    }
}

fn zone() -> Zone {
    let prefixes = [
        "10.96.0.0/16",
        "10.244.0.0/16",
        "fd00:96::/112",
        "fd00:244::/64",
    ];
    Zone::new("cluster.local")
        .unwrap()
        .with_reverse(prefixes.map(|prefix| prefix.parse().unwrap()).to_vec())
        .with_server_addresses(vec!["10.64.0.1".parse().unwrap()])
}

fn line(record: &Record) -> String {
    let name = record.name.to_ascii();
    match &record.data {
        RData::A(address) => format!("{name} A {address}"),
        RData::AAAA(address) => format!("{name} AAAA {address}"),
        RData::CNAME(target) => format!("{name} CNAME {}", target.0),
        RData::PTR(target) => format!("{name} PTR {}", target.0),
        RData::NS(target) => format!("{name} NS {}", target.0),
        RData::SRV(srv) => format!("{name} SRV {} {}", srv.port, srv.target),
        RData::TXT(text) => format!("{name} TXT {text}"),
        RData::SOA(_) => format!("{name} SOA"),
        other => format!("{name} {other:?}"),
    }
}

/// An answer in one line: `ok`, `nodata`, `nx`, `servfail` or `elsewhere`, and the answer section.
fn asked(view: &View, zone: &Zone, name: &str, record_type: RecordType) -> String {
    let lines = |records: &[Record]| records.iter().map(line).collect::<Vec<_>>().join(", ");
    let text = match resolve(view, zone, &Name::from_ascii(name).unwrap(), record_type) {
        Answer::Records {
            answers,
            chase: None,
            ..
        } => format!("ok {}", lines(&answers)),
        Answer::Records {
            answers,
            chase: Some(name),
            ..
        } => {
            format!("ok {}, chase {name}", lines(&answers))
        }
        Answer::NoData { answers, .. } => format!("nodata {}", lines(&answers)),
        Answer::NxDomain { answers, .. } => format!("nx {}", lines(&answers)),
        Answer::ServFail => "servfail".to_owned(),
        Answer::NotOurs => "elsewhere".to_owned(),
    };
    text.trim_end().to_owned()
}

fn check(table: &[(&str, RecordType, &str)]) {
    let (view, zone) = (view(), zone());
    for (name, record_type, expected) in table {
        assert_eq!(
            &asked(&view, &zone, name, *record_type),
            expected,
            "{name} {record_type}"
        );
    }
}

use RecordType::{A, AAAA, CNAME as ALIAS, MX, NS as SERVER, PTR, SOA, SRV, TXT as TEXT};

#[test]
fn names_are_answered_in_every_form_and_lead_to_the_full_one() {
    check(&[
        (
            "echo.default.svc.cluster.local",
            A,
            "ok echo.default.svc.cluster.local. A 10.96.0.7",
        ),
        ("echo.default.svc.", A, "ok echo.default.svc. A 10.96.0.7"),
        ("echo.default.", A, "ok echo.default. A 10.96.0.7"),
        ("echo.default", AAAA, "ok echo.default. AAAA fd00:96::7"),
        ("echo.shop", A, "ok echo.shop. A 10.96.0.8"),
        ("echo.shop.svc", AAAA, "nodata"),
        ("db.default.", AAAA, "ok db.default. AAAA fd00:244::10"),
        (
            "_dns._udp.echo.default.svc.",
            SRV,
            "ok _dns._udp.echo.default.svc. SRV 53 echo.default.svc.cluster.local.",
        ),
        (
            "echo.shop.",
            SRV,
            "ok echo.shop. SRV 80 echo.shop.svc.cluster.local.",
        ),
        ("nope.default.svc.", A, "nx"),
        ("default.svc.", A, "nodata"),
    ]);
}

#[test]
fn letter_case_does_not_matter_and_is_kept() {
    check(&[
        (
            "eChO.DEFAULT.sVc.Cluster.LOCAL.",
            A,
            "ok eChO.DEFAULT.sVc.Cluster.LOCAL. A 10.96.0.7",
        ),
        ("ECHO.Default.", A, "ok ECHO.Default. A 10.96.0.7"),
        (
            "DB-0.db.default.SVC.",
            A,
            "ok DB-0.db.default.SVC. A 10.244.0.10",
        ),
        (
            "_HTTP._Tcp.echo.shop.svc.",
            SRV,
            "ok _HTTP._Tcp.echo.shop.svc. SRV 80 echo.shop.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    check(&[
        ("example.org.", A, "elsewhere"),
        ("shopify.com.", A, "elsewhere"),
        ("nope.dev.", A, "elsewhere"),
        ("nope.default.", A, "elsewhere"),
        ("default.", A, "elsewhere"),
        ("dev.", SOA, "elsewhere"),
        (".", SERVER, "elsewhere"),
        ("www.shopify.dev.", A, "elsewhere"),
        ("cluster.local.", A, "elsewhere"),
        ("other.cluster.local.", A, "elsewhere"),
        ("xsvc.cluster.local.", A, "elsewhere"),
        ("7.0.97.10.in-addr.arpa.", PTR, "elsewhere"),
        ("10.in-addr.arpa.", PTR, "elsewhere"),
        ("1.0.0.127.in-addr.arpa.", PTR, "elsewhere"),
    ]);
    let off = zone().with_short_names(false);
    assert_eq!(asked(&view(), &off, "shopify.dev.", A), "elsewhere");
    assert_eq!(
        asked(&view(), &zone(), "shopify.dev.", A),
        "ok shopify.dev. A 10.96.0.10"
    );
}

#[test]
fn bare_names_are_services_of_the_namespaces_that_are_searched_in_their_order() {
    let bare = |namespaces: &[&str], name: &str| {
        let namespaces = namespaces.iter().map(|it| (*it).to_owned()).collect();
        asked(&view(), &zone().with_search(namespaces), name, A)
    };
    assert_eq!(bare(&[], "echo."), "elsewhere");
    assert_eq!(bare(&["shop"], "Echo."), "ok Echo. A 10.96.0.8");
    assert_eq!(bare(&["default", "shop"], "echo."), "ok echo. A 10.96.0.7");
    assert_eq!(
        bare(&["dev", "shop", "default"], "echo."),
        "ok echo. A 10.96.0.8"
    );
    for name in ["stranger.", "default.", "localhost.", ".", "www.echo."] {
        assert_eq!(bare(&["shop", "default"], name), "elsewhere", "{name}");
    }
    assert_eq!(
        asked(
            &view(),
            &zone().with_search(vec!["dev".into()]),
            "shopify.",
            AAAA
        ),
        "nodata"
    );
    // Below the cluster's own domain nothing is anybody else's.
    let echo = Zone::new("echo").unwrap().with_search(vec!["shop".into()]);
    assert_eq!(asked(&view(), &echo, "echo.", A), "elsewhere");
}

#[test]
fn a_bare_name_that_the_user_leads_elsewhere_is_not_searched_for() {
    let domains = SharedDomains::default();
    let custom = CustomDomain {
        domain: "echo".parse().unwrap(),
        service: key("dev", "shopify"),
        port: None,
    };
    domains.set(DomainTable::new(vec![custom], vec![]));
    let zone = zone()
        .with_search(vec!["shop".into()])
        .with_domains(domains);
    assert_eq!(asked(&view(), &zone, "echo.", A), "ok echo. A 10.96.0.10");
    let name = |text| Name::from_ascii(text).unwrap();
    assert!(!zone.is_short(&name("echo.")) && zone.is_short(&name("other.")));
}

#[test]
fn an_address_of_several_services_endpoints_leads_back_to_all_of_them() {
    check(&[
        (
            "5.0.244.10.in-addr.arpa.",
            PTR,
            "ok 5.0.244.10.in-addr.arpa. PTR 10-244-0-5.echo.default.svc.cluster.local., \
             5.0.244.10.in-addr.arpa. PTR 10-244-0-5.echo.shop.svc.cluster.local.",
        ),
        ("999.0.96.10.in-addr.arpa.", PTR, "elsewhere"),
    ]);
}

#[test]
fn external_names_are_followed_in_every_form_and_not_in_circles() {
    check(&[
        (
            "outside.default.",
            A,
            "ok outside.default. CNAME www.example.org., chase www.example.org.",
        ),
        (
            "short-alias.default.svc.",
            A,
            "ok short-alias.default.svc. CNAME echo.shop., echo.shop. A 10.96.0.8",
        ),
        ("circle.default.svc.", A, "servfail"),
        ("broken.default.svc.", A, "servfail"),
    ]);
}

#[test]
fn negative_answers_carry_a_short_lived_soa_of_their_zone() {
    let (view, zone) = (view(), zone());
    for (name, apex) in [
        ("nope.default.svc.cluster.local.", "svc.cluster.local."),
        ("nope.default.svc.", "svc."),
        ("web.default.pod.cluster.local.", "pod.cluster.local."),
        ("99.0.96.10.in-addr.arpa.", "96.10.in-addr.arpa."),
    ] {
        let answer = resolve(&view, &zone, &Name::from_ascii(name).unwrap(), A);
        let Answer::NxDomain { soa, .. } = answer else {
            panic!("{name}: {answer:?}");
        };
        assert_eq!(soa.name, Name::from_ascii(apex).unwrap());
        let RData::SOA(data) = &soa.data else {
            panic!("SOA");
        };
        assert_eq!(data.serial, 7);
        assert!(data.minimum <= 5 && soa.ttl <= 5);
    }
}

#[test]
fn zones_tell_their_soa_and_their_server() {
    check(&[
        ("svc.cluster.local.", SOA, "ok svc.cluster.local. SOA"),
        ("svc.", SOA, "ok svc. SOA"),
        ("96.10.in-addr.arpa.", SOA, "ok 96.10.in-addr.arpa. SOA"),
        (
            "svc.cluster.local.",
            SERVER,
            "ok svc.cluster.local. NS ns.dns.cluster.local.",
        ),
        (
            "ns.dns.cluster.local.",
            A,
            "ok ns.dns.cluster.local. A 10.64.0.1",
        ),
        ("ns.dns.cluster.local.", AAAA, "nodata"),
    ]);
}

#[test]
fn while_the_tunnel_is_away_our_names_fail_and_others_are_left_alone() {
    let mut view = view();
    view.state = MirrorState::Stale;
    let zone = zone();
    for name in [
        "echo.default.svc.cluster.local.",
        "nope.default.svc.",
        "echo.default.",
        "outside.default.svc.",
        "10-244-0-7.default.pod.cluster.local.",
        "7.0.96.10.in-addr.arpa.",
    ] {
        assert_eq!(asked(&view, &zone, name, A), "servfail", "{name}");
    }
    for name in ["example.org.", "nope.default.", "1.2.0.192.in-addr.arpa."] {
        assert_eq!(asked(&view, &zone, name, A), "elsewhere", "{name}");
    }
    let empty = View::default();
    assert_eq!(asked(&empty, &zone, "echo.default.svc.", A), "servfail");
    assert_eq!(asked(&empty, &zone, "echo.default.", A), "elsewhere");
}

#[test]
fn another_cluster_domain_is_another_zone() {
    let zone = Zone::new("k8s.corp.example.").unwrap();
    let view = view();
    let expected = "ok echo.default.svc.k8s.corp.example. A 10.96.0.7";
    assert_eq!(
        asked(&view, &zone, "echo.default.svc.k8s.corp.example.", A),
        expected
    );
    assert_eq!(
        asked(&view, &zone, "echo.default.svc.cluster.local.", A),
        "elsewhere"
    );
    assert_eq!(asked(&view, &zone, "www.corp.example.", A), "elsewhere");
    // Neither is the domain a service's short name, nor what is right below it.
    let mut view = view;
    let services = vec![cluster_ip("local", "cluster", &["10.96.0.1"], &[])];
    let snapshot = Snapshot {
        version: 8,
        services,
    };
    view.mirror.apply_snapshot(snapshot).unwrap();
    for domain in ["cluster.local.", "local."] {
        let zone = Zone::new(domain).unwrap();
        let name = Name::from_ascii("cluster.local.").unwrap();
        assert_eq!(asked(&view, &zone, "cluster.local.", A), "elsewhere");
        assert!(!zone.is_short(&name), "{domain}");
    }
    for bad in ["", ".", "a..b", &"x".repeat(64)] {
        assert!(Zone::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn shuffling_moves_addresses_and_keeps_what_leads_to_them() {
    let addresses: Vec<_> = (1..=50).map(|last| format!("10.244.1.{last}")).collect();
    let mut many = headless("default", "many", &[]);
    many.endpoints = addresses.iter().map(|address| endpoint(address)).collect();
    let services = vec![many, external("default", "alias", "many.default.svc")];
    let mut view = View {
        state: MirrorState::Fresh,
        ..View::default()
    };
    view.mirror
        .apply_snapshot(Snapshot {
            version: 1,
            services,
        })
        .unwrap();
    let name = Name::from_ascii("alias.default.svc.").unwrap();
    let ordered = resolve(&view, &zone(), &name, A);
    let mut shuffled = ordered.clone();
    shuffled.shuffle(&mut rand::rng());
    assert_ne!(ordered, shuffled);
    let (Answer::Records { answers: mut a, .. }, Answer::Records { answers: mut b, .. }) =
        (ordered, shuffled)
    else {
        panic!("records");
    };
    assert_eq!((a.len(), &a[0]), (51, &b[0]));
    a.sort();
    b.sort();
    assert_eq!(a, b);
}
