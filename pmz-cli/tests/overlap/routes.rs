//! Routes, addresses and other tunnels that are in the way.

use pmz_net::route::{OverlapPolicy, PlanError, PoolWish};

use crate::bench::{bench, wishes};
use crate::netns::{bridge, goes_to, in_netns, ip, link};
use crate::{BENCH, SERVICES, SERVICES6, USER};

#[test]
fn a_vpns_route_over_the_services_is_found_and_the_policy_decides() {
    in_netns("vpn", || async {
        link("eth0");
        link("vpn0");
        ip(&[
            "route add default dev eth0",
            "route add default dev vpn0 metric 600",
            "route add 10.0.0.0/8 dev vpn0",
            "-6 route add fd00::/8 dev vpn0",
        ]);
        let bench = bench(BENCH.0, BENCH.1).await;
        let said = bench
            .is_refused(&wishes(&[SERVICES, SERVICES6], OverlapPolicy::Refuse))
            .await;
        for words in [
            "10.96.0.0/16 lies in 10.0.0.0/8, which goes to vpn0",
            "fd00:10:96::/108 lies in fd00::/8, which goes to vpn0",
            "--overlap prefer-cluster",
        ] {
            assert!(said.contains(words), "{said}");
        }
        let auto = bench
            .plan(&wishes(&[SERVICES], OverlapPolicy::Auto))
            .await
            .unwrap();
        assert_eq!(auto.remapped.len(), 1);
        assert_eq!(auto.pool.nets()[0].to_string(), "241.0.0.0/16");
        let preferred = wishes(&[SERVICES, SERVICES6], OverlapPolicy::PreferCluster);
        bench.is_routed(&preferred).await;
        assert_eq!(goes_to("10.96.0.1", USER), bench.tun.name);
        assert_eq!(goes_to("fd00:10:96::1", USER), bench.tun.name);
        assert_eq!(goes_to("10.97.0.1", USER), "vpn0");
        bench.end().await;
    });
}

#[test]
fn containers_bridges_and_own_addresses_are_found_with_their_devices() {
    in_netns("bridges", || async {
        bridge("docker0", "172.17.0.1/16");
        bridge("br0", "10.244.0.1/16");
        ip(&[
            "address add 10.96.0.5/32 dev lo",
            "link add sleepy type bridge",
            "address add 10.100.0.1/16 dev sleepy",
        ]);
        let bench = bench(BENCH.0, BENCH.1).await;
        for (net, words) in [
            (
                "172.16.0.0/12",
                "172.16.0.0/12 holds 172.17.0.0/16, which goes to docker0",
            ),
            ("10.244.0.0/16", "10.244.0.0/16 already goes to br0"),
            (
                SERVICES,
                "10.96.0.0/16 holds 10.96.0.5, this machine's own address on lo",
            ),
            (
                "10.100.128.0/17",
                "10.100.128.0/17 lies in 10.100.0.0/16, the network of sleepy, which is down",
            ),
        ] {
            let said = bench
                .is_refused(&wishes(&[net], OverlapPolicy::Refuse))
                .await;
            assert!(said.contains(words), "{said}");
        }
        // A part that is not wanted collides with nothing.
        let mut without = wishes(&["172.16.0.0/12"], OverlapPolicy::Refuse);
        without.excluded = vec!["172.17.0.0/16".parse().unwrap()];
        let plan = bench.is_routed(&without).await;
        assert_eq!(plan.routes().len(), 4);
        assert_eq!(goes_to("172.17.0.9", USER), "docker0");
        assert_eq!(goes_to("172.18.0.9", USER), bench.tun.name);
        bench.end().await;
    });
}

#[test]
fn dropping_routes_and_ways_that_are_several_are_told_as_they_are() {
    in_netns("kinds", || async {
        link("eth0");
        link("eth1");
        ip(&[
            "route add 10.0.0.0/8 nexthop dev eth0 nexthop dev eth1",
            "route add blackhole 10.97.0.0/16",
            "route add unreachable 10.98.7.0/24",
            "-6 route add prohibit fd00:10:96::/112",
            "route add unreachable 172.16.0.0/12",
        ]);
        let bench = bench(BENCH.0, BENCH.1).await;
        for (net, words) in [
            (SERVICES, "10.0.0.0/8, which goes to eth0 and eth1"),
            ("10.97.0.0/16", "10.97.0.0/16 already is blackholed"),
            ("10.98.0.0/16", "10.98.7.0/24, which is made unreachable"),
            (SERVICES6, "fd00:10:96::/112, which is prohibited"),
        ] {
            let said = bench
                .is_refused(&wishes(&[net], OverlapPolicy::Refuse))
                .await;
            assert!(said.contains(words), "{said}");
        }
        // Where nothing goes now, nothing is taken away.
        bench
            .is_routed(&wishes(&["172.20.0.0/16"], OverlapPolicy::Refuse))
            .await;
        assert_eq!(goes_to("172.20.0.1", USER), bench.tun.name);
        bench.end().await;
    });
}

#[test]
fn two_clusters_with_the_same_services_keep_out_of_each_others_way() {
    in_netns("two clusters", || async {
        let first = bench(BENCH.0, BENCH.1).await;
        first
            .is_routed(&wishes(
                &[SERVICES, "241.0.0.0/16"],
                OverlapPolicy::PreferCluster,
            ))
            .await;
        let second = bench("240.65.0.2", "fd70:6d7a:1::2").await;
        assert_eq!(second.tun.name, "pmz1");
        for policy in [OverlapPolicy::Refuse, OverlapPolicy::PreferCluster] {
            let said = second.is_refused(&wishes(&[SERVICES], policy)).await;
            let words = "10.96.0.0/16 already goes to pmz0, another pmz's tunnel";
            assert!(said.contains(words), "{said}");
        }
        let wanted = wishes(&[SERVICES], OverlapPolicy::Auto);
        let plan = second.plan(&wanted).await.unwrap();
        assert_eq!(plan.pool.nets()[0].to_string(), "241.1.0.0/16");
        let mut given = wanted;
        given.pool = PoolWish::new(&["241.0.0.0/16".parse().unwrap()]).unwrap();
        let error = second.plan(&given).await.unwrap_err();
        assert!(matches!(error, PlanError::NoPool { .. }), "{error:?}");
        // The first one's own routes are nothing that it collides with.
        let again = first
            .plan(&wishes(&[SERVICES], OverlapPolicy::Refuse))
            .await;
        assert_eq!(again.unwrap().routes(), [SERVICES.parse().unwrap()]);
        second.end().await;
        first.end().await;
    });
}
