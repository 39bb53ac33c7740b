//! The helper's one TUN: its addresses, its routes, and port 53 on it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipnet::IpNet;
use pmz_net::device::{Offloads, OpenError, open_tun};
use pmz_net::route::{
    Kind, Netlink, OverlapPolicy, Plan, RouteError, SteerPolicy, Wanted, Wishes, abort_connections,
    plan,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::message::{Claim, Refusal};
use super::sockets;

const DNS_PORT: u16 = 53;
const DNS_BACKLOG: i32 = 64;

/// How a route comes to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// Where there is none.
    Add,
    /// In the place of the one that is there.
    Replace,
}

/// The TUN. A copy of its descriptor stays here, so that the index means this very device for as long as
/// requests can name it.
#[derive(Debug)]
pub(super) struct Tunnel {
    fd: OwnedFd,
    name: String,
    index: u32,
    offloads: Offloads,
    addresses: Vec<IpAddr>,
    routes: Vec<IpNet>,
    /// What connections that are opened by the routes use, where it is not the machine's own.
    congestion: Option<String>,
}

impl Tunnel {
    pub(super) async fn open(
        netlink: &Netlink,
        name: &str,
        mtu: u16,
        addresses: Vec<IpAddr>,
    ) -> Result<Self, Refusal> {
        let tun = open_tun(name).map_err(no_tun)?;
        netlink
            .bring_up(tun.index, mtu)
            .await
            .map_err(route_error)?;
        for address in &addresses {
            netlink
                .add_address(tun.index, *address)
                .await
                .map_err(route_error)?;
        }
        Ok(Self {
            fd: tun.fd,
            name: tun.name,
            index: tun.index,
            offloads: tun.offloads,
            addresses,
            routes: Vec::new(),
            congestion: None,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn offloads(&self) -> Offloads {
        self.offloads
    }

    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) async fn set_mtu(&self, netlink: &Netlink, mtu: u16) -> Result<(), Refusal> {
        netlink.set_mtu(self.index, mtu).await.map_err(route_error)
    }

    /// New addresses first, then the routes' source, then the old addresses away: at no time are
    /// the routes gone, and no packet leaves by the default route.
    pub(super) async fn set_addresses(
        &mut self,
        netlink: &Netlink,
        addresses: Vec<IpAddr>,
    ) -> Result<(), Refusal> {
        for address in &addresses {
            netlink
                .add_address(self.index, *address)
                .await
                .map_err(route_error)?;
        }
        let old = std::mem::replace(&mut self.addresses, addresses);
        for prefix in self.routes.clone() {
            let was = source_for(&old, &prefix);
            if was != source_for(&self.addresses, &prefix) {
                self.lead(netlink, prefix, Put::Replace)
                    .await
                    .map_err(route_error)?;
            }
        }
        for address in old.iter().filter(|a| !self.addresses.contains(a)) {
            netlink
                .remove_address(self.index, *address)
                .await
                .map_err(route_error)?;
        }
        Ok(())
    }

    pub(super) fn abort_connections(&self) -> Result<(), Refusal> {
        let ended = abort_connections(&self.addresses).map_err(|error| Refusal::Failed {
            message: format!("end TCP connections from the tunnel's addresses: {error}"),
        })?;
        tracing::debug!(ended, "TCP connections through the old agent");
        Ok(())
    }

    /// All of them or, where one can't be led here, none.
    pub(super) async fn add_routes(
        &mut self,
        netlink: &Netlink,
        prefixes: &[IpNet],
        claim: Claim,
        user: u32,
    ) -> Result<(), Refusal> {
        let mut new: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
        new.retain(|prefix| !self.routes.contains(prefix));
        new.sort();
        new.dedup();
        // What the daemon has planned may be out of date, or not planned at all.
        let wishes = Wishes {
            wanted: new
                .iter()
                .map(|net| Wanted {
                    net: *net,
                    kind: Kind::Included,
                })
                .collect(),
            policy: match claim {
                Claim::Free => OverlapPolicy::Refuse,
                Claim::Overlapping | Claim::Diverted | Claim::Everything => {
                    OverlapPolicy::PreferCluster
                }
            },
            steer: match claim {
                Claim::Free | Claim::Overlapping => SteerPolicy::Route,
                Claim::Diverted | Claim::Everything => SteerPolicy::Tc,
            },
            ..Wishes::default()
        };
        plan_routes(netlink, &wishes, user, Some(self.index)).await?;
        let before = self.routes.len();
        for prefix in new {
            if let Err(error) = self.lead(netlink, prefix, Put::Add).await {
                let added = self.routes.split_off(before);
                for prefix in added {
                    if let Err(error) = netlink.remove_route(self.index, prefix).await {
                        tracing::warn!(%error, "a route stays until the tunnel goes");
                    }
                }
                return Err(route_error(error));
            }
            self.routes.push(prefix);
        }
        Ok(())
    }

    /// Gives what the routes have then: nothing where the kernel does not know it.
    pub(super) async fn set_congestion(
        &mut self,
        netlink: &Netlink,
        algorithm: Option<String>,
    ) -> Result<Option<String>, Refusal> {
        let algorithm = algorithm.filter(|algorithm| sockets::has_congestion(algorithm));
        if algorithm != self.congestion {
            // Somebody may have led a prefix elsewhere since: that is not for this to take back.
            let ours = netlink.led_to(self.index).await.map_err(route_error)?;
            let before = std::mem::replace(&mut self.congestion, algorithm);
            let mut routes = self.routes.clone();
            routes.retain(|prefix| ours.contains(prefix));
            for prefix in routes {
                if let Err(error) = self.lead(netlink, prefix, Put::Replace).await {
                    self.congestion = before;
                    return Err(route_error(error));
                }
            }
        }
        Ok(self.congestion.clone())
    }

    /// Puts a route there, without the congestion control where the kernel's routes can't have it.
    async fn lead(&mut self, netlink: &Netlink, prefix: IpNet, put: Put) -> Result<(), RouteError> {
        let congestion = self.congestion.as_deref();
        let led = match self.put(netlink, prefix, put, congestion).await {
            Err(error)
                if congestion.is_some() && error.io().raw_os_error() == Some(libc::EINVAL) =>
            {
                self.put(netlink, prefix, put, None).await?;
                tracing::info!(congestion, "this kernel's routes can't have it");
                None
            }
            other => return other,
        };
        self.congestion = led;
        Ok(())
    }

    async fn put(
        &self,
        netlink: &Netlink,
        prefix: IpNet,
        put: Put,
        congestion: Option<&str>,
    ) -> Result<(), RouteError> {
        let source = source_for(&self.addresses, &prefix);
        match put {
            Put::Add => {
                netlink
                    .add_route(self.index, prefix, source, congestion)
                    .await
            }
            Put::Replace => {
                netlink
                    .replace_route(self.index, prefix, source, congestion)
                    .await
            }
        }
    }

    pub(super) async fn remove_routes(
        &mut self,
        netlink: &Netlink,
        prefixes: &[IpNet],
    ) -> Result<(), Refusal> {
        for prefix in prefixes.iter().map(IpNet::trunc) {
            if self.routes.contains(&prefix) {
                netlink
                    .remove_route(self.index, prefix)
                    .await
                    .map_err(route_error)?;
                self.routes.retain(|route| *route != prefix);
            }
        }
        Ok(())
    }

    /// A UDP socket and a listening TCP socket on port 53 of one of the tunnel's addresses.
    pub(super) fn bind_dns(&self, address: IpAddr) -> Result<[OwnedFd; 2], Refusal> {
        if !self.addresses.contains(&address) {
            return Err(Refusal::Invalid {
                message: format!("port 53 of {address}, not the tunnel's"),
            });
        }
        let at = SocketAddr::new(address, DNS_PORT);
        let bind = |kind: Type, protocol: Protocol| -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
            if kind == Type::STREAM {
                socket.set_reuse_address(true)?;
            }
            socket.bind(&at.into())?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let failed = |error: io::Error| Refusal::Failed {
            message: format!("bind {at}: {error}"),
        };
        let udp = bind(Type::DGRAM, Protocol::UDP).map_err(failed)?;
        let tcp = bind(Type::STREAM, Protocol::TCP).map_err(failed)?;
        tcp.listen(DNS_BACKLOG).map_err(failed)?;
        Ok([udp.into(), tcp.into()])
    }
}

/// What would be done about wishes on this machine, with `own` as the tunnel's device.
pub(super) async fn plan_routes(
    netlink: &Netlink,
    wishes: &Wishes,
    user: u32,
    own: Option<u32>,
) -> Result<Plan, Refusal> {
    let survey = netlink
        .survey(&wishes.subject()?, user)
        .await
        .map_err(route_error)?;
    let survey = match own {
        Some(index) => survey.without(index),
        None => survey,
    };
    Ok(plan(wishes, &survey)?)
}

fn source_for(addresses: &[IpAddr], prefix: &IpNet) -> Option<IpAddr> {
    addresses
        .iter()
        .copied()
        .find(|a| a.is_ipv4() == prefix.addr().is_ipv4())
}

fn no_tun(error: OpenError) -> Refusal {
    match error {
        OpenError::Missing => Refusal::NoTun,
        OpenError::Permission(_) => Refusal::Permission {
            what: "open a TUN".to_owned(),
        },
        other => Refusal::Failed {
            message: other.to_string(),
        },
    }
}

fn route_error(error: RouteError) -> Refusal {
    if matches!(error.io().raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
        Refusal::Permission {
            what: error.to_string(),
        }
    } else {
        Refusal::Failed {
            message: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn routes_stand_without_a_congestion_control_that_the_kernel_does_not_have() {
        const TEST: &str =
            "routes_stand_without_a_congestion_control_that_the_kernel_does_not_have";
        if !nix::unistd::geteuid().is_root() {
            let _ = writeln!(
                io::stderr(),
                "skipped: {TEST}: making namespaces needs root"
            );
            return;
        }
        let test = async {
            let netlink = Netlink::open().unwrap();
            let addresses = vec!["100.64.0.2".parse().unwrap()];
            let mut tunnel = Tunnel::open(&netlink, "pmz0", 1340, addresses)
                .await
                .unwrap();
            let none = Some("none-such".to_owned());
            let has = tunnel.set_congestion(&netlink, none.clone()).await;
            assert_eq!(has, Ok(None));
            // As where the kernel has it, and its routes can't.
            tunnel.congestion = none;
            let prefixes: Vec<IpNet> = ["10.96.0.0/16", "10.244.0.0/16"]
                .map(|prefix| prefix.parse().unwrap())
                .into();
            let added = tunnel.add_routes(&netlink, &prefixes, Claim::Free, 0);
            assert_eq!(added.await, Ok(()));
            assert_eq!(tunnel.congestion, None);
            let led = netlink.led_to(tunnel.index).await.unwrap();
            assert!(
                prefixes.iter().all(|prefix| led.contains(prefix)),
                "{led:?}"
            );
        };
        let thread = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(test);
        });
        thread.join().unwrap();
    }

    #[test]
    fn a_route_takes_the_tunnels_address_of_its_own_family() {
        let addresses: Vec<IpAddr> =
            vec!["fd00::2".parse().unwrap(), "100.64.0.2".parse().unwrap()];
        let source = |p: &str| source_for(&addresses, &p.parse().unwrap());
        assert_eq!(source("10.96.0.0/16"), Some(addresses[1]));
        assert_eq!(source("fd00:10::/108"), Some(addresses[0]));
        assert_eq!(
            source_for(&addresses[..1], &"10.96.0.0/16".parse().unwrap()),
            None
        );
    }
}
