//! What collides on a machine, found by the helper in network namespaces of the tests' own, and held against
//! what the kernel does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use pmz_cli::failure::Failure;
use pmz_cli::helper::{Channel, Claim, HelperClient, HelperError, Paths, Refusal, Tun, serve};
use pmz_net::route::{Kind, Netlink, OverlapPolicy, Plan, PlanError, PoolWish, Wanted, Wishes};
use tokio::task::JoinHandle;

/// Whose packets the helper looks after.
const USER: u32 = 1000;
const SERVICES: &str = "10.96.0.0/16";
const SERVICES6: &str = "fd00:10:96::/108";

/// A helper with its TUN.
struct Bench {
    client: HelperClient,
    server: JoinHandle<std::io::Result<()>>,
    tun: Tun,
    _dir: tempfile::TempDir,
}

async fn bench(address: &str, address6: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths {
        runtime: dir.path().join("run"),
        resolv_conf: dir.path().join("resolv.conf"),
    };
    fs::write(&paths.resolv_conf, "").unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let server = tokio::spawn(serve(theirs, USER, paths));
    let client = HelperClient::new(ours).unwrap();
    let addresses: [IpAddr; 2] = [address.parse().unwrap(), address6.parse().unwrap()];
    let tun = client.open_tun("pmz%d", 1340, &addresses).await.unwrap();
    // The kernel adds IPv6's local route by a worker of its own, a moment after the address.
    let limit = Instant::now() + Duration::from_secs(5);
    while !ip(&["-6 route show table local"]).contains(address6) {
        assert!(Instant::now() < limit, "the tunnel's address does not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Bench {
        client,
        server,
        tun,
        _dir: dir,
    }
}

impl Bench {
    async fn end(self) {
        drop((self.client, self.tun));
        let ended = tokio::time::timeout(Duration::from_secs(5), self.server).await;
        ended
            .expect("the helper outlives its peer")
            .unwrap()
            .unwrap();
    }

    async fn plan(&self, wishes: &Wishes) -> Result<Plan, PlanError> {
        match self.client.plan(wishes.clone()).await {
            Ok(plan) => Ok(plan),
            Err(HelperError::Refused(Refusal::Unroutable { why })) => Err(why),
            Err(other) => panic!("{other}"),
        }
    }

    /// Plans, which must be refused, as adding the routes must, and nothing may have changed. Gives what
    /// the user is told.
    async fn is_refused(&self, wishes: &Wishes) -> String {
        let before = dump();
        let why = self.plan(wishes).await.unwrap_err();
        let nets: Vec<IpNet> = wishes.wanted.iter().map(|wanted| wanted.net).collect();
        let claim = match wishes.policy {
            OverlapPolicy::PreferCluster => Claim::Overlapping,
            OverlapPolicy::Auto | OverlapPolicy::Remap | OverlapPolicy::Refuse => Claim::Free,
        };
        let added = self.client.add_routes(&nets, claim).await;
        assert!(
            matches!(added, Err(HelperError::Refused(Refusal::Unroutable { .. }))),
            "{added:?}"
        );
        assert_eq!(dump(), before);
        Failure::from(Refusal::Unroutable { why }).to_string()
    }

    /// Plans, which must work, and adds the routes.
    async fn is_routed(&self, wishes: &Wishes) -> Plan {
        let before = dump();
        let plan = self.plan(wishes).await.unwrap();
        assert!(plan.remapped.is_empty(), "{plan:?}");
        assert_eq!(dump(), before, "a plan has changed something");
        let claim = match wishes.policy {
            OverlapPolicy::PreferCluster => Claim::Overlapping,
            OverlapPolicy::Auto | OverlapPolicy::Remap | OverlapPolicy::Refuse => Claim::Free,
        };
        self.client.add_routes(&plan.routes(), claim).await.unwrap();
        plan
    }
}

fn wishes(nets: &[&str], policy: OverlapPolicy) -> Wishes {
    let wanted = nets.iter().map(|net| Wanted {
        net: net.parse().unwrap(),
        kind: Kind::Services,
    });
    Wishes {
        wanted: wanted.collect(),
        policy,
        ..Wishes::default()
    }
}

fn included(net: &str, policy: OverlapPolicy) -> Wishes {
    let mut wishes = wishes(&[net], policy);
    wishes.wanted[0].kind = Kind::Included;
    wishes
}

/// Runs a test in a network namespace of its own, which is gone with the thread.
fn in_netns<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) {
    let skip = |why: &str| {
        // The test harness keeps to itself what a test that passes prints by macros.
        let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
    };
    if !nix::unistd::geteuid().is_root() {
        return skip("making namespaces needs root");
    }
    match Command::new("ip").arg("-V").output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return skip("the `ip` command is not here");
        }
        other => drop(other.unwrap()),
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            ip(&["link set lo up"]);
            test().await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with each line as its arguments, in this thread's namespace.
fn ip(lines: &[&str]) -> String {
    let mut said = String::new();
    for line in lines {
        let output = Command::new("ip")
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "ip {line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        said.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    said
}

/// A link that is up and has no address.
fn link(name: &str) {
    ip(&[
        &format!("link add {name} type veth peer name {name}-peer"),
        &format!("link set {name} addrgenmode none"),
        &format!("link set {name}-peer addrgenmode none"),
        &format!("link set {name} up"),
        &format!("link set {name}-peer up"),
    ]);
}

/// A bridge with an address, as containers have it.
fn bridge(name: &str, address: &str) {
    ip(&[
        &format!("link add {name} type bridge"),
        &format!("link set {name} addrgenmode none"),
        &format!("address add {address} dev {name}"),
        &format!("link set {name} up"),
    ]);
}

/// All routes and rules.
fn dump() -> String {
    ip(&[
        "-4 -d route show table all",
        "-6 -d route show table all",
        "-4 rule",
        "-6 rule",
    ])
}

/// The device that the kernel leads packets of that user to.
fn goes_to(address: &str, user: u32) -> String {
    let said = ip(&[&format!("route get {address} uid {user}")]);
    let mut words = said.split_whitespace();
    words.find(|word| *word == "dev").expect(&said);
    words.next().unwrap().to_owned()
}

const BENCH: (&str, &str) = ("240.64.0.2", "fd70:6d7a::2");

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
                netlink.add_route(bench.tun.index, net, None).await.unwrap();
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
            .add_route(bench.tun.index, twin, None)
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
