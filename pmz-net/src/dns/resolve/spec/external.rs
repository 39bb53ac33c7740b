//! Clause 2.5: services that are names outside; and 2.6, which is deprecated and required.

use super::*;

#[test]
fn an_external_name_is_an_alias() {
    check(&[
        has(
            "2.5",
            "outside.prod.svc.@ CNAME",
            &["outside.prod.svc.@ 5 IN CNAME www.example.com."],
        ),
        has(
            "2.5: asked for addresses",
            "outside.prod.svc.@ A",
            &["outside.prod.svc.@ 5 IN CNAME www.example.com."],
        )
        .then("www.example.com."),
        has(
            "2.5: and for anything else (RFC 1034, section 3.6.2)",
            "outside.prod.svc.@ MX",
            &["outside.prod.svc.@ 5 IN CNAME www.example.com."],
        )
        .then("www.example.com."),
        has(
            "2.1: case-insensitive",
            "OutSide.prod.svc.@ CNAME",
            &["OutSide.prod.svc.@ 5 IN CNAME www.example.com."],
        ),
        has(
            "2.5: within the cluster",
            "inside.prod.svc.@ A",
            &[
                "inside.prod.svc.@ 5 IN CNAME web.prod.svc.@",
                "web.prod.svc.@ 5 IN A 10.96.0.7",
            ],
        ),
        has(
            "2.5: within the cluster",
            "inside.prod.svc.@ AAAA",
            &[
                "inside.prod.svc.@ 5 IN CNAME web.prod.svc.@",
                "web.prod.svc.@ 5 IN AAAA fd00:96::7",
            ],
        ),
        has(
            "2.5: the alias is there, what it leads to has none",
            "inside.prod.svc.@ MX",
            &["inside.prod.svc.@ 5 IN CNAME web.prod.svc.@"],
        ),
        Row {
            rcode: Rcode::NxDomain,
            ..has(
                "2.5: the alias is there, what it leads to is not (RFC 6604, section 3)",
                "absent.prod.svc.@ A",
                &["absent.prod.svc.@ 5 IN CNAME nope.prod.svc.@"],
            )
        },
        has(
            "2.5: digits are a name's, too",
            "digits.prod.svc.@ CNAME",
            &["digits.prod.svc.@ 5 IN CNAME 192.0.2.53."],
        ),
        nxdomain(
            "2.5: nothing is below it",
            "_http._tcp.outside.prod.svc.@ SRV",
        ),
        nxdomain("2.5: nothing is below it", "_tcp.outside.prod.svc.@ SRV"),
        nxdomain("2.5: nothing is below it", "www.outside.prod.svc.@ A"),
    ]);
}

#[test]
fn a_pod_is_named_by_its_address() {
    check(&[
        has(
            "2.6",
            "10-244-0-77.prod.pod.@ A",
            &["10-244-0-77.prod.pod.@ 5 IN A 10.244.0.77"],
        ),
        has(
            "2.6: any values",
            "0-0-0-255.prod.pod.@ A",
            &["0-0-0-255.prod.pod.@ 5 IN A 0.0.0.255"],
        ),
        nxdomain("2.6: between 0 and 255", "10-244-0-256.prod.pod.@ A"),
        nodata("2.6", "10-244-0-77.prod.pod.@ AAAA"),
        has(
            "2.6, for the other family",
            "fd00-244--7.prod.pod.@ AAAA",
            &["fd00-244--7.prod.pod.@ 5 IN AAAA fd00:244::7"],
        ),
        nxdomain("2.6", "web-0.prod.pod.@ A"),
        nxdomain("2.6", "a.10-244-0-77.prod.pod.@ A"),
        nxdomain("2.6: <ns> is a namespace", "10-244-0-77.nope.pod.@ A"),
    ]);
}
