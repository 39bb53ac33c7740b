//! Clause 2.4: headless services.

use super::*;

#[test]
fn a_headless_service_has_an_address_record_for_each_ready_endpoint() {
    check(&[
        has(
            "2.4.1",
            "db.prod.svc.@ A",
            &[
                "db.prod.svc.@ 5 IN A 10.244.0.10",
                "db.prod.svc.@ 5 IN A 10.244.0.11",
                "db.prod.svc.@ 5 IN A 10.244.0.12",
            ],
        ),
        has(
            "2.4.1",
            "db.prod.svc.@ AAAA",
            &["db.prod.svc.@ 5 IN AAAA fd00:244::10"],
        ),
        has(
            "2.4.1: ports don't matter",
            "portless.prod.svc.@ A",
            &["portless.prod.svc.@ 5 IN A 10.244.0.22"],
        ),
        nodata("2.4.1: one family", "six-only.prod.svc.@ A"),
        has(
            "2.4.1: one family",
            "six-only.prod.svc.@ AAAA",
            &["six-only.prod.svc.@ 5 IN AAAA fd00:244::30"],
        ),
        nxdomain("2.4.1: no endpoint", "nobody.prod.svc.@ A"),
        nxdomain("2.4.1: no ready endpoint", "starting.prod.svc.@ A"),
        nxdomain("2.4.1: no ready endpoint", "starting.prod.svc.@ SRV"),
        nxdomain("2.4.1: no ready endpoint", "starting.prod.svc.@ MX"),
        has(
            "2.1: ready by publishNotReadyAddresses",
            "published.prod.svc.@ A",
            &["published.prod.svc.@ 5 IN A 10.244.0.21"],
        ),
    ]);
}

#[test]
fn each_ready_endpoint_has_address_records_under_its_hostname() {
    check(&[
        has(
            "2.4.1: hostname",
            "db-0.db.prod.svc.@ A",
            &["db-0.db.prod.svc.@ 5 IN A 10.244.0.10"],
        ),
        has(
            "2.4.1: hostname",
            "db-0.db.prod.svc.@ AAAA",
            &["db-0.db.prod.svc.@ 5 IN AAAA fd00:244::10"],
        ),
        nodata("2.4.1: hostname", "db-1.db.prod.svc.@ AAAA"),
        has(
            "2.4.1: several addresses of one hostname",
            "pair.pairs.prod.svc.@ A",
            &[
                "pair.pairs.prod.svc.@ 5 IN A 10.244.0.25",
                "pair.pairs.prod.svc.@ 5 IN A 10.244.0.26",
            ],
        ),
        has(
            "2.1: system-assigned",
            "10-244-0-12.db.prod.svc.@ A",
            &["10-244-0-12.db.prod.svc.@ 5 IN A 10.244.0.12"],
        ),
        has(
            "2.1: system-assigned",
            "fd00-244--30.six-only.prod.svc.@ AAAA",
            &["fd00-244--30.six-only.prod.svc.@ 5 IN AAAA fd00:244::30"],
        ),
        nxdomain(
            "2.1: the hostname goes first",
            "10-244-0-10.db.prod.svc.@ A",
        ),
        has(
            "2.1: case-insensitive",
            "Db-0.DB.prod.svc.@ A",
            &["Db-0.DB.prod.svc.@ 5 IN A 10.244.0.10"],
        ),
        nxdomain("2.4.1: not ready", "db-3.db.prod.svc.@ A"),
        nxdomain("2.4.1: not ready", "s-0.starting.prod.svc.@ A"),
        has(
            "2.1: ready by publishNotReadyAddresses",
            "p-0.published.prod.svc.@ A",
            &["p-0.published.prod.svc.@ 5 IN A 10.244.0.21"],
        ),
        nxdomain("2.4.1", "db-7.db.prod.svc.@ A"),
        nxdomain("2.4.1: below its own service", "db-0.pairs.prod.svc.@ A"),
    ]);
}

#[test]
fn each_named_port_of_each_ready_endpoint_has_a_server_record() {
    check(&[
        has(
            "2.4.2",
            "_pg._tcp.db.prod.svc.@ SRV",
            &[
                "_pg._tcp.db.prod.svc.@ 5 IN SRV 0 33 5432 db-0.db.prod.svc.@",
                "_pg._tcp.db.prod.svc.@ 5 IN SRV 0 33 5432 db-1.db.prod.svc.@",
                "_pg._tcp.db.prod.svc.@ 5 IN SRV 0 33 5432 10-244-0-12.db.prod.svc.@",
            ],
        )
        .and(&[
            "db-0.db.prod.svc.@ 5 IN A 10.244.0.10",
            "db-0.db.prod.svc.@ 5 IN AAAA fd00:244::10",
            "db-1.db.prod.svc.@ 5 IN A 10.244.0.11",
            "10-244-0-12.db.prod.svc.@ 5 IN A 10.244.0.12",
        ]),
        has(
            "2.4.2: N endpoints by M ports",
            "_metrics._tcp.db.prod.svc.@ SRV",
            &[
                "_metrics._tcp.db.prod.svc.@ 5 IN SRV 0 33 9187 db-0.db.prod.svc.@",
                "_metrics._tcp.db.prod.svc.@ 5 IN SRV 0 33 9187 db-1.db.prod.svc.@",
                "_metrics._tcp.db.prod.svc.@ 5 IN SRV 0 33 9187 10-244-0-12.db.prod.svc.@",
            ],
        )
        .and(&[
            "db-0.db.prod.svc.@ 5 IN A 10.244.0.10",
            "db-0.db.prod.svc.@ 5 IN AAAA fd00:244::10",
            "db-1.db.prod.svc.@ 5 IN A 10.244.0.11",
            "10-244-0-12.db.prod.svc.@ 5 IN A 10.244.0.12",
        ]),
        has(
            "2.4.2: the port of the endpoint itself",
            "_pg._tcp.rolling.prod.svc.@ SRV",
            &["_pg._tcp.rolling.prod.svc.@ 5 IN SRV 0 100 5433 10-244-0-23.rolling.prod.svc.@"],
        )
        .and(&["10-244-0-23.rolling.prod.svc.@ 5 IN A 10.244.0.23"]),
        has(
            "2.1: ready by publishNotReadyAddresses",
            "_pg._tcp.published.prod.svc.@ SRV",
            &["_pg._tcp.published.prod.svc.@ 5 IN SRV 0 100 5432 p-0.published.prod.svc.@"],
        )
        .and(&["p-0.published.prod.svc.@ 5 IN A 10.244.0.21"]),
        nxdomain("2.4.2: of its protocol", "_pg._udp.db.prod.svc.@ SRV"),
        nxdomain("2.4.2", "_nope._tcp.db.prod.svc.@ SRV"),
        nxdomain("2.4.2: no endpoint", "_pg._tcp.nobody.prod.svc.@ SRV"),
        nxdomain("2.4.2: not ready", "_pg._tcp.starting.prod.svc.@ SRV"),
        nxdomain(
            "2.4.2: unnamed ports have none",
            "_._tcp.quiet.prod.svc.@ SRV",
        ),
        nxdomain(
            "2.4.2: unnamed ports have none",
            "_tcp.quiet.prod.svc.@ SRV",
        ),
    ]);
}

#[test]
fn the_address_of_a_ready_endpoint_leads_back_to_its_hostname() {
    check(&[
        has(
            "2.4.3",
            "10.0.244.10.in-addr.arpa. PTR",
            &["10.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.prod.svc.@"],
        ),
        has(
            "2.4.3",
            "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa. PTR",
            &[
                "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa. 5 IN PTR db-0.db.prod.svc.@",
            ],
        ),
        has(
            "2.4.3: system-assigned",
            "12.0.244.10.in-addr.arpa. PTR",
            &["12.0.244.10.in-addr.arpa. 5 IN PTR 10-244-0-12.db.prod.svc.@"],
        ),
        has(
            "2.1: ready by publishNotReadyAddresses",
            "21.0.244.10.in-addr.arpa. PTR",
            &["21.0.244.10.in-addr.arpa. 5 IN PTR p-0.published.prod.svc.@"],
        ),
        nxdomain("2.4.3: not ready", "13.0.244.10.in-addr.arpa. PTR"),
        nxdomain("2.4.3: not ready", "20.0.244.10.in-addr.arpa. PTR"),
    ]);
}
