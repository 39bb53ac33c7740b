//! Another implementation's bare tunnel: a process at each end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;

use anyhow::Result;
use boringtun::x25519::{PublicKey, StaticSecret};
use ipnet::IpNet;
use pmz_tests::{WireguardConfig, WireguardDevice, WireguardProgram};

use crate::lab::Lab;
use crate::process;
use crate::section::Absent;

const PORT: u16 = 51820;
/// What wireguard-go and wg-quick give a device; the others leave what the kernel gives it.
const MTU: u32 = 1420;
/// As the kernel has it for a TUN.
const QUEUE: u32 = 500;

/// A tunnel between the lab's two sides. It ends when dropped.
pub(crate) struct WireguardTunnel {
    _ends: [WireguardDevice; 2],
    pub(crate) server_address: IpAddr,
}

impl WireguardTunnel {
    /// To be called on a thread that outlives the tunnel: the processes end with it.
    ///
    /// # Errors
    /// [`Absent`] where the program is not installed.
    pub(crate) async fn between(lab: &Lab, program: WireguardProgram) -> Result<Self> {
        if !program.is_installed() {
            return Err(Absent(format!("{} is not installed", program.name)).into());
        }
        let inner = [
            Ipv4Addr::new(198, 51, 100, 1),
            Ipv4Addr::new(198, 51, 100, 2),
        ];
        let keys: [StaticSecret; 2] = [rand::random::<[u8; 32]>(), rand::random()].map(Into::into);
        // Sockets are named as their interfaces are, in a folder that both namespaces share.
        let names = ['c', 's'].map(|end| format!("wgb{end}{}", std::process::id()));
        let sides = [&lab.client, &lab.server];
        let start = |end: usize| {
            let command = process::within(&sides[end].netns, program.name);
            WireguardDevice::start(program, command, &names[end])
        };
        let ends = [start(0)?, start(1)?];
        for (own, other) in [(0, 1), (1, 0)] {
            let config = WireguardConfig {
                private_key: keys[own].to_bytes(),
                listen_port: PORT,
                peer: PublicKey::from(&keys[other]).to_bytes(),
                endpoint: SocketAddr::new(sides[other].address, PORT),
                allowed: vec![IpNet::from(IpAddr::from(inner[other]))],
            };
            let connect = |path: &std::path::Path| UnixStream::connect(path);
            ends[own].configure(&config, connect).await?;
            let links = &sides[own].links;
            links.set_mtu_and_queue(&names[own], MTU, QUEUE).await?;
            links.up(&names[own]).await?;
            let address = IpNet::new(inner[own].into(), 24)?;
            links.add_address(&names[own], address).await?;
        }
        Ok(Self {
            _ends: ends,
            server_address: inner[1].into(),
        })
    }
}
