//! The congestion control that routes give to connections.

use std::net::SocketAddr;
use std::{fs, io::Write};

use ipnet::IpNet;
use pmz_cli::helper::Claim;
use pmz_net::route::Netlink;
use socket2::{Domain, Protocol, Socket, Type};

use super::{addresses, bench, in_netns};

/// What a connection that was begun now uses, after the program asked for something before it connected, or did not.
fn used(to: &str, asked: Option<&str>) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
    if let Some(asked) = asked {
        socket.set_tcp_congestion(asked.as_bytes()).unwrap();
    }
    socket.set_nonblocking(true).unwrap();
    // Nobody answers behind the TUN: it is on its way.
    let error = socket.connect(&to.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
    let name = socket.tcp_congestion().unwrap();
    let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    String::from_utf8(name[..end].to_vec()).unwrap()
}

#[test]
fn connections_use_what_the_routes_have_and_routes_that_are_added_later_have_it_too() {
    const TEST: &str =
        "connections_use_what_the_routes_have_and_routes_that_are_added_later_have_it_too";
    const FIRST: [&str; 2] = ["10.96.0.1:80", "[fd00:10:96::1]:80"];
    const LATER: [&str; 2] = ["10.244.0.1:80", "[fd00:10:244::1]:80"];
    in_netns(TEST, || async {
        // Any namespace may have it as its own.
        fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno").unwrap();
        let bench = bench();
        let client = &bench.client;
        client.open_tun("pmz0", 1340, &addresses()).await.unwrap();
        let nets = |nets: [&str; 2]| nets.map(|net| net.parse::<IpNet>().unwrap());
        let first = nets(["10.96.0.0/16", "fd00:10:96::/108"]);
        client.add_routes(&first, Claim::Free).await.unwrap();
        assert_eq!(FIRST.map(|to| used(to, None)), ["reno"; 2]);
        let has = client.set_route_congestion(Some("bbr")).await.unwrap();
        if has.is_none() {
            let _ = writeln!(std::io::stderr(), "skipped: {TEST}: this kernel has no bbr");
            return;
        }
        assert_eq!(has.as_deref(), Some("bbr"));
        let later = nets(["10.244.0.0/16", "fd00:10:244::/64"]);
        client.add_routes(&later, Claim::Free).await.unwrap();
        for to in FIRST.into_iter().chain(LATER) {
            assert_eq!(used(to, None), "bbr", "{to}");
            assert_eq!(used(to, Some("reno")), "bbr", "{to}, asked for before");
        }
        let moved = [
            "100.64.0.9".parse().unwrap(),
            "fd00:706d:7a::9".parse().unwrap(),
        ];
        client.set_addresses(&moved).await.unwrap();
        for to in FIRST.into_iter().chain(LATER) {
            assert_eq!(used(to, None), "bbr", "{to}, from another address");
        }
        assert_eq!(client.set_route_congestion(None).await.unwrap(), None);
        for to in FIRST.into_iter().chain(LATER) {
            assert_eq!(used(to, None), "reno", "{to}");
        }
        bench.end().await;
    });
}

#[test]
fn a_prefix_that_somebody_has_led_elsewhere_is_not_taken_back_for_a_congestion_control() {
    in_netns("led elsewhere", || async {
        let bench = bench();
        let client = &bench.client;
        let tun = client.open_tun("pmz0", 1340, &addresses()).await.unwrap();
        let prefixes: [IpNet; 2] =
            ["10.96.0.0/16", "10.244.0.0/16"].map(|net| net.parse().unwrap());
        client.add_routes(&prefixes, Claim::Free).await.unwrap();
        let netlink = Netlink::open().unwrap();
        netlink
            .replace_route(1, prefixes[0], None, None)
            .await
            .unwrap();
        client.set_route_congestion(Some("cubic")).await.unwrap();
        let led = netlink.led_to(tun.index).await.unwrap();
        let stays = prefixes.map(|prefix| led.contains(&prefix));
        assert_eq!(stays, [false, true], "{led:?}");
        let routes = netlink.routes().await.unwrap();
        let first = routes.iter().find(|route| route.prefix == prefixes[0]);
        assert_eq!(first.and_then(|route| route.index), Some(1));
        bench.end().await;
    });
}
