//! All traffic, hostile prefixes, many routes, and what is undone.

use std::fs;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pmz_cli::helper::{Claim, HelperError, Refusal};
use pmz_net::route::{Netlink, OverlapPolicy};

use crate::bench::{bench, included, wishes};
use crate::netns::{dump, goes_to, in_netns, ip, link};
use crate::{BENCH, SERVICES, USER};

#[test]
fn all_traffic_goes_into_the_tunnel_but_what_has_a_narrower_route() {
    in_netns("all traffic", || async {
        link("eth0");
        ip(&[
            "address add 192.168.1.9/24 dev eth0",
            "route add default via 192.168.1.1",
        ]);
        let bench = bench(BENCH.0, BENCH.1).await;
        let mut all = included("0.0.0.0/0", OverlapPolicy::Auto);
        all.excluded = vec!["203.0.113.5/32".parse().unwrap()];
        let plan = bench.plan(&all).await.unwrap();
        let routes = plan.routes();
        let refused = bench.client.add_routes(&routes, Claim::Overlapping).await;
        assert!(
            matches!(refused, Err(HelperError::Refused(Refusal::Invalid { .. }))),
            "{refused:?}"
        );
        bench
            .client
            .add_routes(&routes, Claim::Everything)
            .await
            .unwrap();
        for (address, device) in [
            ("1.1.1.1", "pmz0"),
            ("203.0.113.4", "pmz0"),
            ("203.0.113.5", "eth0"),
            ("192.168.1.1", "eth0"),
            ("127.0.0.1", "lo"),
        ] {
            assert_eq!(goes_to(address, USER), device, "{address}");
        }
        bench.client.remove_routes(&routes).await.unwrap();
        assert_eq!(goes_to("1.1.1.1", USER), "eth0");
        bench.end().await;
    });
}

#[test]
fn what_a_hostile_agent_calls_its_networks_takes_no_traffic() {
    in_netns("hostile", || async {
        let bench = bench(BENCH.0, BENCH.1).await;
        let before = dump();
        for net in ["0.0.0.0/0", "0.0.0.0/1", "127.0.0.0/8", "::/0", "fe80::/10"] {
            let planned = bench
                .client
                .plan(wishes(&[net], OverlapPolicy::PreferCluster))
                .await;
            assert!(
                matches!(planned, Err(HelperError::Refused(Refusal::Invalid { .. }))),
                "{net}: {planned:?}"
            );
        }
        assert_eq!(dump(), before);
        bench.end().await;
    });
}

#[test]
fn of_routes_that_can_not_all_be_added_none_stays() {
    in_netns("undo", || async {
        let bench = bench(BENCH.0, BENCH.1).await;
        // The tunnel's own device has this one already, behind the helper's back.
        let netlink = Netlink::open().unwrap();
        let twin: IpNet = "10.98.0.0/16".parse().unwrap();
        netlink
            .add_route(bench.tun.index, twin, None, None)
            .await
            .unwrap();
        let before = dump();
        let added = bench
            .client
            .add_routes(&["10.97.0.0/16".parse().unwrap(), twin], Claim::Free)
            .await;
        assert!(
            matches!(added, Err(HelperError::Refused(Refusal::Failed { .. }))),
            "{added:?}"
        );
        assert_eq!(dump(), before);
        bench.end().await;
    });
}

#[test]
fn a_machine_with_many_routes_is_looked_through_at_once() {
    in_netns("many routes", || async {
        link("eth0");
        let dir = tempfile::tempdir().unwrap();
        let batch = dir.path().join("batch");
        // As of a router: all of it elsewhere but one.
        let mut lines = String::from("route add 10.96.7.0/24 dev eth0\n");
        for n in 0..20_000 {
            lines += &format!(
                "route add 20.{}.{}.{}/28 dev eth0\n",
                n >> 12,
                (n >> 4) & 255,
                (n & 15) << 4
            );
        }
        fs::write(&batch, lines).unwrap();
        ip(&[&format!("-batch {}", batch.display())]);
        let bench = bench(BENCH.0, BENCH.1).await;
        let asked = Instant::now();
        let error = bench
            .plan(&wishes(&[SERVICES], OverlapPolicy::Refuse))
            .await
            .unwrap_err();
        let took = asked.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(
            error.to_string(),
            "10.96.0.0/16 holds 10.96.7.0/24, which goes to eth0"
        );
        // More clashes than a message can hold are told as far as anybody reads.
        let many = wishes(&["20.0.0.0/8"], OverlapPolicy::PreferCluster);
        let plan = bench.plan(&many).await.unwrap();
        assert!(plan.clashes.others > 0);
        bench.end().await;
    });
}
