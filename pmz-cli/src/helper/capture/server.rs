//! The helper's side.

use std::os::fd::{AsFd, OwnedFd};

use ipnet::{IpNet, Ipv6Net};
use pmz_net::capture::{Capture, CaptureError, Slots, root_cgroup};
use pmz_net::route::Netlink;

use super::super::message::{Refusal, Reply};
use super::{CaptureReply, CaptureRequest};

/// Bits of a network of slots.
const SLOTS_PREFIX: u8 = 112;

/// The programs, while they run. They go with this.
#[derive(Default)]
pub(in super::super) struct Catcher {
    programs: Option<Capture>,
    /// Local routes hang on the TUN, and are made once.
    slots: Option<Slots>,
}

impl Catcher {
    /// Does what is asked; `device` is the TUN's index.
    pub(in super::super) async fn handle(
        &mut self,
        netlink: &Netlink,
        device: u32,
        request: CaptureRequest,
    ) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        match request {
            CaptureRequest::Attach => self.attach(netlink, device).await,
            CaptureRequest::Server { slot } => {
                let Some(programs) = &self.programs else {
                    return Err(invalid("there are no programs yet"));
                };
                let address = programs.server(slot).map_err(refusal)?;
                Ok((answer(CaptureReply::Server { address }), Vec::new()))
            }
            CaptureRequest::Release => {
                self.programs = None;
                Ok((Reply::Done, Vec::new()))
            }
        }
    }

    async fn attach(
        &mut self,
        netlink: &Netlink,
        device: u32,
    ) -> Result<(Reply, Vec<OwnedFd>), Refusal> {
        if self.programs.is_some() {
            return Err(invalid("queries are caught already"));
        }
        let cgroup = root_cgroup().map_err(refusal)?;
        let slots = match self.slots {
            Some(slots) => slots,
            None => *self.slots.insert(slots(netlink, device).await),
        };
        let (programs, sockets) = Capture::attach(cgroup.as_fd(), slots).map_err(refusal)?;
        let reply = CaptureReply::Attached {
            slots: programs.slots(),
            knock: programs.knock(),
        };
        self.programs = Some(programs);
        Ok((answer(reply), sockets.into_descriptors()))
    }
}

/// Addresses that stand for servers. Where those for IPv6 can't be made this machine's, queries to IPv6 servers go past
/// us.
async fn slots(netlink: &Netlink, device: u32) -> Slots {
    let slots = Slots::random();
    let network = slots
        .v6()
        .and_then(|first| Ipv6Net::new(first, SLOTS_PREFIX).ok());
    let Some(network) = network else {
        return slots;
    };
    match netlink.add_local(device, IpNet::V6(network)).await {
        Ok(()) => slots,
        Err(error) => {
            tracing::info!(%error, "queries to IPv6 name servers are not caught");
            Slots::new(None)
        }
    }
}

fn answer(reply: CaptureReply) -> Reply {
    Reply::Capture(reply)
}

fn invalid(message: &str) -> Refusal {
    Refusal::Invalid {
        message: message.to_owned(),
    }
}

fn refusal(error: CaptureError) -> Refusal {
    Refusal::NoEbpf {
        why: error.to_string(),
    }
}
