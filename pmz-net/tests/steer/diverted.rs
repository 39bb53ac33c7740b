//! Real traffic that a route leads past the TUN: to a VPN's device, or through a gateway on Ethernet.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use pmz_net::device::{OpenTun, open_tun};
use pmz_net::route::Netlink;
use pmz_net::steer::{Attachment, Diversion, LEASE, Steering};
use rtnetlink::RouteMessageBuilder;

use crate::common::skip::need_root;
use crate::forwarded::container;
use crate::scene::{DEVICE, MACHINE, Side, Wire};
use crate::sockets::{
    SOON, TEN_MEGABYTES, at, cluster, error_after_sending, pattern, put, set_up, within,
};
use crate::trial::ip;

const SERVICES: [&str; 2] = ["10.96.0.10", "fd00:96::10"];
const PREFIXES: [&str; 2] = ["10.96.0.0/12", "fd00:96::/64"];
const VPN: &str = "vpn0";
const VPN_ADDRESSES: [&str; 2] = ["10.9.0.2", "fd00:9::2"];

/// What packets to services would leave by.
enum Elsewhere {
    Vpn(OpenTun),
    Gateway {
        /// It goes with this.
        _side: Side,
    },
}

impl Elsewhere {
    fn device(&self) -> &'static str {
        match self {
            Self::Vpn(_) => VPN,
            Self::Gateway { .. } => "veth0",
        }
    }

    fn addresses(&self) -> [IpAddr; 2] {
        match self {
            Self::Vpn(_) => VPN_ADDRESSES.map(ip),
            Self::Gateway { .. } => ["172.17.0.1", "fd00:17::1"].map(ip),
        }
    }
}

fn vpn(machine: &Side) -> OpenTun {
    machine.namespace().block_on(|| async {
        let tun = open_tun(VPN).unwrap();
        let netlink = Netlink::open().unwrap();
        netlink.bring_up(tun.index, 1400).await.unwrap();
        for address in VPN_ADDRESSES {
            netlink.add_address(tun.index, ip(address)).await.unwrap();
        }
        for prefix in PREFIXES {
            let prefix = prefix.parse().unwrap();
            netlink
                .add_route(tun.index, prefix, None, None)
                .await
                .unwrap();
        }
        tun
    })
}

fn gateway(machine: &Side) -> Side {
    let gateway = container(machine);
    machine.namespace().with_links(|handle| async move {
        let index = if_nametoindex("veth0").unwrap();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix("10.96.0.0".parse().unwrap(), 12)
            .gateway("172.17.0.2".parse().unwrap())
            .output_interface(index)
            .build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix("fd00:96::".parse().unwrap(), 64)
            .gateway("fd00:17::2".parse().unwrap())
            .output_interface(index)
            .build();
        handle.route().add(v4).execute().await.unwrap();
        handle.route().add(v6).execute().await.unwrap();
    });
    gateway
}

/// A machine whose packets to services leave by another device, and that takes answers only from there.
fn machine(elsewhere: fn(&Side) -> Elsewhere) -> (Side, Elsewhere) {
    let machine = Side::new(&MACHINE, &[]);
    let elsewhere = elsewhere(&machine);
    machine.run(|| {
        for device in ["all", DEVICE, elsewhere.device()] {
            let path = format!("/proc/sys/net/ipv4/conf/{device}/rp_filter");
            fs::write(path, "1").unwrap();
        }
    });
    (machine, elsewhere)
}

const BOTH: [fn(&Side) -> Elsewhere; 2] = [
    |machine| Elsewhere::Vpn(vpn(machine)),
    |machine| Elsewhere::Gateway {
        _side: gateway(machine),
    },
];

fn diversion(machine: &Side) -> Diversion {
    Diversion {
        addresses: MACHINE.map(ip).to_vec(),
        tun: machine.run(|| if_nametoindex(DEVICE)).unwrap(),
        mtu: 1400,
    }
}

/// The programs at the TUN and at that device.
///
/// Without an attachment, it is the kernel's own.
fn diverting(machine: &Side, device: &str, how: Option<Attachment>) -> Steering {
    let steering = machine.run(|| match how {
        Some(how) => Steering::attach_as(DEVICE, how),
        None => Steering::attach(DEVICE),
    });
    let mut steering = set_up(steering.unwrap());
    for service in SERVICES {
        put(&mut steering, service, None, false);
    }
    follow(machine, &mut steering, &[device]);
    steering
}

/// Plays while the lease is renewed, as the helper does it: an emulated machine is slow.
fn renewed(
    machine: &Side,
    device: &str,
    steering: Steering,
    play: impl FnOnce(&Mutex<Steering>),
) -> Steering {
    let steering = Mutex::new(steering);
    std::thread::scope(|scope| {
        // The thread ends with this, also where the play fails.
        let (_stop, stopped) = mpsc::channel::<()>();
        let kept = &steering;
        scope.spawn(move || {
            let again = Err(mpsc::RecvTimeoutError::Timeout);
            while stopped.recv_timeout(LEASE / 4) == again {
                follow(machine, &mut kept.lock().unwrap(), &[device]);
            }
        });
        play(kept);
    });
    steering.into_inner().unwrap()
}

fn follow(machine: &Side, steering: &mut Steering, devices: &[&str]) {
    let diversion = diversion(machine);
    let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
    let told = machine
        .run(|| steering.divert(&diversion, &devices))
        .unwrap();
    for device in told {
        assert_eq!(device.missing, None, "{}", device.device);
    }
}

fn connect(machine: &Side, address: &str) -> std::io::Result<TcpStream> {
    let stream =
        machine.run(|| TcpStream::connect_timeout(&at(address, 80), Duration::from_secs(5)))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// A server of the cluster's that sends back what it got, once it has all of it; and whom it saw.
fn echo(cluster: &Side, address: &str) -> std::thread::JoinHandle<IpAddr> {
    let listener = cluster.run(|| TcpListener::bind(at(address, 80))).unwrap();
    std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        stream.write_all(&received).unwrap();
        peer.ip()
    })
}

#[test]
fn a_diverted_connection_moves_megabytes_both_ways_in_super_packets_past_a_strict_reverse_path_filter()
 {
    need_root!();
    for make in BOTH {
        for how in [None, Some(Attachment::Clsact)] {
            let (machine, elsewhere) = machine(make);
            let cluster = cluster();
            let device = elsewhere.device();
            let steering = diverting(&machine, device, how);
            let steering = renewed(&machine, device, steering, |_| {
                for family in 0..2 {
                    let wire = Wire::between(&machine, &cluster, true, Some(SERVICES[family]));
                    let server = echo(&cluster, SERVICES[family]);
                    let mut stream = connect(&machine, SERVICES[family]).unwrap();
                    assert_eq!(
                        stream.local_addr().unwrap().ip(),
                        elsewhere.addresses()[family]
                    );
                    let data = pattern();
                    stream.write_all(&data).unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut received = Vec::new();
                    stream.read_to_end(&mut received).unwrap();
                    assert_eq!(received.len(), TEN_MEGABYTES);
                    assert!(received == data, "what came back is something else");
                    assert_eq!(server.join().unwrap(), ip(MACHINE[family]));
                    for way in [&wire.out, &wire.back] {
                        assert_eq!(way.wrong.load(Ordering::Relaxed), 0, "wrong checksums");
                        assert!(
                            way.super_packets.load(Ordering::Relaxed) > 10,
                            "hardly a super-packet at {}",
                            elsewhere.device()
                        );
                    }
                }
            });
            machine.run(move || drop(steering));
        }
    }
}

#[test]
fn diverted_datagrams_come_back_and_what_refuses_them_is_heard() {
    need_root!();
    for make in BOTH {
        let (machine, elsewhere) = machine(make);
        let cluster = cluster();
        let device = elsewhere.device();
        let steering = diverting(&machine, device, None);
        let steering = renewed(&machine, device, steering, |steering| {
            let _wire = Wire::between(&machine, &cluster, true, None);
            for service in SERVICES {
                let server = cluster.run(|| UdpSocket::bind(at(service, 7))).unwrap();
                server.set_read_timeout(Some(SOON)).unwrap();
                let any = if ip(service).is_ipv4() {
                    "0.0.0.0:0"
                } else {
                    "[::]:0"
                };
                let client = machine.run(|| UdpSocket::bind(any)).unwrap();
                client
                    .set_read_timeout(Some(Duration::from_secs(5)))
                    .unwrap();
                machine.run(|| client.connect(at(service, 7))).unwrap();
                // The second one goes and comes back in fragments.
                for size in [100, 4000] {
                    let data = vec![7; size];
                    let mut buffer = vec![0; 5000];
                    // Pieces that fit the other device may be too large for the tunnel. The kernel hears of it from the
                    // first datagram, says EMSGSIZE once (udp(7)), and cuts the next one smaller.
                    let sent = (0..3).find_map(|_| {
                        client.send(&data).ok()?;
                        server.recv_from(&mut buffer).ok()
                    });
                    let (length, from) = sent.unwrap_or_else(|| {
                        panic!(
                            "{service}: {size} bytes don't arrive from {}",
                            elsewhere.device()
                        )
                    });
                    assert_eq!(length, size);
                    server.send_to(&buffer[..length], from).unwrap();
                    assert_eq!(client.recv(&mut buffer).unwrap(), size, "{service}");
                }
                // The cluster's machine says that nobody listens.
                let error = error_after_sending(&machine, service, b"nobody");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{service}");
            }
            // The programs at the TUN say so of what no service has, and of one without endpoints.
            for service in SERVICES {
                put(&mut steering.lock().unwrap(), service, None, true);
            }
            for address in ["10.96.7.7", "fd00:96::77", SERVICES[0], SERVICES[1]] {
                let error = connect(&machine, address).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
                let error = error_after_sending(&machine, address, b"nobody");
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
            }
        });
        let report = steering.report().unwrap();
        assert_eq!(report.drops.failed + report.drops.malformed, 0);
    }
}

#[test]
fn two_flows_that_only_their_source_tells_apart_are_not_mixed_up() {
    need_root!();
    let (machine, elsewhere) = machine(BOTH[0]);
    let cluster = cluster();
    let steering = diverting(&machine, elsewhere.device(), None);
    let _wire = Wire::between(&machine, &cluster, true, None);
    let listener = cluster
        .run(|| TcpListener::bind(at(SERVICES[0], 80)))
        .unwrap();
    let from = |address: &str| {
        machine.run(|| {
            let socket = socket2::Socket::new(
                socket2::Domain::IPV4,
                socket2::Type::STREAM,
                Some(socket2::Protocol::TCP),
            )
            .unwrap();
            socket.bind(&at(address, 4000).into()).unwrap();
            socket
                .connect_timeout(&at(SERVICES[0], 80).into(), Duration::from_secs(5))
                .map(|()| TcpStream::from(socket))
        })
    };
    let mut first = from(VPN_ADDRESSES[0]).unwrap();
    let error = from(MACHINE[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"still there").unwrap();
    let mut buffer = [0; 11];
    first
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    first.read_exact(&mut buffer).unwrap();
    assert_eq!(steering.report().unwrap().refusals.collided, 1);
}

#[test]
fn a_routed_flow_and_a_diverted_one_are_not_mixed_up_either() {
    need_root!();
    let (machine, elsewhere) = machine(BOTH[0]);
    let cluster = cluster();
    let steering = diverting(&machine, elsewhere.device(), None);
    let _wire = Wire::between(&machine, &cluster, true, None);
    let routed = "10.96.0.10/32";
    let lead = |into: bool| {
        machine.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let netlink = Netlink::open().unwrap();
                let index = if_nametoindex(DEVICE).unwrap();
                let prefix = routed.parse().unwrap();
                if into {
                    netlink.add_route(index, prefix, None, None).await.unwrap();
                } else {
                    netlink.remove_route(index, prefix).await.unwrap();
                }
            });
        });
    };
    let server = cluster.run(|| UdpSocket::bind(at(SERVICES[0], 7))).unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    let from = |address: &str| {
        let socket = machine.run(|| UdpSocket::bind(at(address, 4000))).unwrap();
        machine.run(|| socket.connect(at(SERVICES[0], 7))).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    };
    let mut buffer = [0; 64];
    lead(true);
    let first = from(MACHINE[0]);
    first.send(b"routed").unwrap();
    let (_, back) = server.recv_from(&mut buffer).unwrap();
    lead(false);
    let second = from(VPN_ADDRESSES[0]);
    second.send(b"diverted").unwrap();
    let error = second.recv(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // Its next packet is diverted, and shows where answers are expected now.
    first.send(b"still routed, it thinks").unwrap();
    server.recv_from(&mut buffer).unwrap();
    server.send_to(b"to the first", back).unwrap();
    assert_eq!(first.recv(&mut buffer).unwrap(), 12);
    assert_eq!(steering.report().unwrap().refusals.collided, 1);
}

#[test]
fn a_filter_that_nobody_renews_lets_packets_take_their_own_way() {
    need_root!();
    let (machine, elsewhere) = machine(BOTH[0]);
    let Elsewhere::Vpn(tun) = &elsewhere else {
        unreachable!()
    };
    let vpn = pmz_net::device::Tun::new(tun.fd.try_clone().unwrap()).unwrap();
    let begun = std::time::Instant::now();
    let mut steering = diverting(&machine, VPN, Some(Attachment::Clsact));
    let send = || {
        machine.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"somewhere", at(SERVICES[0], 9)).unwrap();
        });
    };
    let mut frame = vec![0; 2000];
    let mut took_its_own_way = || {
        while let Ok(length) = vpn.recv(&mut frame) {
            if frame[..length].ends_with(b"somewhere") {
                return true;
            }
        }
        false
    };
    send();
    assert!(machine.next(SOON).is_some(), "it was not diverted");
    assert!(!took_its_own_way());
    assert!(
        within(LEASE + SOON, || {
            send();
            took_its_own_way()
        }),
        "it is still diverted"
    );
    assert!(begun.elapsed() > LEASE, "{:?}", begun.elapsed());
    // Whoever comes back takes it up again.
    while machine.next(Duration::ZERO).is_some() {}
    follow(&machine, &mut steering, &[VPN]);
    send();
    assert!(machine.next(SOON).is_some(), "it is not diverted again");
    machine.run(move || drop(steering));
    send();
    assert!(within(SOON, took_its_own_way), "the filter is still there");
}

#[test]
fn a_device_that_vanishes_is_told_and_diverted_from_again_when_it_is_back() {
    need_root!();
    let (machine, elsewhere) = machine(BOTH[0]);
    let mut steering = diverting(&machine, VPN, None);
    drop(elsewhere);
    let names = [VPN.to_owned()];
    let told = machine.run(|| steering.divert(&diversion(&machine), &names));
    let missing = told.unwrap()[0].missing.clone().unwrap();
    assert!(missing.contains(VPN), "{missing}");
    let _back = vpn(&machine);
    follow(&machine, &mut steering, &[VPN]);
    machine.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"somewhere", at(SERVICES[0], 9)).unwrap();
    });
    assert!(machine.next(SOON).is_some(), "it was not diverted");
}

#[test]
fn what_carries_the_tunnel_is_not_diverted_into_it() {
    need_root!();
    let (machine, _elsewhere) = machine(BOTH[0]);
    let mut steering = diverting(&machine, VPN, None);
    let carrier = machine.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let cookie = socket2::SockRef::from(&carrier).cookie().unwrap();
    steering.set_carriers(&[cookie]).unwrap();
    carrier.send_to(b"wireguard", at(SERVICES[0], 9)).unwrap();
    assert_eq!(machine.next(Duration::from_millis(50)), None);
    steering.set_carriers(&[]).unwrap();
    carrier.send_to(b"wireguard", at(SERVICES[0], 9)).unwrap();
    assert!(machine.next(SOON).is_some());
}
