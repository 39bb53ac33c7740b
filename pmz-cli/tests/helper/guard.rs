//! The guard before the tunnel's UDP socket.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use pmz_cli::helper::{Family, HelperError, Refusal};

use super::{bench, in_netns, invalid};

#[test]
fn the_guard_stands_before_the_newest_socket_and_loses_no_count() {
    in_netns("guard", || async {
        let bench = bench();
        invalid(bench.client.guard(1).await);
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let junk = [0xee_u8; 64];
        let mut initiation = [0_u8; 148];
        initiation[0] = 1;
        for dropped in 1..=2 {
            let tunnel = bench.client.open_udp(Family::V6).await.unwrap();
            let port = tunnel.local_addr().unwrap().port();
            let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
            tunnel
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            for peer in 1..=2 {
                match bench.client.guard(peer).await {
                    Err(HelperError::Refused(Refusal::NoEbpf { why })) => {
                        let _ = writeln!(std::io::stderr(), "skipped: guard: {why}");
                        return;
                    }
                    guarded => guarded.unwrap(),
                };
            }
            sender.send_to(&junk, to).unwrap();
            sender.send_to(&initiation, to).unwrap();
            let mut buffer = [0; 256];
            assert_eq!(tunnel.recv(&mut buffer).unwrap(), initiation.len());
            let report = bench.client.guard(2).await.unwrap();
            assert_eq!((report.kind, report.passed), (dropped, dropped));
        }
        bench.end().await;
    });
}
