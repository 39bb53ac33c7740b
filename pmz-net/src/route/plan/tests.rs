use super::super::rule::{Rule, RuleAction};
use super::super::survey::ExistingRoute;
use super::super::survey::tests::{device_route, survey};
use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(net).collect()
}

fn wishes(services: &str, pods: &str, included: &str, policy: OverlapPolicy) -> Wishes {
    let all = [
        (Kind::Services, services),
        (Kind::Pods, pods),
        (Kind::Included, included),
    ];
    let wanted = all
        .into_iter()
        .flat_map(|(kind, text)| nets(text).into_iter().map(move |net| Wanted { net, kind }));
    Wishes {
        wanted: wanted.collect(),
        policy,
        ..Wishes::default()
    }
}

fn cluster(policy: OverlapPolicy) -> Wishes {
    wishes("10.96.0.0/16 fd00:10:96::/108", "10.244.0.0/16", "", policy)
}

/// A VPN over everything that companies have, and a bridge where pods are.
fn crowded() -> Survey {
    survey(&[
        device_route("0.0.0.0/0", "eth0"),
        device_route("10.0.0.0/8", "vpn0"),
        device_route("10.244.3.0/24", "br0"),
    ])
}

/// A rule that leads everything elsewhere before the main table is asked.
fn captive() -> Survey {
    let route = ExistingRoute {
        table: 7,
        ..device_route("0.0.0.0/0", "vpn0")
    };
    let rule = |preference, table| Rule {
        preference,
        action: RuleAction::Table(table),
        ..Rule::default()
    };
    Survey {
        rules: vec![rule(0, 255), rule(100, 7), rule(32_766, 254)],
        ..survey(&[route])
    }
}

#[test]
fn what_collides_with_nothing_is_routed_as_it_is() {
    for policy in [
        OverlapPolicy::Auto,
        OverlapPolicy::PreferCluster,
        OverlapPolicy::Refuse,
    ] {
        let made = plan(&cluster(policy), &survey(&[])).unwrap();
        assert_eq!(
            made.routes(),
            nets("10.96.0.0/16 10.244.0.0/16 fd00:10:96::/108")
        );
        assert_eq!((made.remapped, made.pool), (vec![], Pool::default()));
        assert_eq!(made.clashes, Found::default());
    }
}

#[test]
fn auto_remaps_what_collides_and_routes_the_rest() {
    let made = plan(&cluster(OverlapPolicy::Auto), &crowded()).unwrap();
    assert_eq!(made.routes(), nets("fd00:10:96::/108"));
    let remapped: Vec<_> = made.remapped.iter().map(|w| (w.net, w.kind)).collect();
    assert_eq!(
        remapped,
        [
            (net("10.96.0.0/16"), Kind::Services),
            (net("10.244.0.0/16"), Kind::Pods)
        ]
    );
    assert_eq!(made.pool.nets()[0].to_string(), "241.0.0.0/16");
    let text = made.clashes.to_string();
    assert!(text.contains("vpn0") && text.contains("br0"), "{text}");
}

#[test]
fn remap_remaps_all_that_names_lead_to() {
    let wanted = wishes(
        "10.96.0.0/16",
        "10.244.0.0/16",
        "10.1.0.0/16",
        OverlapPolicy::Remap,
    );
    let made = plan(&wanted, &survey(&[])).unwrap();
    assert_eq!(made.routes(), nets("10.1.0.0/16"));
    assert_eq!(made.remapped.len(), 2);
    assert_eq!(made.pool.nets(), nets("241.0.0.0/16"));
}

#[test]
fn prefer_cluster_routes_all_the_same_and_tells_what_it_overlaps() {
    let made = plan(&cluster(OverlapPolicy::PreferCluster), &crowded()).unwrap();
    assert_eq!(made.routes().len(), 3);
    assert!(made.remapped.is_empty());
    assert!(made.clashes.to_string().contains("vpn0"));
}

#[test]
fn prefer_cluster_does_not_take_the_same_prefix_nor_promise_what_a_rule_takes_away() {
    let same = survey(&[device_route("10.96.0.0/16", "pmz1")]);
    for (survey, words) in [(same, "pmz1"), (captive(), "rule 100 (table 7)")] {
        let error = plan(&cluster(OverlapPolicy::PreferCluster), &survey).unwrap_err();
        assert!(matches!(error, PlanError::Clashes { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn refuse_names_each_clash() {
    let error = plan(&cluster(OverlapPolicy::Refuse), &crowded()).unwrap_err();
    let text = error.to_string();
    for words in [
        "10.96.0.0/16 lies in 10.0.0.0/8, which goes to vpn0",
        "10.244.0.0/16 lies in 10.0.0.0/8, which goes to vpn0",
        "10.244.0.0/16 holds 10.244.3.0/24, which goes to br0",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_rule_that_takes_everything_leaves_no_room_for_virtual_addresses() {
    let error = plan(&cluster(OverlapPolicy::Auto), &captive()).unwrap_err();
    assert!(matches!(error, PlanError::NoPool { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.starts_with("10.96.0.0/16 goes to vpn0 by rule 100"),
        "{text}"
    );
    assert!(
        text.contains("no room for virtual addresses: 241.0.0.0/16 goes to vpn0"),
        "{text}"
    );
}

#[test]
fn what_the_user_has_included_is_never_remapped() {
    for policy in [
        OverlapPolicy::Auto,
        OverlapPolicy::Remap,
        OverlapPolicy::Refuse,
    ] {
        let included = wishes("", "", "10.1.0.0/16", policy);
        let error = plan(&included, &crowded()).unwrap_err();
        assert!(error.to_string().contains("10.1.0.0/16 lies in"), "{error}");
    }
    let included = wishes("", "", "10.1.0.0/16", OverlapPolicy::PreferCluster);
    let made = plan(&included, &crowded()).unwrap();
    assert_eq!(made.routes(), nets("10.1.0.0/16"));
}

#[test]
fn what_is_excluded_is_cut_out_and_collides_no_more() {
    let mut wanted = wishes("10.96.0.0/16", "10.244.0.0/16", "", OverlapPolicy::Refuse);
    wanted.excluded = nets("10.244.3.0/24 10.96.128.0/17");
    let bridge = survey(&[device_route("10.244.3.0/24", "br0")]);
    let made = plan(&wanted, &bridge).unwrap();
    assert_eq!(
        made.routes(),
        nets(
            "10.96.0.0/17 10.244.0.0/23 10.244.2.0/24 10.244.4.0/22 10.244.8.0/21 10.244.16.0/20 \
             10.244.32.0/19 10.244.64.0/18 10.244.128.0/17"
        )
    );
}

#[test]
fn pieces_of_a_prefix_are_remapped_together() {
    let mut wanted = wishes("10.96.0.0/16", "", "", OverlapPolicy::Auto);
    wanted.excluded = nets("10.96.0.0/17");
    let bridge = survey(&[device_route("10.96.200.0/24", "br0")]);
    let made = plan(&wanted, &bridge).unwrap();
    assert_eq!(made.remapped.len(), 1);
    assert_eq!(made.remapped[0].net, net("10.96.128.0/17"));
    assert!(made.routes().is_empty());
}

#[test]
fn twins_and_prefixes_within_others_are_routed_once() {
    let wanted = wishes(
        "10.96.0.0/16 10.96.0.0/16",
        "",
        "10.0.0.0/9 10.1.0.0/16 10.96.7.0/24",
        OverlapPolicy::Auto,
    );
    let made = plan(&wanted, &survey(&[])).unwrap();
    assert_eq!(made.routes(), nets("10.0.0.0/9"));
    // What each is for is kept apart.
    let direct: Vec<_> = made.direct.iter().map(|w| (w.net, w.kind)).collect();
    assert_eq!(
        direct,
        [
            (net("10.96.0.0/16"), Kind::Services),
            (net("10.0.0.0/9"), Kind::Included)
        ]
    );
}

#[test]
fn an_exclusion_that_leaves_nothing_is_refused() {
    let mut wanted = cluster(OverlapPolicy::Auto);
    wanted.excluded = nets("10.0.0.0/8 fd00::/8");
    let error = plan(&wanted, &survey(&[])).unwrap_err();
    assert!(error.to_string().contains("10.96.0.0/16"), "{error}");
    assert!(matches!(error, PlanError::NothingLeft { .. }));
    wanted.excluded.pop();
    let made = plan(&wanted, &survey(&[])).unwrap();
    assert_eq!(made.routes(), nets("fd00:10:96::/108"));
    assert_eq!(plan(&Wishes::default(), &survey(&[])), Ok(Plan::default()));
}

#[test]
fn exclusions_that_leave_too_many_pieces_are_refused() {
    let mut wanted = wishes("", "", "10.0.0.0/8", OverlapPolicy::Auto);
    wanted.excluded = (0..=255).map(|n| net(&format!("10.{n}.3.9/32"))).collect();
    assert_eq!(
        plan(&wanted, &survey(&[])),
        Err(PlanError::TooMany { count: 256 * 16 })
    );
}

#[test]
fn everything_is_everything_that_nothing_narrower_takes_and_not_this_machines_own() {
    let wanted = wishes("", "", "0.0.0.0/0", OverlapPolicy::Auto);
    let made = plan(&wanted, &crowded()).unwrap();
    let routes = made.routes();
    let is_led = |address: &str| {
        let address: std::net::IpAddr = address.parse().unwrap();
        routes.iter().any(|net| net.contains(&address))
    };
    for address in ["1.1.1.1", "10.9.9.9", "192.168.1.1", "203.0.113.5"] {
        assert!(is_led(address), "{address}");
    }
    for address in [
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "241.0.0.1",
        "255.255.255.255",
    ] {
        assert!(!is_led(address), "{address}");
    }
    let error = plan(&wanted, &captive()).unwrap_err();
    assert!(error.to_string().contains("rule 100"), "{error}");
}

#[test]
fn a_pool_keeps_off_what_the_cluster_has_itself() {
    let wanted = wishes("10.96.0.0/16", "", "241.0.0.0/8", OverlapPolicy::Remap);
    let made = plan(&wanted, &survey(&[])).unwrap();
    assert_eq!(made.pool.nets()[0].to_string(), "242.0.0.0/16");
    let mut given = wanted.clone();
    given.pool = PoolWish::new(&nets("241.7.0.0/16")).unwrap();
    let error = plan(&given, &survey(&[])).unwrap_err();
    assert!(error.to_string().contains("241.0.0.0/8"), "{error}");
}

#[test]
fn rules_for_some_packets_decide_nothing_and_are_told() {
    let mut survey = captive();
    survey.rules[1].mark = Some((9, u32::MAX));
    let made = plan(&cluster(OverlapPolicy::Refuse), &survey).unwrap();
    assert_eq!(made.routes().len(), 3);
    assert!(made.clashes.to_string().contains("with mark 0x9"));
}

#[test]
fn a_plan_survives_the_way_from_the_helper_whatever_it_holds() {
    let made = plan(&cluster(OverlapPolicy::Auto), &crowded()).unwrap();
    let text = serde_json::to_string(&made).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), made);
    for error in [
        plan(&cluster(OverlapPolicy::Refuse), &crowded()).unwrap_err(),
        PlanError::TooMany { count: 7 },
    ] {
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<PlanError>(&text).unwrap(), error);
    }
}

#[test]
fn more_clashes_than_anybody_reads_are_counted() {
    let routes: Vec<_> = (0..40)
        .map(|n| device_route(&format!("10.96.{n}.0/24"), "br0"))
        .chain([device_route("10.96.0.0/16", "pmz1")])
        .collect();
    let error = plan(&cluster(OverlapPolicy::Refuse), &survey(&routes)).unwrap_err();
    let PlanError::Clashes { clashes } = error else {
        panic!("{error:?}")
    };
    assert_eq!((clashes.told.len(), clashes.others), (16, 25));
    assert!(clashes.told[0].is_insuperable());
    assert!(clashes.to_string().ends_with("and 25 more"), "{clashes}");
}
