//! The helper behind its socket, in a network namespace of its own and with files of its own.
#![allow(clippy::unwrap_used)]

mod capture;
mod congestion;
mod guard;

use std::fs;
use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use pmz_cli::helper::{
    Answer, Channel, Claim, Family, HelperClient, HelperError, Paths, Refusal, Reply, Request,
    serve,
};
use pmz_net::device::tun_name;
use pmz_net::route::{Netlink, PlanError};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinHandle;

const V4: &str = "100.64.0.2";
const V6: &str = "fd00:706d:7a::2";

fn addresses() -> Vec<IpAddr> {
    vec![V4.parse().unwrap(), V6.parse().unwrap()]
}

struct Bench {
    dir: tempfile::TempDir,
    paths: Paths,
    client: HelperClient,
    server: JoinHandle<std::io::Result<()>>,
}

fn paths_in(dir: &Path) -> Paths {
    Paths {
        runtime: dir.join("run"),
        resolv_conf: dir.join("resolv.conf"),
    }
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let paths = paths_in(dir.path());
    fs::write(
        &paths.resolv_conf,
        "nameserver 192.0.2.1\nsearch corp.example\n",
    )
    .unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let owner = nix::unistd::getuid().as_raw();
    let server = tokio::spawn(serve(theirs, owner, paths.clone()));
    Bench {
        dir,
        paths,
        client: HelperClient::new(ours).unwrap(),
        server,
    }
}

impl Bench {
    async fn end(self) -> tempfile::TempDir {
        drop(self.client);
        let ended = tokio::time::timeout(Duration::from_secs(5), self.server).await;
        ended
            .expect("the helper outlives its peer")
            .unwrap()
            .unwrap();
        self.dir
    }
}

fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

/// Runs a test in a fresh network namespace, which is gone with the thread.
fn in_netns<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        // The test harness keeps to itself what a test that passes prints by macros.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: {name}: making namespaces needs root"
        );
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        block_on(async {
            let netlink = Netlink::open().unwrap();
            netlink.bring_up(1, 65_535).await.unwrap();
            test().await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T, HelperError>) {
    match result {
        Err(HelperError::Refused(Refusal::Invalid { .. })) => {}
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[tokio::test]
async fn requests_that_no_daemon_makes_are_refused_and_the_helper_serves_on() {
    let bench = bench();
    let client = &bench.client;
    invalid(client.open_tun("eth0", 1280, &addresses()).await);
    invalid(client.open_tun("pmz0", 576, &addresses()).await);
    invalid(
        client
            .open_tun("pmz0", 1280, &["127.0.0.1".parse().unwrap()])
            .await,
    );
    invalid(client.set_mtu(1400).await);
    invalid(client.set_addresses(&addresses()).await);
    invalid(
        client
            .add_routes(&["10.96.0.0/16".parse().unwrap()], Claim::Free)
            .await,
    );
    invalid(
        client
            .add_routes(&["0.0.0.0/0".parse().unwrap()], Claim::Overlapping)
            .await,
    );
    invalid(client.bind_dns(V4.parse().unwrap()).await);
    invalid(
        client
            .edit_resolv_conf(&["192.0.2.9".parse().unwrap()], &[])
            .await,
    );
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    invalid(client.set_congestion(tcp.as_fd(), "dctcp").await);
    client
        .set_congestion(tcp.as_fd(), "cubic")
        .await
        .unwrap_or_else(|e| match e {
            // Without the right, only the algorithms that are let to everybody.
            HelperError::Refused(Refusal::Failed { .. }) if !nix::unistd::geteuid().is_root() => {}
            other => panic!("{other}"),
        });
    bench.end().await;
}

#[tokio::test]
async fn what_is_no_request_ends_the_connection() {
    for bytes in [
        &b"{\"request\":\"reboot\"}"[..],
        b"\xff\xfe",
        b"{\"request\":\"set-mtu\",\"mtu\":1400,\"x\":1}",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let server = tokio::spawn(serve(theirs, 0, paths_in(dir.path())));
        nix::unistd::write(&ours, bytes).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .unwrap()
            .unwrap();
        assert!(ended.is_err(), "{bytes:?} was taken");
    }
}

#[tokio::test]
async fn a_second_helper_says_that_one_is_running() {
    let first = bench();
    first.client.control_socket().await.unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let second = tokio::spawn(serve(theirs, 0, first.paths.clone()));
    let channel = Channel::new(ours).unwrap();
    channel.send(&Request::ControlSocket, &[]).await.unwrap();
    let (answer, fds) = channel.recv::<Answer>().await.unwrap().unwrap();
    assert!(matches!(answer, Err(Refusal::Running { .. })), "{answer:?}");
    assert!(fds.is_empty());
    second.await.unwrap().unwrap();
    first.end().await;
}

#[tokio::test]
async fn the_control_socket_is_its_owners_alone_and_goes_with_the_helper() {
    let bench = bench();
    let listener = bench.client.control_socket().await.unwrap();
    let path = bench.paths.control_socket();
    let socket = fs::symlink_metadata(&path).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o600);
    assert_eq!(socket.uid(), nix::unistd::getuid().as_raw());
    let directory = fs::metadata(&bench.paths.runtime).unwrap();
    assert_eq!(directory.permissions().mode() & 0o777, 0o755);
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
    bench.end().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn the_client_hears_when_the_helper_is_gone() {
    let bench = bench();
    bench.server.abort();
    tokio::time::timeout(Duration::from_secs(5), bench.client.gone())
        .await
        .unwrap();
    assert!(matches!(
        bench.client.set_mtu(1400).await,
        Err(HelperError::Gone)
    ));
}

#[test]
fn the_tun_has_offloads_addresses_and_routes_and_is_gone_with_the_daemon() {
    in_netns("tun", || async {
        let bench = bench();
        let tun = bench
            .client
            .open_tun("pmz%d", 1340, &addresses())
            .await
            .unwrap();
        assert_eq!(tun.name, "pmz0");
        assert_eq!(tun_name(tun.fd.as_fd()).unwrap(), "pmz0");
        assert!(tun.offloads.checksum && tun.offloads.tso && tun.offloads.tso_ecn);
        let prefixes = [
            "10.96.0.0/16".parse().unwrap(),
            "fd00:10:96::/108".parse().unwrap(),
        ];
        bench
            .client
            .add_routes(&prefixes, Claim::Free)
            .await
            .unwrap();
        bench
            .client
            .add_routes(&prefixes, Claim::Free)
            .await
            .unwrap();
        bench.client.set_mtu(1400).await.unwrap();
        assert_eq!(
            held(),
            addresses(),
            "there must be no link-local address in a tunnel"
        );

        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.mtu(tun.index).await.unwrap(), 1400);
        let routes = netlink.routes().await.unwrap();
        for (prefix, source) in prefixes.iter().zip(addresses()) {
            let route = routes.iter().find(|r| r.prefix == *prefix).unwrap();
            assert_eq!(
                (route.index, route.prefsrc),
                (Some(tun.index), Some(source))
            );
        }
        invalid(bench.client.open_tun("pmz1", 1340, &addresses()).await);

        drop(tun);
        bench.end().await;
        assert!(
            !netlink.link_names().await.unwrap().contains_key(&2),
            "the TUN stays"
        );
        let left = netlink.routes().await.unwrap();
        assert!(
            left.iter().all(|r| !prefixes.contains(&r.prefix)),
            "{left:?}"
        );
    });
}

#[test]
fn connections_from_the_tunnels_addresses_are_ended_and_no_others() {
    in_netns("connections", || async {
        let bench = bench();
        bench
            .client
            .open_tun("pmz0", 1340, &addresses())
            .await
            .unwrap();
        // Others of this machine's addresses play what is behind the tunnel.
        let netlink = Netlink::open().unwrap();
        let behind: [IpAddr; 2] = ["192.0.2.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        for address in behind {
            netlink.add_address(1, address).await.unwrap();
        }
        // The kernel adds IPv6's local routes by a worker of its own, a moment after the addresses.
        let limit = Instant::now() + Duration::from_secs(5);
        let is_there = |to: &IpAddr| {
            let socket = UdpSocket::bind((V6, 0)).and_then(|socket| socket.connect((*to, 9)));
            to.is_ipv4() || socket.is_ok()
        };
        while !behind.iter().all(is_there) {
            assert!(Instant::now() < limit, "the addresses do not come");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut connections = Vec::new();
        for (from, to, is_ended) in [
            (V4.to_owned(), behind[0], true),
            (V6.to_owned(), behind[1], true),
            // A socket of both families.
            (format!("::ffff:{V4}"), behind[0], true),
            ("192.0.2.9".to_owned(), behind[0], false),
            (V4.to_owned(), V4.parse().unwrap(), false),
        ] {
            let from: IpAddr = from.parse().unwrap();
            let listener = TcpListener::bind((to, 0)).unwrap();
            let to = match from {
                IpAddr::V6(_) if to.is_ipv4() => format!("::ffff:{to}").parse().unwrap(),
                _ => to,
            };
            let at = SocketAddr::new(to, listener.local_addr().unwrap().port());
            // Routes of IPv6 may go and come once more, when the kernel hears that the TUN has a carrier.
            let socket = loop {
                let socket =
                    Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))
                        .unwrap();
                socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
                match socket.connect(&at.into()) {
                    Ok(()) => break socket,
                    Err(error) if error.kind() != ErrorKind::NetworkUnreachable => {
                        panic!("{error}")
                    }
                    Err(error) => assert!(Instant::now() < limit, "{from} to {at}: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            socket
                .set_read_timeout(Some(Duration::from_secs(1)))
                .unwrap();
            let accepted = listener.accept().unwrap().0;
            connections.push((TcpStream::from(socket), accepted, is_ended));
        }
        bench.client.abort_connections().await.unwrap();
        for (mut client, mut server, is_ended) in connections {
            if is_ended {
                let error = client.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
                let error = server.read(&mut [0]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            } else {
                server.write_all(b"x").unwrap();
                assert_eq!(client.read(&mut [0]).unwrap(), 1);
            }
        }
        bench.end().await;
    });
}

#[test]
fn routes_keep_leading_into_the_tunnel_when_its_addresses_change() {
    in_netns("addresses", || async {
        let bench = bench();
        let tun = bench
            .client
            .open_tun("pmz0", 1340, &addresses())
            .await
            .unwrap();
        let prefix: ipnet::IpNet = "10.96.0.0/16".parse().unwrap();
        let prefix6: ipnet::IpNet = "fd00:10:96::/108".parse().unwrap();
        bench
            .client
            .add_routes(&[prefix, prefix6], Claim::Free)
            .await
            .unwrap();
        let new: [IpAddr; 2] = [
            "100.64.0.9".parse().unwrap(),
            "fd00:706d:7a::9".parse().unwrap(),
        ];
        bench.client.set_addresses(&new).await.unwrap();
        let routes = Netlink::open().unwrap().routes().await.unwrap();
        for (prefix, source) in [(prefix, new[0]), (prefix6, new[1])] {
            let same: Vec<_> = routes.iter().filter(|r| r.prefix == prefix).collect();
            assert_eq!(same.len(), 1, "{same:?}");
            assert_eq!(
                (same[0].index, same[0].prefsrc),
                (Some(tun.index), Some(source))
            );
        }
        assert_eq!(held(), new);
        bench.client.remove_routes(&[prefix]).await.unwrap();
        let routes = Netlink::open().unwrap().routes().await.unwrap();
        assert!(routes.iter().all(|r| r.prefix != prefix), "{routes:?}");
        bench.end().await;
    });
}

#[test]
fn a_prefix_that_goes_elsewhere_is_not_taken() {
    in_netns("conflict", || async {
        let netlink = Netlink::open().unwrap();
        netlink
            .add_route(1, "10.0.0.0/8".parse().unwrap(), None, None)
            .await
            .unwrap();
        netlink
            .add_route(1, "10.97.0.0/16".parse().unwrap(), None, None)
            .await
            .unwrap();
        let bench = bench();
        bench
            .client
            .open_tun("pmz0", 1340, &addresses())
            .await
            .unwrap();
        let services = ["10.96.0.0/16".parse().unwrap()];
        match bench.client.add_routes(&services, Claim::Free).await {
            Err(HelperError::Refused(Refusal::Unroutable {
                why: PlanError::Clashes { clashes },
            })) => {
                assert_eq!(
                    clashes.to_string(),
                    "10.96.0.0/16 lies in 10.0.0.0/8, which goes to lo"
                );
            }
            other => panic!("{other:?}"),
        }
        bench
            .client
            .add_routes(&services, Claim::Overlapping)
            .await
            .unwrap();
        let same = bench
            .client
            .add_routes(&["10.97.0.0/16".parse().unwrap()], Claim::Overlapping)
            .await;
        assert!(
            matches!(same, Err(HelperError::Refused(Refusal::Unroutable { .. }))),
            "{same:?}"
        );
        bench.end().await;
    });
}

#[test]
fn port_53_and_large_buffers_come_from_the_helper() {
    in_netns("sockets", || async {
        let bench = bench();
        bench
            .client
            .open_tun("pmz0", 1340, &addresses())
            .await
            .unwrap();
        for address in addresses() {
            let (udp, tcp) = bench.client.bind_dns(address).await.unwrap();
            assert_eq!(udp.local_addr().unwrap(), SocketAddr::new(address, 53));
            assert_eq!(tcp.local_addr().unwrap(), SocketAddr::new(address, 53));
            std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        }
        invalid(bench.client.bind_dns("100.64.0.77".parse().unwrap()).await);
        for family in [Family::V4, Family::V6] {
            let udp = socket2::Socket::from(bench.client.open_udp(family).await.unwrap());
            assert!(udp.recv_buffer_size().unwrap() >= 8 << 20);
            assert!(udp.send_buffer_size().unwrap() >= 8 << 20);
        }
        bench.end().await;
    });
}

#[test]
fn resolv_conf_leads_to_the_tunnel_until_the_helper_ends() {
    in_netns("resolv.conf", || async {
        let bench = bench();
        bench
            .client
            .open_tun("pmz0", 1340, &addresses())
            .await
            .unwrap();
        let before = bench
            .client
            .edit_resolv_conf(&addresses()[..1], &[])
            .await
            .unwrap();
        assert_eq!(
            before.nameservers,
            ["192.0.2.1:53".parse::<SocketAddr>().unwrap()]
        );
        assert_eq!(before.search, ["corp.example"]);
        let path = bench.paths.resolv_conf.clone();
        let now = fs::read_to_string(&path).unwrap();
        assert!(
            now.contains("nameserver 100.64.0.2\n") && !now.contains("192.0.2.1"),
            "{now}"
        );
        let _dir = bench.end().await;
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            "nameserver 192.0.2.1\nsearch corp.example\n"
        );
    });
}

/// Where this is set, the test below is the pmz that will be killed.
const VICTIM: &str = "PMZ_TEST_VICTIM_DIR";

#[test]
fn the_next_start_puts_resolv_conf_back_after_both_were_killed() {
    let name = "the_next_start_puts_resolv_conf_back_after_both_were_killed";
    if let Some(dir) = std::env::var_os(VICTIM) {
        in_netns(name, move || async move {
            let paths = paths_in(Path::new(&dir));
            let (ours, theirs) = Channel::pair().unwrap();
            tokio::spawn(serve(theirs, 0, paths));
            let client = HelperClient::new(ours).unwrap();
            client.open_tun("pmz0", 1340, &addresses()).await.unwrap();
            client.control_socket().await.unwrap();
            client
                .edit_resolv_conf(&addresses()[..1], &[])
                .await
                .unwrap();
            std::io::stderr().write_all(b"edited\n").unwrap();
            std::future::pending::<()>().await;
        });
        return;
    }
    in_netns(name, move || async move {
        let dir = tempfile::tempdir().unwrap();
        let paths = paths_in(dir.path());
        let old = "nameserver 192.0.2.1\n# not ours\n";
        fs::write(&paths.resolv_conf, old).unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(VICTIM, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        let mut stderr = victim.stderr.take().unwrap();
        while !said.ends_with(b"edited\n") {
            let mut byte = [0];
            assert_eq!(
                stderr.read(&mut byte).unwrap(),
                1,
                "{}",
                String::from_utf8_lossy(&said)
            );
            said.push(byte[0]);
        }
        assert!(
            fs::read_to_string(&paths.resolv_conf)
                .unwrap()
                .contains("100.64.0.2")
        );
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert!(paths.journal().exists() && paths.control_socket().exists());

        let (ours, theirs) = Channel::pair().unwrap();
        let server = tokio::spawn(serve(theirs, 0, paths.clone()));
        let channel = Channel::new(ours).unwrap();
        channel.send(&Request::ControlSocket, &[]).await.unwrap();
        let (answer, _fds) = channel.recv::<Answer>().await.unwrap().unwrap();
        assert_eq!(answer, Ok(Reply::Socket));
        assert_eq!(fs::read_to_string(&paths.resolv_conf).unwrap(), old);
        assert!(!paths.journal().exists());
        drop(channel);
        server.await.unwrap().unwrap();
    });
}

/// The addresses of `pmz0` in this thread's namespace.
fn held() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs()
        .unwrap()
        .filter(|a| a.interface_name == "pmz0");
    all.filter_map(|a| {
        let address = a.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    })
    .collect()
}
