//! The helper's side.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use pmz_net::guard::{Guard, GuardError, GuardMode, GuardReport};
use pmz_net::route::{Netlink, Subject};
use pmz_net::tunnel::PeerId;
use socket2::{Domain, Protocol, Socket, Type};

use super::super::message::{Refusal, Reply};
use super::{AHEAD, GuardRequest, Guarded};

/// The guard, once it is somewhere. It goes with this.
#[derive(Default)]
pub(in super::super) struct Guarder {
    port: Option<u16>,
    place: Option<Place>,
    /// By guards that are no more.
    counted: GuardReport,
}

struct Place {
    guard: Guard,
    device: String,
    /// Of the interface when the guard was attached: another one may get its name.
    index: u32,
    peers: Range<u32>,
    /// The way there is looked up again when the machine would send from another address.
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    toward: IpAddr,
    from: IpAddr,
}

impl Guarder {
    /// The UDP socket was handed out, and is the tunnel's from now on.
    pub(in super::super) fn opened(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let socket = Socket::from(socket.try_clone()?);
        let port = socket.local_addr()?.as_socket().map(|at| at.port());
        if self.port != port {
            self.leave();
            self.port = port;
        }
        Ok(())
    }

    /// Does what is asked, for packets of that user, and tells where the guard is and what it has counted.
    pub(in super::super) async fn handle(
        &mut self,
        netlink: &Netlink,
        user: u32,
        request: GuardRequest,
    ) -> Result<Reply, Refusal> {
        self.lead(netlink, user, request).await?;
        let now = self.place.as_ref().map(|place| place.guard.report());
        let now = now.transpose().map_err(refusal)?.unwrap_or_default();
        Ok(Reply::Guard(Guarded {
            device: self.place.as_ref().map(|place| place.device.clone()),
            report: self.counted.plus(&now),
        }))
    }

    async fn lead(
        &mut self,
        netlink: &Netlink,
        user: u32,
        GuardRequest { toward, peer }: GuardRequest,
    ) -> Result<(), Refusal> {
        let Some(port) = self.port else {
            return Err(Refusal::Invalid {
                message: "there is no UDP socket to guard".to_owned(),
            });
        };
        let from = source(toward).map_err(|error| failed(toward, &error))?;
        let way = Way { toward, from };
        let stays = self
            .place
            .as_ref()
            .is_some_and(|place| place.way == way && place.is_there());
        if !stays {
            let device = device(netlink, user, toward).await?;
            match &mut self.place {
                Some(place) if place.device == device && place.is_there() => place.way = way,
                _ => {
                    self.leave();
                    self.place = Some(Place::new(device, port, way)?);
                }
            }
        }
        match &mut self.place {
            Some(place) => place.let_through(peer).map_err(refusal),
            None => Ok(()),
        }
    }

    fn leave(&mut self) {
        if let Some(place) = self.place.take()
            && let Ok(report) = place.guard.report()
        {
            self.counted = self.counted.plus(&report);
        }
    }
}

impl Place {
    fn new(device: String, port: u16, way: Way) -> Result<Self, Refusal> {
        // A network card that gets a native program starts anew, which takes it off the net for a second or more:
        // nothing to do to a machine that people work at.
        let guard = Guard::attach_as(&device, port, GuardMode::Generic).map_err(refusal)?;
        let index = index(&device).unwrap_or(0);
        tracing::debug!(device, "the tunnel's port is guarded");
        Ok(Self {
            guard,
            device,
            index,
            peers: 0..0,
            way,
        })
    }

    fn is_there(&self) -> bool {
        index(&self.device) == Some(self.index)
    }

    fn let_through(&mut self, peer: u32) -> Result<(), GuardError> {
        let wanted = peer..peer.saturating_add(AHEAD + 1);
        if self.peers == wanted {
            return Ok(());
        }
        for new in wanted.clone() {
            self.guard.add_peer(PeerId(new))?;
        }
        for gone in self.peers.clone().filter(|it| !wanted.contains(it)) {
            self.guard.remove_peer(PeerId(gone))?;
        }
        self.peers = wanted;
        Ok(())
    }
}

fn index(device: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(device).ok()
}

/// The address from which the machine would send there. Sends nothing.
fn source(toward: IpAddr) -> io::Result<IpAddr> {
    let domain = if toward.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    // Any port does, but zero.
    socket.connect(&SocketAddr::new(toward, 9).into())?;
    let local = socket.local_addr()?.as_socket();
    local
        .map(|local| local.ip())
        .ok_or_else(|| io::Error::other("no source address"))
}

/// The interface by which packets of that user go there.
async fn device(netlink: &Netlink, user: u32, toward: IpAddr) -> Result<String, Refusal> {
    let host = IpNet::from(toward);
    let subject = Subject {
        nets: vec![host],
        ranges: [host, host],
    };
    let survey = netlink.survey(&subject, user).await;
    let survey = survey.map_err(|error| Refusal::Failed {
        message: error.to_string(),
    })?;
    let route = survey.lookups.into_iter().next().map(|found| found.route);
    route
        .and_then(|route| route.device)
        .ok_or_else(|| Refusal::NoEbpf {
            why: format!("the way to {toward} is not by one interface"),
        })
}

fn failed(toward: IpAddr, error: &io::Error) -> Refusal {
    Refusal::Failed {
        message: format!("find the way to {toward}: {error}"),
    }
}

fn refusal(error: GuardError) -> Refusal {
    Refusal::NoEbpf {
        why: error.to_string(),
    }
}
