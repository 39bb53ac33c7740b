//! The daemon's side of the helper.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipnet::IpNet;
use pmz_net::device::Offloads;
use pmz_net::route::{Plan, Wishes};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::message::{Answer, Claim, Family, Refusal, Reply, Request};
use super::wire::Channel;

/// The helper's own waits are shorter: this one ends when something is wrong with the helper.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Requests that may stand in line. Each caller waits for its own answer.
const QUEUE: usize = 16;

/// Why the helper did not do it.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is no longer there.
    #[error("the privileged helper has ended")]
    Gone,
    /// It did not answer.
    #[error("the privileged helper did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// It answered something else.
    #[error("the privileged helper answered out of turn")]
    Confused,
    /// The connection failed.
    #[error("talk to the privileged helper: {0}")]
    Io(#[from] io::Error),
}

/// A TUN that the helper has opened.
#[derive(Debug)]
pub struct Tun {
    /// The device.
    pub fd: OwnedFd,
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// What it does in one piece.
    pub offloads: Offloads,
}

/// What resolv.conf said before pmz changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviousResolver {
    /// Its nameservers.
    pub nameservers: Vec<SocketAddr>,
    /// Its search domains.
    pub search: Vec<String>,
}

enum Call {
    Ask(Ask),
    Close,
}

struct Ask {
    request: Request,
    descriptor: Option<OwnedFd>,
    answer: oneshot::Sender<Result<(Reply, Vec<OwnedFd>), HelperError>>,
}

/// Asks the helper; clones share the connection. When the last one is dropped, the helper ends.
#[derive(Clone, Debug)]
pub struct HelperClient {
    calls: mpsc::Sender<Call>,
    gone: CancellationToken,
}

impl HelperClient {
    /// Takes the connection to the helper. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor can't be polled.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let channel = Channel::new(socket)?;
        let (calls, queue) = mpsc::channel(QUEUE);
        let gone = CancellationToken::new();
        let guard = gone.clone().drop_guard();
        tokio::spawn(async move {
            let _guard = guard;
            talk(&channel, queue).await;
        });
        Ok(Self { calls, gone })
    }

    /// Returns when the helper has ended: then nothing that it made is there any more.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Tells the helper to end, and waits until it has undone what it did. All clones are of no more use.
    pub async fn close(&self) {
        if self.calls.send(Call::Close).await.is_ok() {
            self.gone().await;
        }
    }

    /// See [`Request::OpenTun`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn open_tun(
        &self,
        name: &str,
        mtu: u16,
        addresses: &[IpAddr],
    ) -> Result<Tun, HelperError> {
        let addresses = addresses.to_vec();
        match self
            .call(
                Request::OpenTun {
                    name: name.to_owned(),
                    mtu,
                    addresses,
                },
                None,
            )
            .await?
        {
            (
                Reply::Tun {
                    name,
                    index,
                    offloads,
                },
                fds,
            ) => Ok(Tun {
                fd: one(fds)?,
                name,
                index,
                offloads,
            }),
            _ => Err(HelperError::Confused),
        }
    }

    /// See [`Request::SetAddresses`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn set_addresses(&self, addresses: &[IpAddr]) -> Result<(), HelperError> {
        self.command(Request::SetAddresses {
            addresses: addresses.to_vec(),
        })
        .await
    }

    /// See [`Request::AbortConnections`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn abort_connections(&self) -> Result<(), HelperError> {
        self.command(Request::AbortConnections).await
    }

    /// See [`Request::SetMtu`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn set_mtu(&self, mtu: u16) -> Result<(), HelperError> {
        self.command(Request::SetMtu { mtu }).await
    }

    /// See [`Request::Plan`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn plan(&self, wishes: Wishes) -> Result<Plan, HelperError> {
        match self.call(Request::Plan { wishes }, None).await? {
            (Reply::Plan { plan }, _) => Ok(plan),
            _ => Err(HelperError::Confused),
        }
    }

    /// See [`Request::AddRoutes`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn add_routes(&self, prefixes: &[IpNet], claim: Claim) -> Result<(), HelperError> {
        self.command(Request::AddRoutes {
            prefixes: prefixes.to_vec(),
            claim,
        })
        .await
    }

    /// See [`Request::RemoveRoutes`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn remove_routes(&self, prefixes: &[IpNet]) -> Result<(), HelperError> {
        self.command(Request::RemoveRoutes {
            prefixes: prefixes.to_vec(),
        })
        .await
    }

    /// See [`Request::SetRouteCongestion`]. Gives what the routes have now.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn set_route_congestion(
        &self,
        algorithm: Option<&str>,
    ) -> Result<Option<String>, HelperError> {
        let request = Request::SetRouteCongestion {
            algorithm: algorithm.map(str::to_owned),
        };
        match self.call(request, None).await? {
            (Reply::RouteCongestion { algorithm }, _) => Ok(algorithm),
            _ => Err(HelperError::Confused),
        }
    }

    /// Sockets on port 53 of one of the tunnel's addresses, both non-blocking.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn bind_dns(
        &self,
        address: IpAddr,
    ) -> Result<(std::net::UdpSocket, std::net::TcpListener), HelperError> {
        let (Reply::Dns, fds) = self.call(Request::BindDns { address }, None).await? else {
            return Err(HelperError::Confused);
        };
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| HelperError::Confused)?;
        Ok((udp.into(), tcp.into()))
    }

    /// A bound, non-blocking UDP socket with large buffers.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn open_udp(&self, family: Family) -> Result<std::net::UdpSocket, HelperError> {
        Ok(self.socket(Request::OpenUdp { family }).await?.into())
    }

    /// The listening control socket.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn control_socket(&self) -> Result<std::os::unix::net::UnixListener, HelperError> {
        Ok(self.socket(Request::ControlSocket).await?.into())
    }

    /// See [`Request::SetCongestion`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn set_congestion(
        &self,
        socket: BorrowedFd<'_>,
        algorithm: &str,
    ) -> Result<(), HelperError> {
        let copy = socket.as_fd().try_clone_to_owned()?;
        let request = Request::SetCongestion {
            algorithm: algorithm.to_owned(),
        };
        done(self.call(request, Some(copy)).await?)
    }

    /// See [`Request::EditResolvConf`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn edit_resolv_conf(
        &self,
        nameservers: &[IpAddr],
        search: &[String],
    ) -> Result<PreviousResolver, HelperError> {
        let (nameservers, search) = (nameservers.to_vec(), search.to_vec());
        match self
            .call(
                Request::EditResolvConf {
                    nameservers,
                    search,
                },
                None,
            )
            .await?
        {
            (
                Reply::ResolvConf {
                    nameservers,
                    search,
                },
                _,
            ) => Ok(PreviousResolver {
                nameservers,
                search,
            }),
            _ => Err(HelperError::Confused),
        }
    }

    /// See [`Request::RestoreResolvConf`].
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn restore_resolv_conf(&self) -> Result<(), HelperError> {
        self.command(Request::RestoreResolvConf).await
    }

    /// Has systemd-resolved ask `nameservers`, addresses of the TUN's, for names of the domains `routed` and `search`,
    /// and put the latter behind names as programs ask for them.
    ///
    /// # Errors
    /// [`Refusal::NoResolved`] where it is not in charge of names here.
    pub async fn lead_names(
        &self,
        nameservers: &[IpAddr],
        routed: &[String],
        search: &[String],
    ) -> Result<(), HelperError> {
        self.command(Request::LeadNames {
            nameservers: nameservers.to_vec(),
            routed: routed.to_vec(),
            search: search.to_vec(),
        })
        .await
    }

    /// Has systemd-resolved forget that.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn forget_names(&self) -> Result<(), HelperError> {
        self.command(Request::ForgetNames).await
    }

    pub(super) async fn command(&self, request: Request) -> Result<(), HelperError> {
        done(self.call(request, None).await?)
    }

    async fn socket(&self, request: Request) -> Result<OwnedFd, HelperError> {
        match self.call(request, None).await? {
            (Reply::Socket, fds) => one(fds),
            _ => Err(HelperError::Confused),
        }
    }

    pub(super) async fn call(
        &self,
        request: Request,
        descriptor: Option<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), HelperError> {
        let (answer, answered) = oneshot::channel();
        let call = Call::Ask(Ask {
            request,
            descriptor,
            answer,
        });
        self.calls.send(call).await.map_err(|_| HelperError::Gone)?;
        answered.await.map_err(|_| HelperError::Gone)?
    }
}

fn done((reply, _): (Reply, Vec<OwnedFd>)) -> Result<(), HelperError> {
    if reply == Reply::Done {
        Ok(())
    } else {
        Err(HelperError::Confused)
    }
}

fn one(descriptors: Vec<OwnedFd>) -> Result<OwnedFd, HelperError> {
    let [fd] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|_| HelperError::Confused)?;
    Ok(fd)
}

/// Takes calls one after another. Ends, and with it the connection, when there is nobody left to call, when
/// the helper is gone, or when an answer did not come: a late one would be taken for the next call's.
async fn talk(channel: &Channel, mut queue: mpsc::Receiver<Call>) {
    loop {
        let call = tokio::select! {
            call = queue.recv() => call,
            // Between calls the helper has nothing to say: whatever comes is its end.
            _ = channel.recv::<Answer>() => None,
        };
        let Ask {
            request,
            descriptor,
            answer,
        } = match call {
            Some(Call::Ask(ask)) => ask,
            Some(Call::Close) => {
                if channel.finish().is_ok() {
                    // It ends when it is done, and that is its answer.
                    let _ = channel.recv::<Answer>().await;
                }
                return;
            }
            None => return,
        };
        let descriptors: Vec<BorrowedFd<'_>> = descriptor.iter().map(AsFd::as_fd).collect();
        let exchange = async {
            channel.send(&request, &descriptors).await?;
            match channel.recv::<Answer>().await? {
                Some((result, fds)) => Ok(result.map(|reply| (reply, fds))),
                None => Err(HelperError::Gone),
            }
        };
        let result = match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Ok(Ok(result)) => {
                // Who asked may have given up; the descriptors close then.
                let _ = answer.send(result.map_err(HelperError::from));
                continue;
            }
            Ok(Err(HelperError::Io(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(HelperError::Gone)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(HelperError::Silent),
        };
        let _ = answer.send(result);
        return;
    }
}
