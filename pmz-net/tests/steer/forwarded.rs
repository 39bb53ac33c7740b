//! A container's packets, which the machine forwards: they come from an Ethernet device and go back there.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rtnetlink::RouteMessageBuilder;

use crate::common::cables::give;
use crate::common::skip::need_root;
use crate::scene::{Side, Wire};
use crate::sockets::{FAMILIES, SOON, at, attached, error_after_sending, pattern, remapped};
use crate::trial::ip;

const BRIDGE: [&str; 2] = ["172.17.0.1", "fd00:17::1"];
const CONTAINER: [&str; 2] = ["172.17.0.2", "fd00:17::2"];

/// A container of the machine's.
pub(crate) fn container(machine: &Side) -> Side {
    let container = Side::new(&[], &[]);
    machine
        .namespace()
        .join("veth0", container.namespace(), "eth0");
    machine.namespace().with_links(|handle| async move {
        give(&handle, "veth0", &BRIDGE.map(ip)).await;
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
        }
    });
    container.namespace().with_links(|handle| async move {
        let index = give(&handle, "eth0", &CONTAINER.map(ip)).await;
        let gateways: (Ipv4Addr, Ipv6Addr) =
            (BRIDGE[0].parse().unwrap(), BRIDGE[1].parse().unwrap());
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateways.0)
            .output_interface(index)
            .build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(gateways.1)
            .output_interface(index)
            .build();
        handle.route().add(v4).execute().await.unwrap();
        handle.route().add(v6).execute().await.unwrap();
    });
    container
}

#[test]
fn a_container_is_refused_as_the_machine_is() {
    need_root!();
    let machine = Side::machine();
    let container = container(&machine);
    let _steering = attached(&machine);
    for address in ["10.96.7.7", "fd00:96::77"] {
        let begun = Instant::now();
        let connect = || TcpStream::connect_timeout(&at(address, 80), Duration::from_secs(5));
        let error = container.run(connect).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "{address}: {error}"
        );
        let error = error_after_sending(&container, address, b"a query");
        assert_eq!(
            error.kind(),
            io::ErrorKind::ConnectionRefused,
            "{address}: {error}"
        );
        assert!(
            begun.elapsed() < 2 * SOON,
            "{address}: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn a_container_reaches_a_service_by_its_stand_in() {
    need_root!();
    let machine = Side::machine();
    let container = container(&machine);
    let cluster = Side::new(
        &["10.96.0.10", "fd00:96::10"],
        &["172.17.0.0/24", "fd00:17::/64"],
    );
    let _steering = remapped(&machine);
    let wire = Wire::between(&machine, &cluster, true, None);
    for (used, real) in FAMILIES {
        let listener = cluster.run(|| TcpListener::bind(at(real, 80))).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            let mut data = vec![0; 1_000_000];
            stream.read_exact(&mut data).unwrap();
            stream.write_all(&data).unwrap();
            peer.ip()
        });
        let connect = || TcpStream::connect_timeout(&at(used, 80), Duration::from_secs(5));
        let mut stream = container.run(connect).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let data = &pattern()[..1_000_000];
        stream.write_all(data).unwrap();
        let mut back = vec![0; data.len()];
        stream.read_exact(&mut back).unwrap();
        assert!(back == data, "other bytes came back");
        let peer = server.join().unwrap();
        assert!(CONTAINER.map(ip).contains(&peer), "{peer}");
    }
    assert_eq!(wire.wrong(), 0, "wrong checksums");
}
