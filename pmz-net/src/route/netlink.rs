//! Changing the kernel's links, addresses and routes.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::task::JoinHandle;

/// The kernel answers at once; a wait this long means that it never will.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Packets that may wait before a TUN for whoever reads it. A TUN tells nobody that it is full: the next one is lost,
/// and a lost SYN is a second of somebody's time. With the kernel's 500, three hundred clients that open one connection
/// after the other lost one packet in a hundred; with these none, and pings beside 64 bulk flows took no longer.
const QUEUE: u32 = 2000;

/// What the kernel refused, and on what.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct RouteError {
    pub(super) what: String,
    #[source]
    pub(super) source: io::Error,
}

impl RouteError {
    /// The kernel's error.
    pub fn io(&self) -> &io::Error {
        &self.source
    }
}

/// A connection to rtnetlink.
pub struct Netlink {
    pub(super) handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens a connection in the calling thread's network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there is no descriptor for it.
    pub fn open() -> Result<Self, RouteError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(|source| RouteError {
            what: "open rtnetlink".to_owned(),
            source,
        })?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// Brings a TUN up with this MTU in bytes, with room for 2,000 packets before its reader, and without the
    /// link-local address that Linux would give it: router solicitations have no business in a tunnel.
    ///
    /// # Errors
    /// When the link is gone, the MTU is out of the device's range, or the right is missing.
    pub async fn bring_up(&self, index: u32, mtu: u16) -> Result<(), RouteError> {
        let quiet = LinkUnspec::new_with_index(index)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
            )]))
            .build();
        // A kernel without IPv6 refuses this one, and does not need it.
        if let Err(error) = self.set_link("quieten", index, quiet).await {
            tracing::debug!(%error, "no address generation mode");
        }
        let up = LinkUnspec::new_with_index(index)
            .mtu(u32::from(mtu))
            .txqueuelen(QUEUE)
            .up()
            .build();
        self.set_link("bring up", index, up).await
    }

    /// Sets a link's MTU, in bytes.
    ///
    /// # Errors
    /// As [`Netlink::bring_up`].
    pub async fn set_mtu(&self, index: u32, mtu: u16) -> Result<(), RouteError> {
        let message = LinkUnspec::new_with_index(index)
            .mtu(u32::from(mtu))
            .build();
        self.set_link("set the MTU of", index, message).await
    }

    async fn set_link(
        &self,
        verb: &str,
        index: u32,
        message: LinkMessage,
    ) -> Result<(), RouteError> {
        within(
            format!("{verb} link {index}"),
            self.handle.link().set(message).execute(),
        )
        .await
    }

    /// Gives a link an address of its own: a host address, with no prefix of neighbours.
    ///
    /// # Errors
    /// When the link is gone or the right is missing.
    pub async fn add_address(&self, index: u32, address: IpAddr) -> Result<(), RouteError> {
        let prefix = IpNet::from(address).prefix_len();
        let mut request = self.handle.address().add(index, address, prefix).replace();
        if address.is_ipv6() {
            // Until its neighbours have been asked, an address can be no route's source and no
            // socket's; in a tunnel there is nobody to ask.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        within(format!("add address {address}"), request.execute()).await
    }

    /// Takes an address away; routes that name it as their source go with it.
    ///
    /// # Errors
    /// When the right is missing. An address that is not there is no error.
    pub async fn remove_address(&self, index: u32, address: IpAddr) -> Result<(), RouteError> {
        let what = format!("remove address {address}");
        let mut held = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        let find = async {
            while let Some(message) = held.try_next().await? {
                let same = message.attributes.iter().any(|a| {
                    matches!(a, AddressAttribute::Local(at) | AddressAttribute::Address(at) if *at == address)
                });
                if same {
                    return Ok(Some(message));
                }
            }
            Ok(None)
        };
        match within(what.clone(), find).await? {
            Some(message) => within(what, self.handle.address().del(message).execute()).await,
            None => Ok(()),
        }
    }

    /// Adds a route to the main table. It goes when the link goes.
    ///
    /// TCP connections that are opened by it have its congestion control, where one is named: in place of the machine's, and
    /// of what a program has set before connecting (tcp_ca_dst_init). What is set later holds.
    ///
    /// # Errors
    /// `AlreadyExists` where the table holds the same prefix; `EINVAL` where the kernel does not have the congestion
    /// control; else when the link is gone or not up, or the right is missing.
    pub async fn add_route(
        &self,
        index: u32,
        prefix: IpNet,
        prefsrc: Option<IpAddr>,
        congestion: Option<&str>,
    ) -> Result<(), RouteError> {
        let route = route_through(index, prefix, prefsrc, congestion)?;
        within(
            format!("add route {prefix}"),
            self.handle.route().add(route).execute(),
        )
        .await
    }

    /// Makes all addresses of a prefix this machine's own, in the table of local ones, for as long as the link is there.
    ///
    /// # Errors
    /// When the link is gone or not up, the machine has no such family, or the right is missing.
    pub async fn add_local(&self, index: u32, prefix: IpNet) -> Result<(), RouteError> {
        let mut route = route_through(index, prefix, None, None)?;
        route.header.kind = RouteType::Local;
        route.header.table = libc::RT_TABLE_LOCAL;
        route.header.scope = RouteScope::Host;
        within(
            format!("make {prefix} local"),
            self.handle.route().add(route).replace().execute(),
        )
        .await
    }

    /// As [`Netlink::add_route`], but takes the place of the route for the same prefix, whosever it is, in
    /// one step. Connections go on as they are.
    ///
    /// # Errors
    /// As [`Netlink::add_route`], but for `AlreadyExists`.
    pub async fn replace_route(
        &self,
        index: u32,
        prefix: IpNet,
        prefsrc: Option<IpAddr>,
        congestion: Option<&str>,
    ) -> Result<(), RouteError> {
        let route = route_through(index, prefix, prefsrc, congestion)?;
        let request = self.handle.route().add(route).replace();
        within(format!("replace route {prefix}"), request.execute()).await
    }

    /// Takes a route of this link out of the main table. One that is not there is no error.
    ///
    /// # Errors
    /// When the right is missing.
    pub async fn remove_route(&self, index: u32, prefix: IpNet) -> Result<(), RouteError> {
        let what = format!("remove route {prefix}");
        let route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(prefix.network(), prefix.prefix_len())
            .map_err(|_| RouteError {
                what: what.clone(),
                source: io::ErrorKind::InvalidInput.into(),
            })?
            .output_interface(index)
            .scope(RouteScope::NoWhere)
            .build();
        match within(what, self.handle.route().del(route).execute()).await {
            Err(e) if e.source.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// A link's MTU, in bytes.
    ///
    /// # Errors
    /// When there is no such link.
    pub async fn mtu(&self, index: u32) -> Result<u32, RouteError> {
        let what = format!("look at link {index}");
        let mut found = self.handle.link().get().match_index(index).execute();
        let message = within(what.clone(), found.try_next()).await?;
        let mtu = message.and_then(|message| {
            message.attributes.into_iter().find_map(|a| match a {
                LinkAttribute::Mtu(mtu) => Some(mtu),
                _ => None,
            })
        });
        mtu.ok_or_else(|| RouteError {
            what,
            source: io::ErrorKind::NotFound.into(),
        })
    }
}

fn route_through(
    index: u32,
    prefix: IpNet,
    prefsrc: Option<IpAddr>,
    congestion: Option<&str>,
) -> Result<RouteMessage, RouteError> {
    let invalid = |_| RouteError {
        what: format!("route {prefix}"),
        source: io::ErrorKind::InvalidInput.into(),
    };
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(prefix.network(), prefix.prefix_len())
        .map_err(invalid)?
        .output_interface(index);
    // As `ip route add PREFIX dev DEVICE` does: nobody stands between.
    if prefix.addr().is_ipv4() {
        route = route.scope(RouteScope::Link);
    }
    if let Some(source) = prefsrc {
        route = route.pref_source(source).map_err(invalid)?;
    }
    let mut route = route.build();
    if let Some(algorithm) = congestion {
        let metrics = vec![RouteMetric::CcAlgo(algorithm.to_owned())];
        route.attributes.push(RouteAttribute::Metrics(metrics));
    }
    Ok(route)
}

pub(super) async fn within<T>(
    what: String,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, RouteError> {
    let source = match tokio::time::timeout(ANSWER_WITHIN, request).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => {
            io::Error::from_raw_os_error(message.raw_code().saturating_abs())
        }
        Ok(Err(other)) => io::Error::other(other),
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    Err(RouteError { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernels_error_comes_with_what_it_was_about() {
        let netlink = Netlink::open().unwrap();
        let error = netlink.set_mtu(0x7fff_fff0, 1280).await.unwrap_err();
        assert!(
            error.to_string().contains("set the MTU of link 2147483632"),
            "{error}"
        );
        assert!(
            error.io().raw_os_error().is_some_and(|code| code > 0),
            "{error:?}"
        );
    }
}
