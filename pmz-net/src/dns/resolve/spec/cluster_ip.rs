//! Clause 2.3: services with a ClusterIP.

use super::*;

#[test]
fn a_service_has_an_address_record_for_each_of_its_cluster_ips() {
    check(&[
        has(
            "2.3.1",
            "web.prod.svc.@ A",
            &["web.prod.svc.@ 5 IN A 10.96.0.7"],
        ),
        has(
            "2.3.1",
            "web.prod.svc.@ AAAA",
            &["web.prod.svc.@ 5 IN AAAA fd00:96::7"],
        ),
        has(
            "2.3.1: one family",
            "four.prod.svc.@ A",
            &["four.prod.svc.@ 5 IN A 10.96.0.9"],
        ),
        nodata("2.3.1: one family", "four.prod.svc.@ AAAA"),
        nodata("2.3.1: one family", "six.prod.svc.@ A"),
        has(
            "2.3.1: one family",
            "six.prod.svc.@ AAAA",
            &["six.prod.svc.@ 5 IN AAAA fd00:96::a"],
        ),
        has(
            "2.3.1: a ClusterIP is there whoever is behind it",
            "idle.prod.svc.@ A",
            &["idle.prod.svc.@ 5 IN A 10.96.0.11"],
        ),
        has(
            "2.1: case-insensitive",
            "WEB.Prod.sVc.@ A",
            &["WEB.Prod.sVc.@ 5 IN A 10.96.0.7"],
        ),
        nxdomain("2.3", "nope.prod.svc.@ A"),
        nxdomain("2.3: <ns> is a namespace", "web.nope.svc.@ A"),
        nxdomain("2.3: <service> is in <ns>", "prod.web.svc.@ A"),
    ]);
}

#[test]
fn each_named_port_of_a_service_has_a_server_record() {
    check(&[
        has(
            "2.3.2",
            "_http._tcp.web.prod.svc.@ SRV",
            &["_http._tcp.web.prod.svc.@ 5 IN SRV 0 100 80 web.prod.svc.@"],
        )
        .and(&[
            "web.prod.svc.@ 5 IN A 10.96.0.7",
            "web.prod.svc.@ 5 IN AAAA fd00:96::7",
        ]),
        has(
            "2.3.2: one number, two protocols",
            "_https._tcp.web.prod.svc.@ SRV",
            &["_https._tcp.web.prod.svc.@ 5 IN SRV 0 100 443 web.prod.svc.@"],
        )
        .and(&[
            "web.prod.svc.@ 5 IN A 10.96.0.7",
            "web.prod.svc.@ 5 IN AAAA fd00:96::7",
        ]),
        has(
            "2.3.2: one number, two protocols",
            "_http3._udp.web.prod.svc.@ SRV",
            &["_http3._udp.web.prod.svc.@ 5 IN SRV 0 100 443 web.prod.svc.@"],
        )
        .and(&[
            "web.prod.svc.@ 5 IN A 10.96.0.7",
            "web.prod.svc.@ 5 IN AAAA fd00:96::7",
        ]),
        has(
            "2.3.2: <proto>",
            "_diameter._sctp.associations.prod.svc.@ SRV",
            &["_diameter._sctp.associations.prod.svc.@ 5 IN SRV 0 100 3868 associations.prod.svc.@"],
        )
        .and(&["associations.prod.svc.@ 5 IN A 10.96.0.12"]),
        has(
            "2.3.2: one family",
            "_http._tcp.six.prod.svc.@ SRV",
            &["_http._tcp.six.prod.svc.@ 5 IN SRV 0 100 80 six.prod.svc.@"],
        )
        .and(&["six.prod.svc.@ 5 IN AAAA fd00:96::a"]),
        has(
            "2.1: case-insensitive",
            "_HTTP._Tcp.Web.prod.svc.@ SRV",
            &["_HTTP._Tcp.Web.prod.svc.@ 5 IN SRV 0 100 80 web.prod.svc.@"],
        )
        .and(&[
            "web.prod.svc.@ 5 IN A 10.96.0.7",
            "web.prod.svc.@ 5 IN AAAA fd00:96::7",
        ]),
        nxdomain("2.3.2", "_nope._tcp.web.prod.svc.@ SRV"),
        nxdomain("2.3.2: of its protocol", "_http._udp.web.prod.svc.@ SRV"),
        nxdomain("2.3.2: <proto>", "_http._icmp.web.prod.svc.@ SRV"),
        nxdomain("2.3.2: unnamed ports have none", "_._tcp.unnamed.prod.svc.@ SRV"),
        nxdomain("2.3.2: unnamed ports have none", "_81._tcp.unnamed.prod.svc.@ SRV"),
        nxdomain("2.3.2: unnamed ports have none", "_tcp.unnamed.prod.svc.@ SRV"),
    ]);
}

#[test]
fn a_cluster_ip_leads_back_to_its_service() {
    check(&[
        has(
            "2.3.3",
            "7.0.96.10.in-addr.arpa. PTR",
            &["7.0.96.10.in-addr.arpa. 5 IN PTR web.prod.svc.@"],
        ),
        has(
            "2.3.3",
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. PTR",
            &[
                "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa. 5 IN PTR web.prod.svc.@",
            ],
        ),
        has(
            "2.1: case-insensitive",
            "A.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.D.F.IP6.arpa. PTR",
            &[
                "A.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.D.F.IP6.arpa. 5 IN PTR six.prod.svc.@",
            ],
        ),
        nodata("2.3.3: no other record", "7.0.96.10.in-addr.arpa. A"),
        nxdomain("2.3.3: nobody's address", "99.0.96.10.in-addr.arpa. PTR"),
    ]);
}
