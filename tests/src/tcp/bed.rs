//! The namespaces in which the agent's TCP meets the kernel's, and what joins them.
//!
//! | namespace | what is in it |
//! |---|---|
//! | client | the kernel's TCP at the client's end |
//! | server | the link's other end; the kernel's TCP that ours is compared with; a router towards the NAT |
//! | service | the NAT's sockets, and the listeners that it dials |
//!
//! The NAT's packets go through a TUN in `server`, or, where there is no link, in `client`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use pmz_cli::playground::link::{LinkEmulator, LinkEnd, LinkSpec};
use pmz_cli::playground::netlink::{Links, Via};
use pmz_cli::playground::netns::NetNs;
use pmz_net::device::{Tun, open_tun};
use pmz_net::nat::{NatConfig, TcpStack};
use pmz_net::tcp::Congestion;

use super::on_tun::NatOnTun;

const LINK: &str = "link0";
const NAT: &str = "nat0";
/// Packets that may stand before the NAT's TUN.
const NAT_QUEUE: u32 = 10_000;
/// A route is there within this.
const ROUTE: Duration = Duration::from_secs(5);
/// What the NAT's own sockets use: one that every kernel lets a namespace have, and that does not pace
/// what never leaves the machine.
const LOCAL: &str = "reno";

/// What a bed is like beside its link.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Of the link and of the NAT's client, bytes.
    pub mtu: u16,
    pub ipv6: bool,
    /// What the NAT ends connections with.
    pub stack: TcpStack,
}

/// The namespaces. They go when this is dropped.
pub struct Bed {
    // These use the namespaces, and end first.
    /// The NAT, with the TUN that its packets go through.
    pub nat: NatOnTun,
    /// The link; none where the NAT is straight at the client.
    pub link: Option<LinkEmulator>,
    /// Where the clients are.
    pub client: NetNs,
    /// The link's other end.
    pub server: NetNs,
    /// Where what the NAT dials is.
    pub service: NetNs,
    /// Where the kernel's TCP is at the far end of the link.
    pub kernel_at: IpAddr,
    /// Where ours is.
    pub ours_at: IpAddr,
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
    /// control. To be called in a tokio runtime.
    ///
    /// # Errors
    /// Without root, or where the link is nonsense.
    pub async fn over_link(
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
        let (service, nat) = nat_behind(&server, setting, congestion).await?;
        let ours_at = address(setting, Place::Service);
        let kernel_at = address(setting, Place::Server);
        reaches(&client, address(setting, Place::Client), ours_at).await?;
        reaches(&server, kernel_at, ours_at).await?;
        reaches(&service, ours_at, ours_at).await?;
        Ok(Self {
            nat,
            link: Some(link),
            client,
            server,
            service,
            kernel_at,
            ours_at,
        })
    }

    /// A NAT straight at the client. To be called in a tokio runtime.
    ///
    /// # Errors
    /// Without root.
    pub async fn clean(setting: Setting, congestion: Congestion) -> Result<Self> {
        let client = fresh_netns()?;
        let (service, nat) = nat_behind(&client, setting, congestion).await?;
        Links::open(&client)?
            .add_address(NAT, net(setting, Place::Client)?)
            .await?;
        let ours_at = address(setting, Place::Service);
        reaches(&client, address(setting, Place::Client), ours_at).await?;
        reaches(&service, ours_at, ours_at).await?;
        Ok(Self {
            nat,
            link: None,
            server: client.clone(),
            client,
            service,
            kernel_at: address(setting, Place::Client),
            ours_at,
        })
    }
}

/// The namespace of the services, and a NAT to it from a TUN in `netns`.
async fn nat_behind(
    netns: &NetNs,
    setting: Setting,
    congestion: Congestion,
) -> Result<(NetNs, NatOnTun)> {
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
    let defaults = NatConfig::default();
    let config = NatConfig {
        tcp: setting.stack,
        congestion,
        // There is but one peer.
        max_flows_per_peer: defaults.max_flows,
        ..defaults
    };
    let nat = NatOnTun::start(tun, &service, setting.mtu, config)?;
    Ok((service, nat))
}

/// Waits until a namespace has its own address, and a route to another: IPv6 takes both into use a while after
/// they were set.
async fn reaches(netns: &NetNs, own: IpAddr, at: IpAddr) -> Result<()> {
    let any: IpAddr = match at {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let start = Instant::now();
    loop {
        let route = netns.run(|| {
            if !is_local(own)? {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            // Sends nothing.
            UdpSocket::bind((any, 0))?.connect((at, 9))
        })?;
        match route {
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > ROUTE => {
                return Err(error).with_context(|| format!("no route to {at}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Whether packets to this address would be taken for this namespace's own.
fn is_local(address: IpAddr) -> io::Result<bool> {
    // linux/ipv6_route.h
    const LOCAL: u32 = 0x8000_0000;
    let IpAddr::V6(address) = address else {
        return Ok(true);
    };
    let address = format!("{:032x}", address.to_bits());
    let routes = fs::read_to_string("/proc/thread-self/net/ipv6_route")?;
    Ok(routes.lines().any(|route| {
        let fields: Vec<&str> = route.split_whitespace().collect();
        let flags = fields.get(8).and_then(|f| u32::from_str_radix(f, 16).ok());
        fields.first() == Some(&address.as_str()) && flags.is_some_and(|f| f & LOCAL != 0)
    }))
}

/// A network namespace that lives as long as the value.
///
/// # Errors
/// Without root.
pub fn fresh_netns() -> Result<NetNs> {
    thread::spawn(|| -> Result<NetNs> {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        Ok(NetNs::current()?)
    })
    .join()
    .map_err(|_| anyhow!("the thread panicked"))?
}

/// Sets something below /proc/sys/net in a namespace.
///
/// # Errors
/// Where it is not there or takes another value.
pub fn sysctl(netns: &NetNs, path: &str, value: &str) -> Result<()> {
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
