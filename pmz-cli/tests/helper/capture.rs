//! DNS queries that are caught.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use pmz_cli::helper::{HelperError, Refusal};
use pmz_net::capture::{Slot, receive};

use super::{addresses, bench, in_netns, invalid};

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks that server by a socket of its own.
fn ask(server: SocketAddr) -> std::io::Result<UdpSocket> {
    let any = if server.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let client = UdpSocket::bind(any)?;
    client.connect(server)?;
    client.send(b"query")?;
    Ok(client)
}

#[test]
fn queries_are_caught_from_when_the_daemon_wants_it_until_it_does_not() {
    in_netns("capture", || async {
        let bench = bench();
        let helper = &bench.client;
        invalid(helper.catch_queries().await);
        helper.open_tun("pmz0", 1280, &addresses()).await.unwrap();
        invalid(helper.asked_server(Slot(1)).await);
        // Nothing of either network leads anywhere.
        let servers = ["192.0.2.53:53", "[2001:db8::53]:53"];
        let servers: Vec<SocketAddr> = servers.iter().map(|it| it.parse().unwrap()).collect();
        for _ in 0..2 {
            let caught = match helper.catch_queries().await {
                Err(HelperError::Refused(Refusal::NoEbpf { why })) => {
                    let _ = writeln!(std::io::stderr(), "skipped: capture: {why}");
                    return;
                }
                caught => caught.unwrap(),
            };
            invalid(helper.catch_queries().await);
            let [(v4, _), (v6, _)] = [caught.sockets.v4, caught.sockets.v6.unwrap()];
            for (socket, server) in [v4, v6].into_iter().zip(&servers) {
                let client = ask(*server).unwrap();
                assert_eq!(client.peer_addr().unwrap(), *server);
                let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
                let came = tokio::time::timeout(PATIENCE, socket.readable());
                came.await.expect("the query does not arrive").unwrap();
                let datagram = receive(&socket, &mut [0; 64]).unwrap();
                let slot = caught.slots.slot(datagram.at).unwrap();
                let asked = helper.asked_server(slot).await.unwrap();
                assert_eq!(asked, Some(server.ip()));
            }
            helper.release_queries().await.unwrap();
            for server in &servers {
                let error = ask(*server).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{server}");
            }
            invalid(helper.asked_server(Slot(1)).await);
        }
        bench.end().await;
    });
}
