//! Queries by UDP.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_server::net::xfer::Protocol;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Catcher;
use super::flows::Way;
use super::refusal::servfail;
use crate::capture::{Datagram, Slot, receive, send};

/// Takes queries from a socket until the server stops.
pub(super) async fn serve(catcher: Arc<Catcher>, socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        tokio::select! {
            () = catcher.stop.cancelled() => return,
            ready = socket.readable() => {
                if let Err(error) = ready {
                    tracing::error!(%error, "caught queries can't be taken any more");
                    return;
                }
            }
        }
        let datagram = match socket.try_io(Interest::READABLE, || receive(&*socket, &mut buffer)) {
            Ok(datagram) => datagram,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => {
                tracing::debug!(%error, "a caught query could not be taken");
                continue;
            }
        };
        let Some(slot) = catcher.slots.slot(datagram.at) else {
            continue;
        };
        let Ok(permit) = catcher.queries.clone().try_acquire_owned() else {
            continue;
        };
        let query = buffer.get(..datagram.length).unwrap_or_default().to_vec();
        let (catcher, socket) = (catcher.clone(), socket.clone());
        tokio::spawn(async move {
            let _permit = permit;
            handle(catcher, socket, datagram, slot, query).await;
        });
    }
}

async fn handle(
    catcher: Arc<Catcher>,
    socket: Arc<UdpSocket>,
    datagram: Datagram,
    slot: Slot,
    query: Vec<u8>,
) {
    let client = datagram.from;
    if catcher.shared.forwarder.is_own(client) {
        tracing::warn!("a query that we have sent on was caught again; it is dropped");
        return;
    }
    let Some(server) = catcher.server(slot).await else {
        return;
    };
    let shared = &catcher.shared;
    let said = shared
        .answer_in_place_of(server, &query, client, Protocol::Udp)
        .await;
    let said = match said {
        Some(said) => said,
        None => match send_on(&catcher, &socket, datagram, server, &query) {
            Ok(()) => return,
            Err(error) => {
                tracing::debug!(%server, %error, "a query can't be sent on");
                let Some(said) = servfail(&query) else {
                    return;
                };
                said
            }
        },
    };
    if let Err(error) = send(&*socket, &said, client, datagram.at) {
        tracing::debug!(%error, "an answer could not be sent");
    }
}

fn send_on(
    catcher: &Catcher,
    socket: &Arc<UdpSocket>,
    datagram: Datagram,
    server: SocketAddr,
    query: &[u8],
) -> std::io::Result<()> {
    let way = Way {
        client: datagram.from,
        at: datagram.at,
        server,
    };
    catcher.flows.send(way, socket, query, &catcher.shared)
}
