//! Domains that lead to services: clause by clause, as a table of questions and answers. The clauses are those of
//! [`custom`](crate::dns::custom).

use super::*;
use crate::catalog::samples::key;
use crate::dns::{CustomDomain, DomainTable, SharedDomains};

fn custom(domain: &str, namespace: &str, service: &str, port: Option<&str>) -> CustomDomain {
    CustomDomain {
        domain: domain.parse().unwrap(),
        service: key(namespace, service),
        port: port.map(|port| port.parse().unwrap()),
    }
}

fn domains() -> SharedDomains {
    let all = vec![
        custom("www.dns.com", "default", "echo", None),
        custom("http.dns.com", "default", "echo", Some("http")),
        custom("unnamed.dns.com", "default", "echo", Some("81")),
        custom("db.test", "default", "db", Some("5432")),
        custom("starting.test", "default", "starting", None),
        custom("gone.test", "default", "gone", None),
        custom("outside.test", "default", "outside", None),
        custom("inside.test", "default", "alias", None),
        custom("www.example.org", "shop", "echo", None),
        custom("*.shop.test", "shop", "echo", None),
        custom("api.shop.test", "default", "echo", None),
        custom("*.deep.shop.test", "default", "empty", Some("http")),
        custom("shopify.dev", "shop", "echo", None),
        custom("other.cluster.local", "shop", "echo", None),
        custom("echo.default.svc", "shop", "echo", None),
    ];
    let domains = SharedDomains::default();
    domains.set(DomainTable::new(all, vec![]));
    domains
}

fn check(table: &[(&str, RecordType, &str)]) {
    let (view, zone) = (view(), zone().with_domains(domains()));
    for (name, record_type, expected) in table {
        assert_eq!(
            &asked(&view, &zone, name, *record_type),
            expected,
            "{name} {record_type}"
        );
    }
}

#[test]
fn an_exact_domain_has_the_services_addresses_under_the_name_that_was_asked() {
    check(&[
        ("www.dns.com.", A, "ok www.dns.com. A 10.96.0.7"),
        ("WwW.dNs.CoM.", A, "ok WwW.dNs.CoM. A 10.96.0.7"),
        ("www.dns.com", AAAA, "ok www.dns.com. AAAA fd00:96::7"),
        (
            "www.dns.com.",
            RecordType::ANY,
            "ok www.dns.com. A 10.96.0.7",
        ),
        (
            "db.test.",
            A,
            "ok db.test. A 10.244.0.10, db.test. A 10.244.0.11, db.test. A 10.244.0.12",
        ),
        ("db.test.", AAAA, "ok db.test. AAAA fd00:244::10"),
    ]);
}

#[test]
fn what_the_service_has_not_is_nodata_and_never_asked_outside() {
    check(&[
        ("www.example.org.", AAAA, "nodata"),
        ("www.dns.com.", MX, "nodata"),
        ("www.dns.com.", TEXT, "nodata"),
        ("www.dns.com.", RecordType::HTTPS, "nodata"),
        ("www.dns.com.", SERVER, "nodata"),
        ("www.dns.com.", SOA, "nodata"),
        ("www.dns.com.", ALIAS, "nodata"),
        ("gone.test.", A, "nodata"),
        ("gone.test.", SRV, "nodata"),
        ("starting.test.", A, "nodata"),
        ("starting.test.", SRV, "nodata"),
    ]);
}

#[test]
fn negative_answers_carry_a_short_lived_soa_of_the_domain() {
    let (view, zone) = (view(), zone().with_domains(domains()));
    for (name, apex) in [
        ("www.dns.com.", "www.dns.com."),
        ("a.b.shop.test.", "shop.test."),
        ("a.deep.shop.test.", "deep.shop.test."),
        ("_tcp.www.dns.com.", "www.dns.com."),
    ] {
        let answer = resolve(&view, &zone, &Name::from_ascii(name).unwrap(), MX);
        let Answer::NoData { soa, .. } = answer else {
            panic!("{name}: {answer:?}");
        };
        assert_eq!(soa.name, Name::from_ascii(apex).unwrap());
        assert!(soa.ttl <= 5);
    }
}

#[test]
fn a_wildcard_stands_for_one_or_more_labels_and_not_for_its_apex() {
    check(&[
        ("a.shop.test.", A, "ok a.shop.test. A 10.96.0.8"),
        ("A.b.Shop.test.", A, "ok A.b.Shop.test. A 10.96.0.8"),
        ("*.shop.test.", A, "ok *.shop.test. A 10.96.0.8"),
        ("shop.test.", A, "elsewhere"),
        ("ashop.test.", A, "elsewhere"),
        (
            "www.dns.com.shop.test.",
            A,
            "ok www.dns.com.shop.test. A 10.96.0.8",
        ),
    ]);
}

#[test]
fn an_exact_domain_goes_before_a_wildcard_and_a_longer_wildcard_before_a_shorter() {
    check(&[
        ("api.shop.test.", A, "ok api.shop.test. A 10.96.0.7"),
        ("x.deep.shop.test.", A, "ok x.deep.shop.test. A 10.96.0.9"),
        ("deep.shop.test.", A, "ok deep.shop.test. A 10.96.0.8"),
        // Other than RFC 4592: an exact domain hides nothing below it.
        ("v1.api.shop.test.", A, "ok v1.api.shop.test. A 10.96.0.8"),
    ]);
}

#[test]
fn what_is_below_an_exact_domain_is_left_alone() {
    check(&[
        ("a.www.dns.com.", A, "elsewhere"),
        ("dns.com.", A, "elsewhere"),
        ("com.", SOA, "elsewhere"),
        ("_acme-challenge.www.dns.com.", TEXT, "elsewhere"),
        ("_dmarc.www.dns.com.", TEXT, "elsewhere"),
    ]);
}

#[test]
fn named_ports_have_srv_records_below_the_domain_and_all_ports_at_it() {
    check(&[
        (
            "_http._tcp.www.dns.com.",
            SRV,
            "ok _http._tcp.www.dns.com. SRV 80 echo.default.svc.cluster.local.",
        ),
        (
            "_DNS._UDP.www.dns.com.",
            SRV,
            "ok _DNS._UDP.www.dns.com. SRV 53 echo.default.svc.cluster.local.",
        ),
        ("_dns._tcp.www.dns.com.", SRV, "nx"),
        ("_443._tcp.www.dns.com.", RecordType::TLSA, "nx"),
        ("_tcp.www.dns.com.", SRV, "nodata"),
        ("_sctp.www.dns.com.", SRV, "nx"),
        ("_http._tcp.gone.test.", SRV, "nx"),
        (
            "www.dns.com.",
            SRV,
            "ok www.dns.com. SRV 53 echo.default.svc.cluster.local., \
             www.dns.com. SRV 80 echo.default.svc.cluster.local., \
             www.dns.com. SRV 81 echo.default.svc.cluster.local.",
        ),
        (
            "_http._tcp.a.shop.test.",
            SRV,
            "ok _http._tcp.a.shop.test. SRV 80 echo.shop.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn a_port_leaves_its_own_srv_records_alone_and_addresses_as_they_are() {
    check(&[
        (
            "http.dns.com.",
            SRV,
            "ok http.dns.com. SRV 80 echo.default.svc.cluster.local.",
        ),
        ("_dns._udp.http.dns.com.", SRV, "nx"),
        ("_udp.http.dns.com.", SRV, "nx"),
        ("http.dns.com.", A, "ok http.dns.com. A 10.96.0.7"),
        (
            "unnamed.dns.com.",
            SRV,
            "ok unnamed.dns.com. SRV 81 echo.default.svc.cluster.local.",
        ),
        (
            "_pg._tcp.db.test.",
            SRV,
            "ok _pg._tcp.db.test. SRV 5432 10-244-0-12.db.default.svc.cluster.local., \
             _pg._tcp.db.test. SRV 5432 db-0.db.default.svc.cluster.local., \
             _pg._tcp.db.test. SRV 5432 db-1.db.default.svc.cluster.local.",
        ),
        (
            "x.deep.shop.test.",
            SRV,
            "ok x.deep.shop.test. SRV 80 empty.default.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn a_service_port_is_joined_with_its_endpoints_ports_by_name() {
    let mut service = headless("default", "web", &[("", "10.244.0.30")]);
    service.ports = vec![
        port("http", Protocol::Tcp, 80),
        port("metrics", Protocol::Tcp, 90),
    ];
    service.endpoints[0].ports = vec![
        port("http", Protocol::Tcp, 8080),
        port("metrics", Protocol::Tcp, 80),
    ];
    let mut mirror = Mirror::default();
    let services = vec![service];
    mirror
        .apply_snapshot(Snapshot {
            version: 1,
            services,
        })
        .unwrap();
    let view = View {
        mirror,
        state: MirrorState::Fresh,
    };
    let domains = SharedDomains::default();
    let all = vec![custom("web.test", "default", "web", Some("80"))];
    domains.set(DomainTable::new(all, vec![]));
    assert_eq!(
        asked(&view, &zone().with_domains(domains), "web.test.", SRV),
        "ok web.test. SRV 8080 10-244-0-30.web.default.svc.cluster.local."
    );
}

#[test]
fn external_names_are_followed_also_to_another_domain() {
    check(&[
        (
            "outside.test.",
            A,
            "ok outside.test. CNAME www.example.org., www.example.org. A 10.96.0.8",
        ),
        (
            "outside.test.",
            ALIAS,
            "ok outside.test. CNAME www.example.org.",
        ),
        (
            "inside.test.",
            A,
            "ok inside.test. CNAME echo.shop.svc.cluster.local., echo.shop.svc.cluster.local. A 10.96.0.8",
        ),
        (
            "outside.default.svc.",
            A,
            "ok outside.default.svc. CNAME www.example.org., www.example.org. A 10.96.0.8",
        ),
    ]);
    let domains = SharedDomains::default();
    let itself = custom("www.example.org", "default", "outside", None);
    domains.set(DomainTable::new(vec![itself], vec![]));
    let zone = zone().with_domains(domains);
    assert_eq!(asked(&view(), &zone, "www.example.org.", A), "servfail");
}

#[test]
fn our_own_zone_goes_first_and_short_names_after() {
    check(&[
        ("echo.default.svc.", A, "ok echo.default.svc. A 10.96.0.7"),
        ("other.cluster.local.", A, "elsewhere"),
        ("shopify.dev.", A, "ok shopify.dev. A 10.96.0.8"),
        (
            "7.0.96.10.in-addr.arpa.",
            PTR,
            "ok 7.0.96.10.in-addr.arpa. PTR echo.default.svc.cluster.local.",
        ),
    ]);
}

#[test]
fn the_widest_wildcard_leaves_addresses_and_the_api_server_alone() {
    let domains = SharedDomains::default();
    let never = vec![Name::from_ascii("api.example.").unwrap()];
    let all = vec![custom("*", "default", "echo", None)];
    domains.set(DomainTable::new(all, never));
    let zone = zone().with_domains(domains);
    for (name, record_type, expected) in [
        ("a.example.", A, "ok a.example. A 10.96.0.7"),
        ("com.", A, "ok com. A 10.96.0.7"),
        ("API.example.", A, "elsewhere"),
        ("8.8.8.8.in-addr.arpa.", PTR, "elsewhere"),
        ("echo.shop.svc.", A, "ok echo.shop.svc. A 10.96.0.8"),
        ("nope.svc.", A, "nx"),
        ("other.cluster.local.", A, "elsewhere"),
        (".", SERVER, "elsewhere"),
    ] {
        assert_eq!(
            asked(&view(), &zone, name, record_type),
            expected,
            "{name} {record_type}"
        );
    }
}

#[test]
fn domains_follow_their_service_and_the_tunnel() {
    let zone = zone().with_domains(domains());
    let mut view = view();
    let ask = |view: &View| asked(view, &zone, "www.dns.com.", A);
    let mut moved = cluster_ip("default", "echo", &["10.96.0.77"], &[]);
    let mut version = view.mirror.version();
    let mut step = |view: &mut View, upserted, removed| {
        version += 1;
        let delta = crate::catalog::Delta {
            version,
            upserted,
            removed,
        };
        view.mirror.apply_delta(delta).unwrap();
    };
    step(&mut view, vec![moved.clone()], vec![]);
    assert_eq!(ask(&view), "ok www.dns.com. A 10.96.0.77");
    step(&mut view, vec![], vec![moved.key.clone()]);
    assert_eq!(ask(&view), "nodata");
    moved = external("default", "echo", "www.example.net");
    step(&mut view, vec![moved], vec![]);
    assert_eq!(
        ask(&view),
        "ok www.dns.com. CNAME www.example.net., chase www.example.net."
    );
    view.state = MirrorState::Stale;
    assert_eq!(ask(&view), "servfail");
    assert_eq!(asked(&view, &zone, "dns.com.", A), "elsewhere");
}

#[test]
fn a_resolver_that_sorts_questions_is_told_each_name_once() {
    let domains = domains();
    let mut changes = domains.subscribe();
    let all = vec![
        custom("*.shop.test", "shop", "echo", None),
        custom("shop.test", "default", "echo", None),
        custom("www.dns.com", "default", "echo", None),
    ];
    domains.set(DomainTable::new(all, vec![]));
    assert!(changes.has_changed().unwrap());
    let routed = changes.borrow_and_update().routed();
    let routed: Vec<String> = routed.iter().map(Name::to_ascii).collect();
    assert_eq!(routed, ["www.dns.com.", "shop.test."]);
}
