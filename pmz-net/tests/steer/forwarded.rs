//! A container's packets, which the machine forwards: they come from an Ethernet device and go back there.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkInfo};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::scene::{Side, Wire};
use crate::skip::need_root;
use crate::sockets::{FAMILIES, SOON, at, attached, error_after_sending, pattern, remapped};
use crate::trial::ip;

const BRIDGE: [(&str, u8); 2] = [("172.17.0.1", 24), ("fd00:17::1", 64)];
const CONTAINER: [(&str, u8); 2] = [("172.17.0.2", 24), ("fd00:17::2", 64)];

/// Runs `f` in the side's namespace, with rtnetlink.
fn with_links<F: Future<Output = ()>>(side: &Side, f: impl FnOnce(Handle) -> F + Send) {
    side.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().unwrap();
            let connection = tokio::spawn(connection);
            f(handle).await;
            connection.abort();
        });
    });
}

async fn give(handle: &Handle, device: &str, addresses: &[(&str, u8)]) -> u32 {
    let index = nix::net::if_::if_nametoindex(device).unwrap();
    for (address, bits) in addresses {
        let mut request = handle.address().add(index, ip(address), *bits);
        if ip(address).is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.unwrap();
    }
    handle
        .link()
        .set(LinkUnspec::new_with_index(index).up().build())
        .execute()
        .await
        .unwrap();
    index
}

/// A container of the machine's.
fn container(machine: &Side) -> Side {
    let container = Side::new(&[], &[]);
    let fd = container.namespace().as_fd().as_raw_fd();
    with_links(machine, move |handle| async move {
        let mut veth = LinkVeth::new("veth0", "eth0").build();
        for attribute in &mut veth.attributes {
            let LinkAttribute::LinkInfo(infos) = attribute else {
                continue;
            };
            for info in infos {
                if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) = info {
                    peer.attributes.push(LinkAttribute::NetNsFd(fd));
                }
            }
        }
        handle.link().add(veth).execute().await.unwrap();
        give(&handle, "veth0", &BRIDGE).await;
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
        }
    });
    with_links(&container, |handle| async move {
        let index = give(&handle, "eth0", &CONTAINER).await;
        let gateways: (Ipv4Addr, Ipv6Addr) =
            (BRIDGE[0].0.parse().unwrap(), BRIDGE[1].0.parse().unwrap());
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
        assert!(CONTAINER.iter().any(|(own, _)| ip(own) == peer), "{peer}");
    }
    assert_eq!(wire.wrong(), 0, "wrong checksums");
}
