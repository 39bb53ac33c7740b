//! The helper's loop: one request, one answer; when the peer goes, undo and go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use pmz_net::route::Netlink;
use tokio::signal::unix::{SignalKind, signal};

use super::capture::Catcher;
use super::guard::Guarder;
use super::message::{Answer, Claim, Refusal, Reply, Request};
use super::names::Names;
use super::resolved::LinkNames;
use super::runtime::{Paths, Runtime};
use super::sockets::{self, Allowance};
use super::steering::{SteerRequest, Steerer};
use super::tunnel::{self, Tunnel};
use super::validate;
use super::wire::Channel;

/// Serves one daemon until it is gone, or the helper is told to end by a signal.
///
/// `owner` is the daemon's user, who may open the control socket.
///
/// # Errors
/// When the connection can't be used at all. What goes wrong later is the daemon's to be told.
pub async fn serve(socket: OwnedFd, owner: u32, paths: Paths) -> std::io::Result<()> {
    let channel = Channel::new(socket)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let served = async {
        let claimed = match Runtime::claim(&paths).await {
            Ok(runtime) => Helper::new(runtime, owner, &paths),
            Err(refusal) => Err(refusal),
        };
        match claimed {
            Ok(mut helper) => helper.run(&channel).await,
            // The first request is answered, so that the daemon can say why.
            Err(refusal) => {
                if channel.recv::<Request>().await?.is_some() {
                    channel.send(&Answer::Err(refusal), &[]).await?;
                }
                Ok(())
            }
        }
    };
    tokio::select! {
        result = served => result,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

struct Helper {
    // First: names lead elsewhere before the TUN goes.
    names: Names,
    netlink: Netlink,
    steerer: Steerer,
    guarder: Guarder,
    catcher: Catcher,
    tunnel: Option<Tunnel>,
    sockets: Allowance,
    owner: u32,
    paths: Paths,
    // Last: the lock is held until all else is undone.
    runtime: Runtime,
}

/// A reply and the descriptors that go with it; the copies here close when the answer is sent.
struct Parcel {
    reply: Reply,
    descriptors: Vec<OwnedFd>,
}

impl From<Reply> for Parcel {
    fn from(reply: Reply) -> Self {
        Self {
            reply,
            descriptors: Vec::new(),
        }
    }
}

impl Helper {
    fn new(runtime: Runtime, owner: u32, paths: &Paths) -> Result<Self, Refusal> {
        let names = Names::new(paths)?;
        let netlink = Netlink::open().map_err(|e| Refusal::Failed {
            message: e.to_string(),
        })?;
        let sockets = Allowance::new(Instant::now());
        Ok(Self {
            names,
            netlink,
            steerer: Steerer::default(),
            guarder: Guarder::default(),
            catcher: Catcher::default(),
            tunnel: None,
            sockets,
            owner,
            paths: paths.clone(),
            runtime,
        })
    }

    async fn run(&mut self, channel: &Channel) -> std::io::Result<()> {
        while let Some((request, descriptors)) = channel.recv::<Request>().await? {
            tracing::debug!(?request, "asked");
            match self.handle(request, descriptors).await {
                Ok(parcel) => {
                    let borrowed: Vec<BorrowedFd<'_>> =
                        parcel.descriptors.iter().map(AsFd::as_fd).collect();
                    channel.send(&Answer::Ok(parcel.reply), &borrowed).await?;
                }
                Err(refusal) => {
                    tracing::warn!(%refusal, "refused");
                    channel.send(&Answer::Err(refusal), &[]).await?;
                }
            }
        }
        Ok(())
    }

    async fn handle(
        &mut self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Parcel, Refusal> {
        match request {
            Request::OpenTun {
                name,
                mtu,
                addresses,
            } => {
                validate::device_name(&name)?;
                validate::mtu(mtu)?;
                validate::addresses(&addresses)?;
                if self.tunnel.is_some() {
                    return Err(Refusal::Invalid {
                        message: "a second TUN".to_owned(),
                    });
                }
                let tunnel = Tunnel::open(&self.netlink, &name, mtu, addresses).await?;
                let parcel = tun_parcel(&tunnel);
                self.tunnel = Some(tunnel);
                parcel
            }
            Request::SetAddresses { addresses } => {
                validate::addresses(&addresses)?;
                let (tunnel, netlink) = self.tunnel()?;
                tunnel.set_addresses(netlink, addresses).await?;
                Ok(Reply::Done.into())
            }
            Request::AbortConnections => {
                self.tunnel()?.0.abort_connections()?;
                Ok(Reply::Done.into())
            }
            Request::SetMtu { mtu } => {
                validate::mtu(mtu)?;
                let (tunnel, netlink) = self.tunnel()?;
                tunnel.set_mtu(netlink, mtu).await?;
                Ok(Reply::Done.into())
            }
            Request::Plan { wishes } => {
                validate::wishes(&wishes)?;
                let own = self.tunnel.as_ref().map(Tunnel::index);
                let plan = tunnel::plan_routes(&self.netlink, &wishes, self.owner, own).await?;
                Ok(Reply::Plan { plan }.into())
            }
            Request::AddRoutes { prefixes, claim } => {
                validate::prefixes(&prefixes, claim)?;
                let user = self.owner;
                let (tunnel, netlink) = self.tunnel()?;
                tunnel.add_routes(netlink, &prefixes, claim, user).await?;
                Ok(Reply::Done.into())
            }
            Request::RemoveRoutes { prefixes } => {
                validate::prefixes(&prefixes, Claim::Everything)?;
                let (tunnel, netlink) = self.tunnel()?;
                tunnel.remove_routes(netlink, &prefixes).await?;
                Ok(Reply::Done.into())
            }
            Request::SetRouteCongestion { algorithm } => {
                algorithm.as_deref().map_or(Ok(()), validate::congestion)?;
                let (tunnel, netlink) = self.tunnel()?;
                let algorithm = tunnel.set_congestion(netlink, algorithm).await?;
                Ok(Reply::RouteCongestion { algorithm }.into())
            }
            Request::BindDns { address } => {
                let descriptors = self.tunnel()?.0.bind_dns(address)?.into();
                Ok(Parcel {
                    reply: Reply::Dns,
                    descriptors,
                })
            }
            Request::OpenUdp { family } => {
                if !self.sockets.take(Instant::now()) {
                    return Err(Refusal::Failed {
                        message: "too many UDP sockets at once".to_owned(),
                    });
                }
                let socket =
                    sockets::open_udp(family).map_err(|e| open_error("a UDP socket", &e))?;
                self.guarder
                    .opened(&socket)
                    .and_then(|()| self.steerer.opened(&socket))
                    .map_err(|e| open_error("a UDP socket", &e))?;
                Ok(Parcel {
                    reply: Reply::Socket,
                    descriptors: vec![socket],
                })
            }
            Request::ControlSocket => {
                let path = self.paths.control_socket();
                let socket = self
                    .runtime
                    .control_socket(self.owner)
                    .map_err(|e| open_error(&path.display().to_string(), &e))?;
                Ok(Parcel {
                    reply: Reply::Socket,
                    descriptors: vec![socket],
                })
            }
            Request::SetCongestion { algorithm } => {
                validate::congestion(&algorithm)?;
                let mut descriptors = descriptors.into_iter();
                let (Some(socket), None) = (descriptors.next(), descriptors.next()) else {
                    return Err(Refusal::Invalid {
                        message: "not one socket".to_owned(),
                    });
                };
                sockets::set_congestion(socket, &algorithm)?;
                Ok(Reply::Done.into())
            }
            Request::EditResolvConf {
                nameservers,
                search,
            } => {
                validate::nameservers(&nameservers, self.tunnel()?.0.addresses())?;
                validate::search(&search)?;
                self.names.edit(&nameservers, &search).map(Parcel::from)
            }
            Request::Steer(SteerRequest::Divert { prefixes, devices }) => {
                if !prefixes.is_empty() {
                    validate::prefixes(&prefixes, Claim::Everything)?;
                }
                let Some(tunnel) = &self.tunnel else {
                    return Err(no_tunnel());
                };
                let (netlink, user) = (&self.netlink, self.owner);
                let diverting = self
                    .steerer
                    .divert(netlink, user, tunnel, &prefixes, devices);
                diverting.await.map(Parcel::from)
            }
            Request::Steer(request) => {
                let Some(tunnel) = &self.tunnel else {
                    return Err(no_tunnel());
                };
                self.steerer
                    .handle(tunnel.name(), request)
                    .map(Parcel::from)
            }
            Request::Capture(request) => {
                let Some(tunnel) = &self.tunnel else {
                    return Err(no_tunnel());
                };
                let device = tunnel.index();
                let handled = self.catcher.handle(&self.netlink, device, request).await;
                let (reply, descriptors) = handled?;
                Ok(Parcel { reply, descriptors })
            }
            Request::Guard(request) => {
                let reply = self.guarder.handle(&request)?;
                Ok(reply.into())
            }
            Request::LeadNames {
                nameservers,
                routed,
                search,
            } => {
                validate::nameservers(&nameservers, self.tunnel()?.0.addresses())?;
                validate::domains(&routed)?;
                validate::search(&search)?;
                let names = LinkNames {
                    servers: &nameservers,
                    routed: &routed,
                    search: &search,
                };
                let index = self.tunnel()?.0.index();
                self.names.lead(index, &names).await?;
                Ok(Reply::Done.into())
            }
            Request::ForgetNames => {
                let index = self.tunnel()?.0.index();
                self.names.forget(index).await?;
                Ok(Reply::Done.into())
            }
            Request::RestoreResolvConf => {
                self.names.restore()?;
                Ok(Reply::Done.into())
            }
        }
    }

    fn tunnel(&mut self) -> Result<(&mut Tunnel, &Netlink), Refusal> {
        match &mut self.tunnel {
            Some(tunnel) => Ok((tunnel, &self.netlink)),
            None => Err(no_tunnel()),
        }
    }
}

fn no_tunnel() -> Refusal {
    Refusal::Invalid {
        message: "there is no TUN yet".to_owned(),
    }
}

fn tun_parcel(tunnel: &Tunnel) -> Result<Parcel, Refusal> {
    let copy = tunnel
        .descriptor()
        .try_clone_to_owned()
        .map_err(|e| open_error("the TUN", &e))?;
    let reply = Reply::Tun {
        name: tunnel.name().to_owned(),
        index: tunnel.index(),
        offloads: tunnel.offloads(),
    };
    Ok(Parcel {
        reply,
        descriptors: vec![copy],
    })
}

fn open_error(what: &str, error: &std::io::Error) -> Refusal {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        Refusal::Permission {
            what: format!("open {what}"),
        }
    } else {
        Refusal::Failed {
            message: format!("open {what}: {error}"),
        }
    }
}
