//! Interfaces, addresses and routes of a network namespace (rtnetlink).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::netns::NetNs;

/// The kernel answers at once; this is for a kernel that doesn't.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where packets of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The destination itself is on the link.
    Link,
    /// A router on the link.
    Gateway(IpAddr),
}

/// A connection to the kernel that speaks about one network namespace.
#[derive(Debug)]
pub struct Links {
    netns: NetNs,
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Links {
    /// Opens it. Must be called in a tokio runtime.
    pub fn open(netns: &NetNs) -> Result<Self> {
        let (connection, handle, _) = netns.run(rtnetlink::new_connection)??;
        Ok(Self {
            netns: netns.clone(),
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// The index of an interface.
    pub async fn index(&self, name: &str) -> Result<u32> {
        let mut links = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        let find = links.try_next();
        let found = within(find)
            .await
            .with_context(|| format!("interface {name}"))?;
        Ok(found
            .with_context(|| format!("no interface {name}"))?
            .header
            .index)
    }

    /// Sets an interface up.
    pub async fn up(&self, name: &str) -> Result<()> {
        let message = LinkUnspec::new_with_name(name).up().build();
        within(self.handle.link().set(message).execute())
            .await
            .with_context(|| format!("setting {name} up"))
    }

    /// Sets how big an interface's packets may be, in bytes, and how many may wait before it.
    pub async fn set_mtu_and_queue(&self, name: &str, mtu: u32, packets: u32) -> Result<()> {
        let message = LinkUnspec::new_with_name(name)
            .mtu(mtu)
            .txqueuelen(packets)
            .build();
        within(self.handle.link().set(message).execute())
            .await
            .with_context(|| format!("setting MTU and queue of {name}"))
    }

    /// Makes a veth pair: `name` here, `peer_name` in `peer`. Both are up afterwards.
    pub async fn add_veth(&self, name: &str, peer: &Self, peer_name: &str, mtu: u32) -> Result<()> {
        let mut message = LinkVeth::new(name, peer_name).mtu(mtu).build();
        let fd = peer.netns.as_fd().as_raw_fd();
        put_peer_in(&mut message.attributes, fd, mtu);
        within(self.handle.link().add(message).execute())
            .await
            .with_context(|| format!("making the veth pair {name} and {peer_name}"))?;
        self.up(name).await?;
        peer.up(peer_name).await
    }

    /// Deletes an interface (and, if it is one of a veth pair, the other).
    pub async fn delete(&self, name: &str) -> Result<()> {
        let index = self.index(name).await?;
        within(self.handle.link().del(index).execute())
            .await
            .with_context(|| format!("deleting {name}"))
    }

    /// Gives an interface an address, which can be used at once: no duplicate address detection.
    pub async fn add_address(&self, name: &str, address: IpNet) -> Result<()> {
        let index = self.index(name).await?;
        let mut request = self
            .handle
            .address()
            .add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
                .attributes
                .retain(|a| !matches!(a, AddressAttribute::Flags(_)));
        }
        within(request.execute())
            .await
            .with_context(|| format!("giving {name} the address {address}"))
    }

    /// Adds a route out of an interface.
    pub async fn add_route(&self, name: &str, to: IpNet, via: Via) -> Result<()> {
        let index = self.index(name).await?;
        let message =
            route(index, to, via).with_context(|| format!("a route to {to} via {via:?}"))?;
        within(self.handle.route().add(message).execute())
            .await
            .with_context(|| format!("adding a route to {to} out of {name}"))
    }
}

async fn within<T>(request: impl Future<Output = Result<T, rtnetlink::Error>>) -> Result<T> {
    let answer = tokio::time::timeout(TIMEOUT, request)
        .await
        .context("no answer from the kernel")?;
    Ok(answer?)
}

fn route(index: u32, to: IpNet, via: Via) -> Option<RouteMessage> {
    let scope = match via {
        Via::Link => RouteScope::Link,
        Via::Gateway(_) => RouteScope::Universe,
    };
    match to {
        IpNet::V4(to) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to.network(), to.prefix_len())
                .output_interface(index)
                .scope(scope);
            match via {
                Via::Link => Some(route.build()),
                Via::Gateway(IpAddr::V4(gateway)) => Some(route.gateway(gateway).build()),
                Via::Gateway(IpAddr::V6(_)) => None,
            }
        }
        IpNet::V6(to) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to.network(), to.prefix_len())
                .output_interface(index);
            match via {
                Via::Link => Some(route.build()),
                Via::Gateway(IpAddr::V6(gateway)) => Some(route.gateway(gateway).build()),
                Via::Gateway(IpAddr::V4(_)) => None,
            }
        }
    }
}

/// Has the kernel make the other end of a veth pair in another namespace: no name has to be free in
/// both, not even for a moment.
fn put_peer_in(attributes: &mut [LinkAttribute], netns: i32, mtu: u32) {
    use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkInfo};
    for attribute in attributes {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            continue;
        };
        for info in infos {
            if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) = info {
                peer.attributes.push(LinkAttribute::NetNsFd(netns));
                peer.attributes.push(LinkAttribute::Mtu(mtu));
            }
        }
    }
}
