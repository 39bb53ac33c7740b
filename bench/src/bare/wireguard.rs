//! wireguard-go's bare tunnel: a process at each end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;
use boringtun::x25519::{PublicKey, StaticSecret};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use pmz_tests::{WIREGUARD_GO, WireguardConfig, WireguardGo};

use crate::lab::{Lab, Side};

const PORT: u16 = 51820;

/// A tunnel between the lab's two sides. It ends when dropped.
pub(crate) struct WireguardGoTunnel {
    _ends: [WireguardGo; 2],
    pub(crate) server_address: IpAddr,
}

impl WireguardGoTunnel {
    /// To be called on a thread that outlives the tunnel: the processes end with it.
    pub(crate) async fn between(lab: &Lab) -> Result<Self> {
        let inner = [
            Ipv4Addr::new(198, 51, 100, 1),
            Ipv4Addr::new(198, 51, 100, 2),
        ];
        let keys: [StaticSecret; 2] = [rand::random::<[u8; 32]>(), rand::random()].map(Into::into);
        // Sockets are named as their interfaces are, in a folder that both namespaces share.
        let names = ['c', 's'].map(|end| format!("wgb{end}{}", std::process::id()));
        let sides = [&lab.client, &lab.server];
        let ends = [start(sides[0], &names[0])?, start(sides[1], &names[1])?];
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

fn start(side: &Side, interface: &str) -> Result<WireguardGo> {
    let netns = side.netns.clone();
    let mut command = Command::new(WIREGUARD_GO);
    // SAFETY: between fork and exec this only calls setns and prctl; it allocates nothing and takes no
    // lock.
    unsafe {
        command.pre_exec(move || {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            prctl::set_pdeathsig(Signal::SIGTERM)?;
            Ok(())
        });
    }
    WireguardGo::start(command, interface)
}
