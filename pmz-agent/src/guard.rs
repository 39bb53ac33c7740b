//! The guard before the tunnel's UDP socket, where it is asked for: it is told of each peer, and where peers are heard.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use anyhow::Context;
use nix::ifaddrs::getifaddrs;
use parking_lot::Mutex;
use pmz_net::engine::Direction;
use pmz_net::guard::{Guard, GuardError, GuardReport};
use pmz_net::tunnel::PeerId;

use crate::sessions::Sessions;

/// How soon a peer that is heard elsewhere is known there. It matters in a flood only, and for the next handshake,
/// which is two minutes away or at once tried again.
const FOLLOW: Duration = Duration::from_secs(5);

/// All the guards that there are, or none.
#[derive(Default)]
pub(crate) struct Guards {
    all: Mutex<Vec<Guard>>,
}

impl Guards {
    /// Guards the tunnel's port: in the drivers of the interfaces that have the pod's addresses, where they all can and
    /// gain by it, as those of an agent in the node's own network may; else at the socket.
    ///
    /// # Errors
    /// Where it can't be guarded: who asks for it is told that it is not there, rather than to find out in a flood.
    pub(crate) fn attach(
        socket: BorrowedFd<'_>,
        port: u16,
        addresses: &[IpAddr],
    ) -> anyhow::Result<Self> {
        let all = match in_drivers(port, addresses)? {
            Some(guards) => guards,
            None => vec![
                Guard::at_socket(socket)
                    .context("guard the tunnel's port; without PMZ_GUARD the agent does without")?,
            ],
        };
        tracing::info!(
            at_socket = all.iter().any(Guard::is_at_socket),
            "the tunnel's port is guarded"
        );
        Ok(Self {
            all: Mutex::new(all),
        })
    }

    /// Its messages get through from now on.
    pub(crate) fn add_peer(&self, peer: PeerId) {
        self.each("a new peer", |guard| guard.add_peer(peer));
    }

    /// There is no such peer any more.
    pub(crate) fn remove_peer(&self, peer: PeerId) {
        self.each("a peer's end", |guard| guard.remove_peer(peer));
    }

    fn each(&self, what: &str, mut tell: impl FnMut(&mut Guard) -> Result<(), GuardError>) {
        for guard in self.all.lock().iter_mut() {
            if let Err(error) = tell(guard) {
                tracing::warn!(%error, "the guard does not learn of {what}");
            }
        }
    }

    /// What all of them have counted.
    pub(crate) fn report(&self) -> GuardReport {
        let reports = self.all.lock();
        let reports = reports.iter().filter_map(|guard| guard.report().ok());
        reports.fold(GuardReport::default(), |all, one| all.plus(&one))
    }

    /// Follows where peers are heard, for as long as it is polled.
    pub(crate) async fn follow(&self, sessions: &Sessions) {
        if self.all.lock().is_empty() {
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(FOLLOW);
        let mut told = BTreeSet::new();
        loop {
            ticks.tick().await;
            let heard: BTreeSet<IpAddr> = sessions
                .directions()
                .into_iter()
                .filter_map(|direction| match direction {
                    Direction::Udp(from) => Some(from.ip()),
                    Direction::None | Direction::Stream => None,
                })
                .collect();
            if heard != told {
                self.each("where peers are", |guard| {
                    guard.set_known(heard.iter().copied())
                });
                told = heard;
            }
        }
    }
}

/// A guard in each driver; none where one of them can't, or there is no interface.
fn in_drivers(port: u16, addresses: &[IpAddr]) -> anyhow::Result<Option<Vec<Guard>>> {
    let mut all = Vec::new();
    for device in devices(addresses)? {
        match Guard::in_driver(&device, port) {
            Ok(Some(guard)) => all.push(guard),
            Ok(None) => return Ok(None),
            // The right to do this is not the one that a socket wants.
            Err(error) => {
                tracing::debug!(%error, device, "no guard in the driver");
                return Ok(None);
            }
        }
    }
    Ok((!all.is_empty()).then_some(all))
}

/// The interfaces that have these addresses.
fn devices(addresses: &[IpAddr]) -> anyhow::Result<BTreeSet<String>> {
    let all = getifaddrs().context("list the pod's interfaces")?;
    let ours = all.filter(|interface| {
        let address = interface.address.as_ref();
        let v4 = address
            .and_then(|it| it.as_sockaddr_in())
            .map(|it| IpAddr::from(it.ip()));
        let v6 = address
            .and_then(|it| it.as_sockaddr_in6())
            .map(|it| IpAddr::from(it.ip()));
        v4.or(v6).is_some_and(|ip| addresses.contains(&ip))
    });
    Ok(ours.map(|interface| interface.interface_name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_found_by_their_addresses() {
        let found = devices(&["127.0.0.1".parse().unwrap()]).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["lo"]);
        assert!(devices(&["192.0.2.1".parse().unwrap()]).unwrap().is_empty());
    }
}
