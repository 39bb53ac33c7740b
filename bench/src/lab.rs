//! Two network namespaces, and the veth pair between them: the bare machine that everything is measured
//! against.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use pmz_cli::playground::netlink::Links;
use pmz_cli::playground::netns::NetNs;
use pmz_tests::tcp::fresh_netns;

use crate::congestion::APPLICATIONS;
use crate::load::Course;

/// MTU of an ordinary network, bytes.
pub(crate) const MTU: u32 = 1500;
/// Name of both sides' interface.
pub(crate) const INTERFACE: &str = "eth0";

/// One side.
pub(crate) struct Side {
    pub(crate) netns: NetNs,
    pub(crate) links: Links,
    /// Its address between the two.
    pub(crate) address: IpAddr,
}

/// Both sides, named after what plays there in the tunnel benches.
pub(crate) struct Lab {
    pub(crate) client: Side,
    pub(crate) server: Side,
}

impl Lab {
    /// Two namespaces, joined by a veth pair.
    pub(crate) async fn new() -> Result<Self> {
        let lab = Self::unjoined().await?;
        let (client, server) = (&lab.client, &lab.server);
        client
            .links
            .add_veth(INTERFACE, &server.links, INTERFACE, MTU)
            .await?;
        for side in [client, server] {
            let address = IpNet::new(side.address, 24)?;
            side.links.add_address(INTERFACE, address).await?;
        }
        Ok(lab)
    }

    /// From client to server, which has this address for the client. It has no times yet.
    pub(crate) fn course(&self, at: IpAddr) -> Course<'_> {
        Course {
            from: &self.client.netns,
            to: &self.server.netns,
            at,
            dialled: at,
            congestion: APPLICATIONS,
            duration: Duration::ZERO,
        }
    }

    /// Two namespaces with nothing between them.
    pub(crate) async fn unjoined() -> Result<Self> {
        Ok(Self {
            client: side(1).await?,
            server: side(2).await?,
        })
    }
}

async fn side(last: u8) -> Result<Side> {
    let netns = fresh_netns()?;
    let links = Links::open(&netns)?;
    links.up("lo").await?;
    Ok(Side {
        netns,
        links,
        address: Ipv4Addr::new(192, 0, 2, last).into(),
    })
}
