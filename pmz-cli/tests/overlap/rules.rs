//! Policy rules that are asked before the main table.

use std::process::Command;

use pmz_net::route::{Netlink, OverlapPolicy};

use crate::bench::{bench, wishes};
use crate::netns::{in_netns, ip, link};
use crate::{BENCH, SERVICES, SERVICES6, USER};

/// A machine's rules and routes, and whether packets to 10.96.0.0/16 can be led into a tunnel by the main
/// table.
struct Case {
    lines: &'static [&'static str],
    works: bool,
    says: &'static str,
}

const WG_QUICK: &[&str] = &[
    "route add default dev wg0 table 51820",
    "rule add not fwmark 0xca6c table 51820 pref 32765",
    "rule add table main suppress_prefixlength 0 pref 32764",
];

const CASES: &[Case] = &[
    Case {
        lines: WG_QUICK,
        works: true,
        says: "",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 51820",
            "rule add table 51820 pref 32764",
        ],
        works: false,
        says: "10.96.0.0/16 goes to wg0 by rule 32764 (table 51820), which is asked before the main table",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 51820",
            "rule add not fwmark 0xca6c table 51820 pref 100",
        ],
        works: false,
        says: "by rule 100 (table 51820)",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add to 10.0.0.0/8 table 7 pref 100",
        ],
        works: false,
        says: "goes to wg0 by rule 100",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add to 10.97.0.0/16 table 7 pref 100",
        ],
        works: true,
        says: "",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add not to 10.0.0.0/8 table 7 pref 100",
        ],
        works: true,
        says: "",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add fwmark 0x1 table 7 pref 100",
        ],
        works: true,
        says: "packets with mark 0x1: 10.96.0.0/16 goes to wg0",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add fwmark 0x0/0xff table 7 pref 100",
        ],
        works: false,
        says: "by rule 100",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add from 192.0.2.0/24 table 7 pref 100",
        ],
        works: true,
        says: "packets from 192.0.2.0/24",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add iif eth0 table 7 pref 100",
        ],
        works: true,
        says: "packets that come in by eth0",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add iif lo table 7 pref 100",
        ],
        works: false,
        says: "by rule 100",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add uidrange 1000-1000 table 7 pref 100",
        ],
        works: false,
        says: "by rule 100",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add uidrange 0-99 table 7 pref 100",
        ],
        works: true,
        says: "packets of users 0 to 99",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "route add throw 10.0.0.0/8 table 7",
            "rule add table 7 pref 100",
        ],
        works: true,
        says: "",
    },
    Case {
        lines: &[
            "route add 192.168.0.0/16 dev wg0 table 7",
            "rule add table 7 pref 100",
        ],
        works: true,
        says: "",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add table 7 suppress_prefixlength 0 pref 100",
        ],
        works: true,
        says: "",
    },
    Case {
        lines: &[
            "route add default dev wg0 table 7",
            "rule add table 7 pref 100",
            "rule add goto 32766 pref 50",
        ],
        works: true,
        says: "",
    },
    Case {
        lines: &["rule add prohibit pref 100"],
        works: false,
        says: "10.96.0.0/16 is prohibited by rule 100",
    },
    Case {
        lines: &["rule add blackhole to 10.0.0.0/8 pref 100"],
        works: false,
        says: "10.96.0.0/16 is blackholed by rule 100",
    },
    Case {
        lines: &["rule add prohibit pref 40000"],
        works: true,
        says: "",
    },
];

#[test]
fn rules_are_judged_as_the_kernel_follows_them() {
    for case in CASES {
        in_netns("rules", move || async move {
            link("eth0");
            link("wg0");
            ip(&["route add default dev eth0"]);
            ip(case.lines);
            let bench = bench(BENCH.0, BENCH.1).await;
            // Whatever the judgement, the kernel is asked what a route in the main table would bring.
            let said = if case.works {
                let plan = bench
                    .is_routed(&wishes(&[SERVICES], OverlapPolicy::Refuse))
                    .await;
                plan.clashes.to_string()
            } else {
                let preferred = wishes(&[SERVICES], OverlapPolicy::PreferCluster);
                let said = bench.is_refused(&preferred).await;
                let netlink = Netlink::open().unwrap();
                let net = SERVICES.parse().unwrap();
                netlink
                    .add_route(bench.tun.index, net, None, None)
                    .await
                    .unwrap();
                said
            };
            let lines = case.lines;
            assert!(said.contains(case.says), "{lines:?}: {said}");
            assert!(
                !case.says.is_empty() || said.is_empty(),
                "{lines:?}: {said}"
            );
            let get = format!("route get 10.96.0.1 uid {USER}");
            let output = Command::new("ip").args(get.split(' ')).output().unwrap();
            let found = String::from_utf8(output.stdout).unwrap();
            let arrives = found.contains(&format!("dev {} ", bench.tun.name));
            assert_eq!(arrives, case.works, "{lines:?}: {found}");
            bench.end().await;
        });
    }
}

#[test]
fn rules_of_ipv6_are_judged_apart_from_those_of_ipv4() {
    in_netns("rules of IPv6", || async {
        link("wg0");
        ip(&[
            "-6 route add default dev wg0 table 7",
            "-6 rule add table 7 pref 100",
        ]);
        let bench = bench(BENCH.0, BENCH.1).await;
        let said = bench
            .is_refused(&wishes(&[SERVICES6], OverlapPolicy::PreferCluster))
            .await;
        assert!(
            said.contains("fd00:10:96::/108 goes to wg0 by rule 100 (table 7)"),
            "{said}"
        );
        bench
            .is_routed(&wishes(&[SERVICES], OverlapPolicy::Refuse))
            .await;
        bench.end().await;
    });
}

#[test]
fn where_a_rule_takes_all_packets_virtual_addresses_are_no_way_out_either() {
    in_netns("captive", || async {
        link("wg0");
        ip(&[
            "route add default dev wg0 table 7",
            "rule add table 7 pref 100",
        ]);
        let bench = bench(BENCH.0, BENCH.1).await;
        let said = bench
            .is_refused(&wishes(&[SERVICES], OverlapPolicy::Auto))
            .await;
        assert!(said.contains("rule 100"), "{said}");
        assert!(said.contains("`ip route show table 7`"), "{said}");
        // What takes only private addresses leaves room.
        ip(&[
            "rule del pref 100",
            "rule add to 10.0.0.0/8 table 7 pref 100",
        ]);
        let wanted = wishes(&[SERVICES], OverlapPolicy::Auto);
        let plan = bench.plan(&wanted).await.unwrap();
        assert_eq!(plan.remapped.len(), 1);
        bench.end().await;
    });
}
