//! Two network namespaces joined by a veth pair: the bare machine that everything is measured against.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use pmz_cli::playground::netlink::Links;
use pmz_cli::playground::netns::NetNs;

/// MTU of an ordinary network.
const MTU: u32 = 1500;

/// One side.
pub(crate) struct Side {
    pub(crate) netns: NetNs,
    pub(crate) links: Links,
    /// Its address on the veth pair.
    pub(crate) address: IpAddr,
}

/// Both sides, named after what plays there in the tunnel benches.
pub(crate) struct Lab {
    pub(crate) client: Side,
    pub(crate) server: Side,
}

/// A network namespace that lives as long as the value.
pub(crate) fn fresh_netns() -> Result<NetNs> {
    thread::spawn(|| -> Result<NetNs> {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (are you root?)")?;
        Ok(NetNs::current()?)
    })
    .join()
    .map_err(|_| anyhow::anyhow!("the thread panicked"))?
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

impl Lab {
    pub(crate) async fn new() -> Result<Self> {
        let (client, server) = (side(1).await?, side(2).await?);
        client
            .links
            .add_veth("eth0", &server.links, "eth0", MTU)
            .await?;
        for side in [&client, &server] {
            side.links
                .add_address("eth0", ipnet::IpNet::new(side.address, 24)?)
                .await?;
        }
        Ok(Self { client, server })
    }
}
