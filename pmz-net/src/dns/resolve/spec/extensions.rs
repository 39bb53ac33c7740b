//! What the specification leaves open (3, "Schema Extensions"): as CoreDNS has it, or as DNS itself wants it.

use super::*;

#[test]
fn a_service_itself_has_server_records_of_all_its_ports_as_coredns_has_it() {
    check(&[
        has(
            "3",
            "web.prod.svc.@ SRV",
            &[
                "web.prod.svc.@ 5 IN SRV 0 50 80 web.prod.svc.@",
                "web.prod.svc.@ 5 IN SRV 0 50 443 web.prod.svc.@",
            ],
        )
        .and(&[
            "web.prod.svc.@ 5 IN A 10.96.0.7",
            "web.prod.svc.@ 5 IN AAAA fd00:96::7",
        ]),
        has(
            "3: unnamed ones among them",
            "unnamed.prod.svc.@ SRV",
            &["unnamed.prod.svc.@ 5 IN SRV 0 100 81 unnamed.prod.svc.@"],
        )
        .and(&["unnamed.prod.svc.@ 5 IN A 10.96.0.8"]),
        has(
            "3",
            "quiet.prod.svc.@ SRV",
            &["quiet.prod.svc.@ 5 IN SRV 0 100 5432 10-244-0-27.quiet.prod.svc.@"],
        )
        .and(&["10-244-0-27.quiet.prod.svc.@ 5 IN A 10.244.0.27"]),
        nodata("3", "portless.prod.svc.@ SRV"),
        has(
            "3: so has an endpoint",
            "db-1.db.prod.svc.@ SRV",
            &[
                "db-1.db.prod.svc.@ 5 IN SRV 0 50 5432 db-1.db.prod.svc.@",
                "db-1.db.prod.svc.@ 5 IN SRV 0 50 9187 db-1.db.prod.svc.@",
            ],
        )
        .and(&["db-1.db.prod.svc.@ 5 IN A 10.244.0.11"]),
    ]);
}

#[test]
fn a_port_s_name_has_the_addresses_of_who_has_the_port_as_coredns_has_it() {
    check(&[
        has(
            "3",
            "_http._tcp.web.prod.svc.@ AAAA",
            &["_http._tcp.web.prod.svc.@ 5 IN AAAA fd00:96::7"],
        ),
        has(
            "3: of a headless service, those endpoints that have it",
            "_pg._tcp.rolling.prod.svc.@ A",
            &["_pg._tcp.rolling.prod.svc.@ 5 IN A 10.244.0.23"],
        ),
        has(
            "3: of a headless service, those endpoints that have it",
            "_new._tcp.rolling.prod.svc.@ A",
            &["_new._tcp.rolling.prod.svc.@ 5 IN A 10.244.0.24"],
        ),
        nodata("3", "_http._tcp.web.prod.svc.@ TXT"),
    ]);
}

#[test]
fn the_endpoints_of_every_service_have_names_and_lead_back_to_them_as_coredns_has_it() {
    check(&[
        has(
            "3",
            "10-244-0-5.web.prod.svc.@ A",
            &["10-244-0-5.web.prod.svc.@ 5 IN A 10.244.0.5"],
        ),
        has(
            "3",
            "fd00-244--5.web.prod.svc.@ AAAA",
            &["fd00-244--5.web.prod.svc.@ 5 IN AAAA fd00:244::5"],
        ),
        has(
            "3",
            "5.0.244.10.in-addr.arpa. PTR",
            &["5.0.244.10.in-addr.arpa. 5 IN PTR 10-244-0-5.web.prod.svc.@"],
        ),
    ]);
}

#[test]
fn a_name_with_others_below_it_is_there() {
    const CLAUSE: &str = "RFC 8020, section 2";
    check(&[
        nodata(CLAUSE, "svc.@ A"),
        nodata(CLAUSE, "prod.svc.@ A"),
        nodata(CLAUSE, "pod.@ A"),
        nodata(CLAUSE, "prod.pod.@ A"),
        nodata(CLAUSE, "_tcp.web.prod.svc.@ SRV"),
        nodata(CLAUSE, "_udp.web.prod.svc.@ SRV"),
        nodata(CLAUSE, "_tcp.db.prod.svc.@ A"),
        nodata(CLAUSE, "0.96.10.in-addr.arpa. PTR"),
        nxdomain(CLAUSE, "_sctp.web.prod.svc.@ SRV"),
        nxdomain(CLAUSE, "_tcp.nobody.prod.svc.@ SRV"),
        nxdomain(CLAUSE, "_tcp.starting.prod.svc.@ SRV"),
        nxdomain(CLAUSE, "nope.svc.@ A"),
        nxdomain(CLAUSE, "nope.pod.@ A"),
        nxdomain(CLAUSE, "a.b.web.prod.svc.@ A"),
        nxdomain(CLAUSE, "a.b.c.web.prod.svc.@ A"),
    ]);
}

#[test]
fn records_of_other_types_are_not_there() {
    const CLAUSE: &str = "RFC 2308, section 2.2";
    check(&[
        nodata(CLAUSE, "web.prod.svc.@ MX"),
        nodata(CLAUSE, "web.prod.svc.@ TXT"),
        nodata(CLAUSE, "web.prod.svc.@ HTTPS"),
        nodata(CLAUSE, "web.prod.svc.@ CNAME"),
        nodata(CLAUSE, "web.prod.svc.@ NS"),
        nodata(CLAUSE, "web.prod.svc.@ SOA"),
        nodata(CLAUSE, "db-0.db.prod.svc.@ PTR"),
        nodata(CLAUSE, "10-244-0-77.prod.pod.@ SRV"),
    ]);
}

#[test]
fn who_asks_for_all_records_gets_those_of_one_type() {
    const CLAUSE: &str = "RFC 8482, section 4.1";
    check(&[
        has(
            CLAUSE,
            "web.prod.svc.@ ANY",
            &["web.prod.svc.@ 5 IN A 10.96.0.7"],
        ),
        has(
            CLAUSE,
            "six.prod.svc.@ ANY",
            &["six.prod.svc.@ 5 IN AAAA fd00:96::a"],
        ),
        has(
            "RFC 1034, section 4.3.2: an alias is not followed",
            "inside.prod.svc.@ ANY",
            &["inside.prod.svc.@ 5 IN CNAME web.prod.svc.@"],
        ),
        has(
            CLAUSE,
            "7.0.96.10.in-addr.arpa. ANY",
            &["7.0.96.10.in-addr.arpa. 5 IN PTR web.prod.svc.@"],
        ),
        has(
            CLAUSE,
            "dns-version.@ ANY",
            &["dns-version.@ 5 IN TXT 1.1.0"],
        ),
        nodata(CLAUSE, "prod.svc.@ ANY"),
        nxdomain(CLAUSE, "nope.prod.svc.@ ANY"),
    ]);
}
