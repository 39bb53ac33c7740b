//! The namespaces of one measurement, and what joins them.
//!
//! | namespace | what is in it |
//! |---|---|
//! | client | the kernel's TCP at the client's end |
//! | server | the link's other end; the kernel's TCP that ours is compared with; a router towards the NAT |
//! | service | the NAT's sockets, and the listeners that it dials |
//!
//! The NAT's packets go through a TUN in `server`, or, where there is no link, in `client`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use ipnet::IpNet;
use pmz_cli::playground::link::{LinkEmulator, LinkEnd, LinkSpec};
use pmz_cli::playground::netlink::{Links, Via};
use pmz_cli::playground::netns::NetNs;
use pmz_net::device::{Tun, open_tun};
use pmz_net::nat::{NatConfig, TcpStack};

use super::harness::Harness;
use crate::lab::{Congestion, fresh_netns};

const LINK: &str = "link0";
const NAT: &str = "nat0";
/// Packets that may stand before the NAT's TUN.
const NAT_QUEUE: u32 = 10_000;
/// What the NAT's own sockets use: one that every kernel lets a namespace have, and that does not pace
/// what never leaves the machine.
const LOCAL: &str = "reno";

/// What all measurements of a run have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Of the link and of the NAT's client, bytes.
    pub(crate) mtu: u16,
    pub(crate) ipv6: bool,
    /// What the NAT ends connections with.
    pub(crate) stack: TcpStack,
}

/// The namespaces. They go when this is dropped.
pub(crate) struct Bed {
    // These use the namespaces, and end first.
    _harness: Option<Harness>,
    pub(crate) link: Option<LinkEmulator>,
    pub(crate) client: NetNs,
    pub(crate) server: NetNs,
    pub(crate) service: NetNs,
    /// Where the kernel's TCP is at the far end of the link.
    pub(crate) kernel_at: IpAddr,
    /// Where ours is.
    pub(crate) ours_at: IpAddr,
}

/// Which of the addresses.
#[derive(Clone, Copy)]
enum Place {
    Client,
    Server,
    Service,
}

impl Bed {
    /// A link between client and server, and behind the server a NAT whose TCP uses this congestion
    /// control.
    pub(crate) async fn over_link(
        spec: &str,
        seed: u64,
        setting: Setting,
        congestion: Congestion,
    ) -> Result<Self> {
        let spec: LinkSpec = spec.parse()?;
        let (client, server) = (fresh_netns()?, fresh_netns()?);
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            sysctl(&server, path, "1")?;
        }
        let ends = [
            (&client, [net(setting, Place::Client)?]),
            (&server, [net(setting, Place::Server)?]),
        ];
        let [a, b] = ends.each_ref().map(|(netns, addresses)| LinkEnd {
            netns,
            interface: LINK,
            addresses,
        });
        let link = LinkEmulator::between(a, b, setting.mtu.into(), spec, seed).await?;
        let gateway = Via::Gateway(address(setting, Place::Server));
        Links::open(&client)?
            .add_route(LINK, services(setting)?, gateway)
            .await?;
        let (service, harness) = nat_behind(&server, setting, congestion).await?;
        Ok(Self {
            _harness: Some(harness),
            link: Some(link),
            client,
            server,
            service,
            kernel_at: address(setting, Place::Server),
            ours_at: address(setting, Place::Service),
        })
    }

    /// A NAT straight at the client.
    pub(crate) async fn clean(setting: Setting, congestion: Congestion) -> Result<Self> {
        let client = fresh_netns()?;
        let (service, harness) = nat_behind(&client, setting, congestion).await?;
        Links::open(&client)?
            .add_address(NAT, net(setting, Place::Client)?)
            .await?;
        Ok(Self {
            _harness: Some(harness),
            link: None,
            server: client.clone(),
            client,
            service,
            kernel_at: address(setting, Place::Client),
            ours_at: address(setting, Place::Service),
        })
    }
}

/// The namespace of the services, and a NAT to it from a TUN in `netns`.
async fn nat_behind(
    netns: &NetNs,
    setting: Setting,
    congestion: Congestion,
) -> Result<(NetNs, Harness)> {
    let service = fresh_netns()?;
    sysctl(&service, "ipv4/tcp_congestion_control", LOCAL)?;
    let links = Links::open(&service)?;
    links.up("lo").await?;
    links
        .add_address("lo", IpNet::from(address(setting, Place::Service)))
        .await?;

    let opened = netns.run(|| open_tun(NAT))?.context("the NAT's TUN")?;
    let links = Links::open(netns)?;
    links
        .set_mtu_and_queue(NAT, setting.mtu.into(), NAT_QUEUE)
        .await?;
    links.up(NAT).await?;
    links.add_route(NAT, services(setting)?, Via::Link).await?;
    let tun = Arc::new(Tun::new(opened.fd)?);
    let config = NatConfig {
        tcp: setting.stack,
        congestion: congestion.into(),
        ..NatConfig::default()
    };
    let harness = Harness::start(tun, &service, setting.mtu, config)?;
    Ok((service, harness))
}

/// Sets something below /proc/sys/net in a namespace.
pub(crate) fn sysctl(netns: &NetNs, path: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{path}");
    netns
        .run(|| fs::write(&path, value))?
        .with_context(|| format!("writing {value} to {path}"))
}

fn address(setting: Setting, place: Place) -> IpAddr {
    if setting.ipv6 {
        let (subnet, host) = match place {
            Place::Client => (1, 1),
            Place::Server => (1, 2),
            Place::Service => (0x51, 10),
        };
        Ipv6Addr::new(0x2001, 0xdb8, subnet, 0, 0, 0, 0, host).into()
    } else {
        match place {
            Place::Client => Ipv4Addr::new(192, 0, 2, 1).into(),
            Place::Server => Ipv4Addr::new(192, 0, 2, 2).into(),
            Place::Service => Ipv4Addr::new(198, 51, 100, 10).into(),
        }
    }
}

/// The address with its network's length.
fn net(setting: Setting, place: Place) -> Result<IpNet> {
    let bits = if setting.ipv6 { 64 } else { 24 };
    Ok(IpNet::new(address(setting, place), bits)?)
}

/// Where all services are.
fn services(setting: Setting) -> Result<IpNet> {
    Ok(net(setting, Place::Service)?.trunc())
}
