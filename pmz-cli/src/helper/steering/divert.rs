//! The helper's side of diverting: which devices, and the tunnel's own datagrams, which stay out of it.

use std::io;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use pmz_net::route::{MAX_ROUTES, Netlink, RouteError};
use pmz_net::steer::{Diversion, MAX_DEVICES};
use socket2::SockRef;

use super::super::message::{Refusal, Reply};
use super::super::tunnel::Tunnel;
use super::SteerReply;
use super::server::{Steerer, invalid, refusal};

/// Sockets that may carry the tunnel one after another; the programs' map holds twice as many.
const MAX_CARRIERS: usize = 32;
/// IFNAMSIZ (linux/if.h), without the zero at the end.
const MAX_NAME: usize = 15;
/// The loopback device: what goes there is this machine's own.
const LOOPBACK: &str = "lo";

impl Steerer {
    /// A UDP socket was handed out: what it sends is never diverted.
    pub(in super::super) fn opened(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let cookie = SockRef::from(socket).cookie()?;
        if self.carriers.len() >= MAX_CARRIERS {
            self.carriers.remove(0);
        }
        self.carriers.push(cookie);
        Ok(())
    }

    /// Diverts, for packets of that user.
    pub(in super::super) async fn divert(
        &mut self,
        netlink: &Netlink,
        user: u32,
        tunnel: &Tunnel,
        prefixes: &[IpNet],
        mut devices: Vec<String>,
    ) -> Result<Reply, Refusal> {
        let Some(programs) = &mut self.programs else {
            return Err(invalid("there are no programs yet"));
        };
        let is_name = |name: &String| {
            !name.is_empty() && name.len() <= MAX_NAME && !name.contains(['/', '\0'])
        };
        if prefixes.len() > MAX_ROUTES
            || devices.len() > MAX_DEVICES
            || !devices.iter().all(is_name)
        {
            return Err(invalid("too many prefixes, or no names of devices"));
        }
        devices.extend(netlink.leaving_by(prefixes, user).await.map_err(failed)?);
        devices.retain(|name| name != tunnel.name() && name != LOOPBACK);
        devices.sort();
        devices.dedup();
        let diversion = Diversion {
            addresses: tunnel.addresses().to_vec(),
            tun: tunnel.index(),
            mtu: netlink.mtu(tunnel.index()).await.map_err(failed)?,
        };
        programs.set_carriers(&self.carriers).map_err(refusal)?;
        let devices = programs.divert(&diversion, &devices).map_err(refusal)?;
        Ok(Reply::Steer(SteerReply::Diverted { devices }))
    }
}

fn failed(error: RouteError) -> Refusal {
    Refusal::Failed {
        message: error.to_string(),
    }
}
