//! The guard before the tunnel's UDP socket.

use std::io::Write;
use std::net::IpAddr;

use pmz_cli::helper::{Family, HelperError, Refusal};
use pmz_net::route::Netlink;

use super::{bench, in_netns, invalid};

/// Junk for the tunnel's port, as it comes by a TUN.
fn junk(port: u16) -> Vec<u8> {
    let payload = [0xee_u8; 64];
    let length = u8::try_from(8 + payload.len()).unwrap();
    let mut frame = vec![0; pmz_net::packet::VNET_HDR_LEN];
    frame.extend([0x45, 0, 0, 20 + length, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([203, 0, 113, 9, 192, 0, 2, 1]);
    frame.extend(4000_u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, length, 0, 0]);
    frame.extend(payload);
    frame
}

#[test]
fn the_guard_is_where_the_way_leads_and_moves_with_it() {
    in_netns("guard", || async {
        let bench = bench();
        let netlink = Netlink::open().unwrap();
        let agent: IpAddr = "203.0.113.9".parse().unwrap();
        let way = "203.0.113.0/24".parse().unwrap();
        invalid(bench.client.guard(agent, 1).await);
        let udp = bench.client.open_udp(Family::V6).await.unwrap();
        let port = udp.local_addr().unwrap().port();
        let lost = bench.client.guard(agent, 1).await;
        assert!(
            matches!(
                &lost,
                Err(HelperError::Refused(Refusal::Failed { message })) if message.contains("203.0.113.9")
            ),
            "{lost:?}"
        );

        let mut lans = Vec::new();
        for (name, address) in [("lan0", "192.0.2.1"), ("lan1", "198.51.100.1")] {
            let tun = pmz_net::device::open_tun(name).unwrap();
            netlink.bring_up(tun.index, 1500).await.unwrap();
            netlink
                .add_address(tun.index, address.parse().unwrap())
                .await
                .unwrap();
            lans.push((tun.index, pmz_net::device::Tun::new(tun.fd).unwrap()));
        }
        netlink.add_route(lans[0].0, way, None).await.unwrap();
        for _ in 0..2 {
            let guarded = match bench.client.guard(agent, 1).await {
                Err(HelperError::Refused(Refusal::NoEbpf { why })) => {
                    let _ = writeln!(std::io::stderr(), "skipped: guard: {why}");
                    return;
                }
                guarded => guarded.unwrap(),
            };
            assert_eq!(guarded.device.as_deref(), Some("lan0"));
        }
        lans[0].1.send(&junk(port)).unwrap();
        lans[1].1.send(&junk(port)).unwrap();
        let guarded = bench.client.guard(agent, 1).await.unwrap();
        assert_eq!(guarded.report.kind, 1);

        netlink.remove_route(lans[0].0, way).await.unwrap();
        netlink.add_route(lans[1].0, way, None).await.unwrap();
        let guarded = bench.client.guard(agent, 2).await.unwrap();
        assert_eq!(guarded.device.as_deref(), Some("lan1"));
        assert_eq!(guarded.report.kind, 1, "what was counted is lost");
        lans[0].1.send(&junk(port)).unwrap();
        lans[1].1.send(&junk(port)).unwrap();
        let guarded = bench.client.guard(agent, 2).await.unwrap();
        assert_eq!(guarded.report.kind, 2);
        bench.end().await;
    });
}
