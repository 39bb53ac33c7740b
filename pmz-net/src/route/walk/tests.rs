use super::super::rule::Rule;
use super::super::survey::tests::{device_route, survey};
use super::super::survey::{Hop, Lookup, OwnAddress};
use super::*;

const NET: &str = "10.96.0.0/16";

fn said_of(net: &str, survey: &Survey) -> Vec<String> {
    let found = clashes(&net.parse().unwrap(), survey);
    found.iter().map(ToString::to_string).collect()
}

fn said(survey: &Survey) -> Vec<String> {
    said_of(NET, survey)
}

fn in_table(table: u32, prefix: &str, device: &str) -> ExistingRoute {
    ExistingRoute {
        table,
        ..device_route(prefix, device)
    }
}

fn kind(kind: RouteKind, prefix: &str) -> ExistingRoute {
    ExistingRoute {
        kind,
        index: None,
        device: None,
        ..device_route(prefix, "lo")
    }
}

fn table_rule(preference: u32, table: u32) -> Rule {
    Rule {
        preference,
        action: RuleAction::Table(table),
        ..Rule::default()
    }
}

/// A machine's rules beside those that every machine has.
fn rules(more: Vec<Rule>) -> Vec<Rule> {
    let mut all = vec![
        table_rule(0, LOCAL),
        table_rule(32_766, MAIN),
        table_rule(32_767, 253),
    ];
    all.extend(more);
    all
}

/// wg-quick's: all but its own packets go by its table, unless the main one has a route that is no default.
fn wg_quick() -> Vec<Rule> {
    rules(vec![
        Rule {
            suppress: Some(0),
            ..table_rule(32_764, MAIN)
        },
        Rule {
            mark: Some((0xca6c, u32::MAX)),
            invert: true,
            ..table_rule(32_765, 51_820)
        },
    ])
}

#[test]
fn a_vpn_that_covers_the_prefix_is_found_and_named() {
    let found = said(&survey(&[device_route("10.0.0.0/8", "vpn0")]));
    assert_eq!(
        found,
        ["10.96.0.0/16 lies in 10.0.0.0/8, which goes to vpn0"]
    );
}

#[test]
fn bridges_within_the_prefix_are_found() {
    let bridges = survey(&[
        device_route("172.17.0.0/16", "docker0"),
        device_route("10.244.0.0/16", "br0"),
    ]);
    assert_eq!(
        said_of("172.16.0.0/12", &bridges),
        ["172.16.0.0/12 holds 172.17.0.0/16, which goes to docker0"]
    );
    assert_eq!(
        said_of("10.244.0.0/16", &bridges),
        ["10.244.0.0/16 already goes to br0"]
    );
    let found = clashes(&"10.244.0.0/16".parse().unwrap(), &bridges);
    assert!(found[0].is_insuperable());
}

#[test]
fn default_routes_and_their_halves_are_no_clash_and_a_second_one_neither() {
    let mut second = device_route("0.0.0.0/0", "wlan0");
    second.metric = 600;
    let all = survey(&[
        device_route("0.0.0.0/0", "eth0"),
        second,
        device_route("0.0.0.0/1", "vpn0"),
        device_route("::/0", "eth0"),
        device_route("2000::/3", "vpn0"),
    ]);
    assert_eq!(said(&all), [""; 0]);
    assert_eq!(said_of("2001:db8::/32", &all), [""; 0]);
}

#[test]
fn families_and_neighbours_do_not_collide() {
    let others = survey(&[
        device_route("fd00::/8", "eth0"),
        device_route("10.97.0.0/16", "eth0"),
    ]);
    assert_eq!(said(&others), [""; 0]);
}

#[test]
fn the_tunnel_of_another_pmz_is_called_that() {
    let other = survey(&[device_route(NET, "pmz1")]);
    assert_eq!(
        said(&other),
        ["10.96.0.0/16 already goes to pmz1, another pmz's tunnel"]
    );
}

#[test]
fn an_address_of_the_machines_own_is_found_once() {
    let mut local = in_table(LOCAL, "10.96.0.5/32", "eth1");
    local.kind = RouteKind::Local;
    let mut machine = survey(&[local]);
    assert_eq!(
        said(&machine),
        ["10.96.0.0/16 holds 10.96.0.5/32, which is this machine itself (table 255)"]
    );
    machine.addresses = vec![OwnAddress {
        address: "10.96.0.5/24".parse().unwrap(),
        index: 7,
        device: Some("eth1".to_owned()),
        sleeping: false,
    }];
    assert_eq!(
        said(&machine),
        ["10.96.0.0/16 holds 10.96.0.5, this machine's own address on eth1"]
    );
}

#[test]
fn the_network_of_a_device_that_is_down_counts_since_it_may_come_up() {
    let mut machine = survey(&[]);
    machine.addresses = vec![OwnAddress {
        address: "10.0.0.1/8".parse().unwrap(),
        index: 7,
        device: Some("br0".to_owned()),
        sleeping: true,
    }];
    assert_eq!(
        said(&machine),
        ["10.96.0.0/16 lies in 10.0.0.0/8, the network of br0, which is down"]
    );
    machine.addresses[0].sleeping = false;
    assert_eq!(said(&machine), [""; 0]);
}

#[test]
fn wider_routes_that_drop_packets_are_no_clash_and_others_are() {
    for (route, words) in [
        (kind(RouteKind::Unreachable, "10.0.0.0/8"), ""),
        (kind(RouteKind::Blackhole, "10.0.0.0/8"), ""),
        (
            kind(RouteKind::Blackhole, NET),
            "10.96.0.0/16 already is blackholed",
        ),
        (
            kind(RouteKind::Unreachable, "10.96.7.0/24"),
            "10.96.0.0/16 holds 10.96.7.0/24, which is made unreachable",
        ),
        (
            kind(RouteKind::Prohibit, "10.96.7.0/24"),
            "10.96.0.0/16 holds 10.96.7.0/24, which is prohibited",
        ),
        (kind(RouteKind::Throw, "10.96.7.0/24"), ""),
    ] {
        assert_eq!(said(&survey(&[route])).join("; "), words);
    }
}

#[test]
fn a_multipath_route_is_told_with_all_its_devices() {
    let mut route = device_route("10.0.0.0/8", "eth0");
    (route.index, route.device) = (None, None);
    route.hops = ["eth0", "eth1", "eth1"]
        .into_iter()
        .zip(2..)
        .map(|(name, index)| Hop {
            index,
            device: Some(name.to_owned()),
            gateway: None,
        })
        .collect();
    assert_eq!(
        said(&survey(&[route])),
        ["10.96.0.0/16 lies in 10.0.0.0/8, which goes to eth0 and eth1"]
    );
}

#[test]
fn wg_quicks_default_route_is_no_clash_since_the_main_table_is_asked_first() {
    let machine = Survey {
        rules: wg_quick(),
        ..survey(&[
            device_route("0.0.0.0/0", "eth0"),
            device_route("192.168.1.0/24", "eth0"),
            in_table(51_820, "0.0.0.0/0", "wg0"),
        ])
    };
    assert_eq!(said(&machine), [""; 0]);
}

#[test]
fn what_wg_quicks_table_holds_beside_its_default_is_taken_from_it() {
    let machine = Survey {
        rules: wg_quick(),
        ..survey(&[
            device_route("0.0.0.0/0", "eth0"),
            in_table(51_820, "10.0.0.0/8", "wg0"),
        ])
    };
    let found = clashes(&NET.parse().unwrap(), &machine);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "10.96.0.0/16 lies in 10.0.0.0/8, which goes to wg0 (table 51820)"
    );
    assert!(!found[0].is_insuperable());
}

#[test]
fn a_rule_that_is_asked_before_the_main_table_is_named_with_its_table() {
    let all = |to: Option<&str>| Survey {
        rules: rules(vec![Rule {
            to: to.map(|to| to.parse().unwrap()),
            ..table_rule(32_764, 51_820)
        }]),
        ..survey(&[in_table(51_820, "0.0.0.0/0", "wg0")])
    };
    let words = "10.96.0.0/16 goes to wg0 by rule 32764 (table 51820), which is asked before the main table";
    assert_eq!(said(&all(None)), [words]);
    assert_eq!(said(&all(Some("10.0.0.0/8"))), [words]);
    assert!(clashes(&NET.parse().unwrap(), &all(None))[0].is_insuperable());
    let found = clashes(&NET.parse().unwrap(), &all(Some("10.96.7.0/24")));
    assert_eq!(
        found[0].to_string(),
        "10.96.7.0/24, a part of 10.96.0.0/16, goes to wg0 by rule 32764 (table 51820), which is asked before \
         the main table"
    );
    assert!(!found[0].is_insuperable());
    assert_eq!(said(&all(Some("10.97.0.0/16"))), [""; 0]);
}

#[test]
fn a_table_without_a_route_for_the_prefix_leaves_it_to_the_next_rule() {
    let machine = Survey {
        rules: rules(vec![table_rule(100, 7)]),
        ..survey(&[
            in_table(7, "192.168.0.0/16", "eth1"),
            device_route("0.0.0.0/0", "eth0"),
        ])
    };
    assert_eq!(said(&machine), [""; 0]);
}

#[test]
fn a_throw_route_leaves_the_prefix_to_the_next_rule() {
    let throw = ExistingRoute {
        table: 7,
        ..kind(RouteKind::Throw, "10.0.0.0/8")
    };
    let mut machine = Survey {
        rules: rules(vec![table_rule(100, 7)]),
        ..survey(&[in_table(7, "0.0.0.0/0", "vpn0"), throw])
    };
    assert_eq!(said(&machine), [""; 0]);
    machine.routes.pop();
    assert_eq!(said(&machine).len(), 1);
}

#[test]
fn of_two_routes_for_one_prefix_the_lower_metric_counts() {
    let throw = |metric| ExistingRoute {
        table: 7,
        metric,
        ..kind(RouteKind::Throw, "10.0.0.0/8")
    };
    let vpn = ExistingRoute {
        metric: 50,
        ..in_table(7, "10.0.0.0/8", "vpn0")
    };
    for (metric, count) in [(10, 0), (90, 1)] {
        let machine = Survey {
            rules: rules(vec![table_rule(100, 7)]),
            ..survey(&[vpn.clone(), throw(metric)])
        };
        assert_eq!(said(&machine).len(), count, "{metric}");
    }
}

#[test]
fn rules_for_some_packets_only_are_told_as_such() {
    let machine = Survey {
        rules: rules(vec![Rule {
            mark: Some((1, u32::MAX)),
            ..table_rule(100, 7)
        }]),
        ..survey(&[in_table(7, "0.0.0.0/0", "eth1")])
    };
    let found = clashes(&NET.parse().unwrap(), &machine);
    assert_eq!(found.len(), 1);
    assert!(!found[0].is_general() && !found[0].is_insuperable());
    assert_eq!(
        found[0].to_string(),
        "packets with mark 0x1: 10.96.0.0/16 goes to eth1 by rule 100 (table 7), which is asked before the \
         main table"
    );
}

#[test]
fn a_rule_that_drops_is_a_clash_before_the_main_table_and_none_after_it() {
    let drop_at = |preference| Survey {
        rules: rules(vec![Rule {
            preference,
            action: RuleAction::Prohibit,
            ..Rule::default()
        }]),
        ..survey(&[])
    };
    assert_eq!(
        said(&drop_at(100)),
        ["10.96.0.0/16 is prohibited by rule 100, which is asked before the main table"]
    );
    assert_eq!(said(&drop_at(32_767)), [""; 0]);
}

#[test]
fn a_rule_that_leads_past_others_is_followed() {
    let goto = Rule {
        preference: 50,
        action: RuleAction::Goto(32_766),
        ..Rule::default()
    };
    let mut machine = Survey {
        rules: rules(vec![goto, table_rule(100, 7)]),
        ..survey(&[in_table(7, "0.0.0.0/0", "vpn0")])
    };
    assert_eq!(said(&machine), [""; 0]);
    machine.rules.retain(|rule| rule.preference != 50);
    assert_eq!(said(&machine).len(), 1);
}

#[test]
fn suppressed_prefixes_that_are_as_wide_as_the_wanted_one_leave_it_to_what_follows() {
    let mut rules = wg_quick();
    rules[3].suppress = Some(16);
    let machine = Survey {
        rules,
        ..survey(&[in_table(51_820, "0.0.0.0/0", "wg0")])
    };
    assert_eq!(said(&machine).len(), 1);
    assert_eq!(said_of("10.96.0.0/17", &machine), [""; 0]);
}

#[test]
fn the_kernel_is_believed_where_nothing_else_was_found() {
    let lookup = |prefix: &str| Lookup {
        address: "10.96.0.1".parse().unwrap(),
        route: in_table(1002, prefix, "vrf0"),
    };
    let mut machine = survey(&[]);
    machine.lookups = vec![lookup("10.64.0.0/10")];
    assert_eq!(
        said(&machine),
        ["10.64.0.0/10 goes to vrf0, says the kernel (table 1002)"]
    );
    assert_eq!(said_of("10.97.0.0/16", &machine), [""; 0]);
    machine.lookups = vec![lookup("0.0.0.0/0")];
    assert_eq!(said(&machine), [""; 0]);
}

#[test]
fn a_prefix_with_more_clashes_than_anybody_reads_keeps_the_one_that_matters() {
    let mut routes: Vec<_> = (0..=255)
        .map(|n| in_table(7, &format!("10.96.{n}.0/24"), "br0"))
        .collect();
    routes.push(in_table(7, "10.0.0.0/8", "vpn0"));
    let machine = Survey {
        rules: rules(vec![table_rule(100, 7)]),
        ..survey(&routes)
    };
    let found = clashes(&NET.parse().unwrap(), &machine);
    assert_eq!(found.len(), MAX_CLASHES + 1);
    assert!(found.iter().any(Clash::is_insuperable));
}
