//! The specification, clause by clause, as a table of questions and answers.

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
    let mut published = starting.clone();
    published.key.name = "published".to_owned();
    published.publish_not_ready = true;
    let mut half = headless(
        "default",
        "half",
        &[("", "10.244.0.21"), ("", "10.244.0.22")],
    );
    half.endpoints[1].ready = false;
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
        headless("default", "nobody", &[]),
        starting,
        published,
        half,
        external("default", "outside", "www.example.org"),
        external("default", "alias", "echo.shop.svc.cluster.local"),
        external("default", "short-alias", "echo.shop"),
        external("default", "dangling", "nope.shop.svc.cluster.local"),
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
fn the_schema_version_is_told() {
    check(&[
        (
            "dns-version.cluster.local.",
            TEXT,
            "ok dns-version.cluster.local. TXT 1.1.0",
        ),
        ("dns-version.cluster.local.", A, "nodata"),
    ]);
}

#[test]
fn a_service_has_its_cluster_ips_in_every_form_of_its_name() {
    check(&[
        (
            "echo.default.svc.cluster.local.",
            A,
            "ok echo.default.svc.cluster.local. A 10.96.0.7",
        ),
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
        ("echo.default.svc", MX, "nodata"),
        ("echo.default.svc", RecordType::ANY, "nodata"),
        ("empty.default.svc", A, "ok empty.default.svc. A 10.96.0.9"),
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
fn what_is_ours_and_is_not_there_does_not_exist() {
    check(&[
        ("nope.default.svc.cluster.local.", A, "nx"),
        ("echo.nope.svc.cluster.local.", A, "nx"),
        ("nope.default.svc.", A, "nx"),
        ("nope.svc.cluster.local.", A, "nx"),
        ("default.svc.cluster.local.", A, "nodata"),
        ("svc.cluster.local.", A, "nodata"),
        ("a.b.c.echo.default.svc.", A, "nx"),
        ("a.b.echo.default.svc.", A, "nx"),
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
fn named_ports_have_srv_records() {
    check(&[
        (
            "_http._tcp.echo.default.svc.cluster.local.",
            SRV,
            "ok _http._tcp.echo.default.svc.cluster.local. SRV 80 echo.default.svc.cluster.local.",
        ),
        (
            "_dns._udp.echo.default.svc.",
            SRV,
            "ok _dns._udp.echo.default.svc. SRV 53 echo.default.svc.cluster.local.",
        ),
        (
            "_http._tcp.echo.default.svc.",
            A,
            "ok _http._tcp.echo.default.svc. A 10.96.0.7",
        ),
        ("_http._udp.echo.default.svc.", SRV, "nx"),
        ("_nope._tcp.echo.default.svc.", SRV, "nx"),
        ("_http._icmp.echo.default.svc.", SRV, "nx"),
        ("_._tcp.echo.default.svc.", SRV, "nx"),
        ("_tcp.echo.default.svc.", SRV, "nodata"),
        ("_sctp.echo.default.svc.", SRV, "nx"),
        (
            "echo.shop.svc.",
            SRV,
            "ok echo.shop.svc. SRV 80 echo.shop.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn srv_answers_bring_the_addresses_of_their_targets() {
    let name = Name::from_ascii("_pg._tcp.db.default.svc.").unwrap();
    let Answer::Records {
        answers,
        additionals,
        chase: None,
    } = resolve(&view(), &zone(), &name, SRV)
    else {
        panic!("records");
    };
    let text = |records: &[Record]| records.iter().map(line).collect::<Vec<_>>();
    assert_eq!(
        text(&answers),
        [
            "_pg._tcp.db.default.svc. SRV 5432 10-244-0-12.db.default.svc.cluster.local.",
            "_pg._tcp.db.default.svc. SRV 5432 db-0.db.default.svc.cluster.local.",
            "_pg._tcp.db.default.svc. SRV 5432 db-1.db.default.svc.cluster.local.",
        ]
    );
    assert_eq!(
        text(&additionals),
        [
            "db-0.db.default.svc.cluster.local. A 10.244.0.10",
            "db-1.db.default.svc.cluster.local. A 10.244.0.11",
            "db-0.db.default.svc.cluster.local. AAAA fd00:244::10",
            "10-244-0-12.db.default.svc.cluster.local. A 10.244.0.12",
        ]
    );
    let RData::SRV(srv) = &answers[0].data else {
        panic!("SRV");
    };
    assert_eq!((srv.priority, srv.weight), (0, 33));
}

#[test]
fn a_headless_service_has_its_ready_endpoints() {
    check(&[
        (
            "db.default.svc.",
            A,
            "ok db.default.svc. A 10.244.0.10, db.default.svc. A 10.244.0.11, db.default.svc. A 10.244.0.12",
        ),
        (
            "db.default.svc.",
            AAAA,
            "ok db.default.svc. AAAA fd00:244::10",
        ),
        ("db.default.", AAAA, "ok db.default. AAAA fd00:244::10"),
        ("half.default.svc.", A, "ok half.default.svc. A 10.244.0.21"),
        ("half.default.svc.", AAAA, "nodata"),
        ("10-244-0-22.half.default.svc.", A, "nx"),
        ("starting.default.svc.", A, "nx"),
        ("s-0.starting.default.svc.", A, "nx"),
        ("_pg._tcp.starting.default.svc.", SRV, "nx"),
        (
            "published.default.svc.",
            A,
            "ok published.default.svc. A 10.244.0.20",
        ),
        (
            "s-0.published.default.svc.",
            A,
            "ok s-0.published.default.svc. A 10.244.0.20",
        ),
        ("nobody.default.svc.", A, "nx"),
        ("_pg._tcp.nobody.default.svc.", SRV, "nx"),
    ]);
}

#[test]
fn endpoints_have_names_of_their_own() {
    check(&[
        (
            "db-0.db.default.svc.",
            A,
            "ok db-0.db.default.svc. A 10.244.0.10",
        ),
        (
            "db-0.db.default.svc.cluster.local.",
            AAAA,
            "ok db-0.db.default.svc.cluster.local. AAAA fd00:244::10",
        ),
        ("db-1.db.default.svc.", AAAA, "nodata"),
        ("db-7.db.default.svc.", A, "nx"),
        (
            "10-244-0-12.db.default.svc.",
            A,
            "ok 10-244-0-12.db.default.svc. A 10.244.0.12",
        ),
        ("10-244-0-10.db.default.svc.", A, "nx"),
        (
            "10-244-0-5.echo.default.svc.",
            A,
            "ok 10-244-0-5.echo.default.svc. A 10.244.0.5",
        ),
        (
            "db-0.db.default.svc.",
            SRV,
            "ok db-0.db.default.svc. SRV 5432 db-0.db.default.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn pods_are_named_by_their_addresses() {
    check(&[
        (
            "10-244-0-77.default.pod.cluster.local.",
            A,
            "ok 10-244-0-77.default.pod.cluster.local. A 10.244.0.77",
        ),
        (
            "fd00-244--7.shop.pod.cluster.local.",
            AAAA,
            "ok fd00-244--7.shop.pod.cluster.local. AAAA fd00:244::7",
        ),
        ("10-244-0-77.default.pod.cluster.local.", AAAA, "nodata"),
        ("web-0.default.pod.cluster.local.", A, "nx"),
        ("10-244-0-77.a.default.pod.cluster.local.", A, "nx"),
        ("default.pod.cluster.local.", A, "nodata"),
        ("nope.pod.cluster.local.", A, "nodata"),
        ("pod.cluster.local.", A, "nodata"),
    ]);
}

#[test]
fn addresses_lead_back_to_names() {
    check(&[
        (
            "7.0.96.10.in-addr.arpa.",
            PTR,
            "ok 7.0.96.10.in-addr.arpa. PTR echo.default.svc.cluster.local.",
        ),
        (
            "7.0.96.10.IN-ADDR.ARPA.",
            PTR,
            "ok 7.0.96.10.IN-ADDR.ARPA. PTR echo.default.svc.cluster.local.",
        ),
        ("7.0.96.10.in-addr.arpa.", A, "nodata"),
        (
            "10.0.244.10.in-addr.arpa.",
            PTR,
            "ok 10.0.244.10.in-addr.arpa. PTR db-0.db.default.svc.cluster.local.",
        ),
        (
            "5.0.244.10.in-addr.arpa.",
            PTR,
            "ok 5.0.244.10.in-addr.arpa. PTR 10-244-0-5.echo.default.svc.cluster.local., \
             5.0.244.10.in-addr.arpa. PTR 10-244-0-5.echo.shop.svc.cluster.local.",
        ),
        (
            "20.0.244.10.in-addr.arpa.",
            PTR,
            "ok 20.0.244.10.in-addr.arpa. PTR s-0.published.default.svc.cluster.local.",
        ),
        ("22.0.244.10.in-addr.arpa.", PTR, "nx"),
        ("99.0.96.10.in-addr.arpa.", PTR, "nx"),
        ("0.96.10.in-addr.arpa.", PTR, "nodata"),
        ("96.10.in-addr.arpa.", SOA, "ok 96.10.in-addr.arpa. SOA"),
        ("999.0.96.10.in-addr.arpa.", PTR, "elsewhere"),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.",
            PTR,
            "ok 7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. PTR echo.default.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn external_names_are_followed_within_the_cluster_and_handed_on_outside() {
    check(&[
        (
            "outside.default.svc.",
            A,
            "ok outside.default.svc. CNAME www.example.org., chase www.example.org.",
        ),
        (
            "outside.default.",
            A,
            "ok outside.default. CNAME www.example.org., chase www.example.org.",
        ),
        (
            "outside.default.svc.",
            ALIAS,
            "ok outside.default.svc. CNAME www.example.org.",
        ),
        (
            "alias.default.svc.",
            A,
            "ok alias.default.svc. CNAME echo.shop.svc.cluster.local., echo.shop.svc.cluster.local. A 10.96.0.8",
        ),
        (
            "alias.default.svc.",
            AAAA,
            "nodata alias.default.svc. CNAME echo.shop.svc.cluster.local.",
        ),
        (
            "short-alias.default.svc.",
            A,
            "ok short-alias.default.svc. CNAME echo.shop., echo.shop. A 10.96.0.8",
        ),
        (
            "dangling.default.svc.",
            A,
            "nx dangling.default.svc. CNAME nope.shop.svc.cluster.local.",
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
