//! The name server: sockets, and what stands between them and [`resolve`](super::resolve()).

mod clients;
mod handle;
mod inside;
mod outside;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Header, HeaderCounts, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use parking_lot::RwLock;

use super::cluster::ClusterDns;
use super::forward::{ForwardError, Forwarder};
use super::reply::{self, Reply};
use super::resolve::{Answer, resolve};
use super::translate::translate;
use super::zone::Zone;
use crate::catalog::SharedMirror;
use clients::Access;
pub use clients::Clients;
pub use handle::DnsHandle;
pub(super) use outside::Whose;

/// How long a TCP connection may say nothing.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait to be written on one TCP connection.
const TCP_BUFFER: usize = 32;

/// What a server is told; all but `clients` can be changed while it runs.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// What is ours.
    pub zone: Zone,
    /// Who is asked for the rest, in this order: the name servers that the machine had before. Empty:
    /// the rest is refused.
    pub upstream: Vec<SocketAddr>,
    /// Whose questions are answered; others are refused.
    pub clients: Clients,
}

/// The name server of a client.
#[derive(Debug)]
pub struct DnsServer;

impl DnsServer {
    /// Serves on sockets that are bound already, within the present tokio runtime.
    ///
    /// # Errors
    /// Where a socket can't be used. Nothing runs then.
    pub fn start(
        udp: Vec<UdpSocket>,
        tcp: Vec<TcpListener>,
        mirror: SharedMirror,
        config: DnsConfig,
    ) -> io::Result<DnsHandle> {
        let DnsConfig {
            zone,
            upstream,
            clients,
        } = config;
        let own = udp
            .iter()
            .map(UdpSocket::local_addr)
            .chain(tcp.iter().map(TcpListener::local_addr))
            .collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            mirror,
            zone: RwLock::new(Arc::new(zone)),
            upstream: RwLock::default(),
            forwarder: Forwarder::new(),
            cluster: ClusterDns::new(),
            own,
            access: Access::new(clients),
        });
        shared.set_upstream(upstream);
        // Not by the server's own list of networks: it refuses answers, too, so that two such servers go on refusing each
        // other, and clients of one family alone leave the other open to all.
        let mut server = Server::new(Handler {
            shared: shared.clone(),
        });
        for socket in udp {
            socket.set_nonblocking(true)?;
            server.register_socket(tokio::net::UdpSocket::from_std(socket)?);
        }
        for listener in tcp {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            server.register_listener(listener, TCP_IDLE, TCP_BUFFER);
        }
        let stop = server.shutdown_token().clone();
        let task = tokio::spawn(async move {
            if let Err(error) = server.block_until_done().await {
                tracing::error!(%error, "the name server has ended");
            }
        });
        Ok(DnsHandle { shared, stop, task })
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    mirror: SharedMirror,
    zone: RwLock<Arc<Zone>>,
    upstream: RwLock<Arc<[SocketAddr]>>,
    pub(super) forwarder: Forwarder,
    cluster: ClusterDns,
    /// The server's own sockets.
    own: Vec<SocketAddr>,
    access: Access,
}

impl Shared {
    fn set_upstream(&self, mut upstream: Vec<SocketAddr>) {
        upstream.retain(|server| {
            let ourselves = self.is_ourselves(server);
            if ourselves {
                tracing::warn!(%server, "this name server is ourselves; it is not asked");
            }
            !ourselves && server.port() != 0
        });
        *self.upstream.write() = upstream.into();
    }

    fn upstream(&self) -> Arc<[SocketAddr]> {
        self.upstream.read().clone()
    }

    /// What there is to say to a request.
    pub(super) async fn answer(&self, request: &Request) -> Reply {
        if !self.access.admits(request.src()) {
            tracing::debug!(client = %request.src(), "a stranger is not answered");
            return Reply::error(ResponseCode::Refused);
        }
        if self.forwarder.is_own(request.src()) {
            tracing::warn!("a forwarded question came back to us: our name servers ask each other");
            return Reply::error(ResponseCode::Refused);
        }
        if request.metadata.op_code != OpCode::Query {
            return Reply::error(ResponseCode::NotImp);
        }
        if request.version() > 0 {
            return Reply::error(ResponseCode::BADVERS);
        }
        let Some(query) = reply::asked(request) else {
            return Reply::error(ResponseCode::FormErr);
        };
        if query.query_class() != DNSClass::IN {
            return self.forward(request).await;
        }
        let (name, record_type) = (query.original().name(), query.query_type());
        let upstream = self.upstream();
        match self
            .whose(name, record_type, &upstream, request.as_slice())
            .await
        {
            Whose::Ours => {}
            Whose::Outside(said) => return Reply::from(said),
            Whose::Unknown => return self.forward(request).await,
        }
        match self.reply(name, record_type, &upstream).await {
            Some(reply) => reply,
            None => self.forward(request).await,
        }
    }

    /// What there is to say of a name; `None` where it is none of ours. External names that lead out of the cluster are
    /// asked of `upstream`.
    pub(super) async fn reply(
        &self,
        name: &Name,
        record_type: RecordType,
        upstream: &[SocketAddr],
    ) -> Option<Reply> {
        let inside = self.zone.read().domain.zone_of(name);
        if matches!(record_type, RecordType::AXFR | RecordType::IXFR)
            && (inside || self.look_up(name, record_type).await != Answer::NotOurs)
        {
            // A zone is not told as a whole (RFC 5936, section 2.2.1).
            return Some(Reply::error(ResponseCode::Refused));
        }
        Some(match self.look_up(name, record_type).await {
            Answer::NotOurs if inside => match self.ask_cluster(name, record_type).await {
                Some(answer) => Reply::from(answer),
                None => self.unknown(),
            },
            Answer::NotOurs => return None,
            Answer::ServFail => Reply::error(ResponseCode::ServFail),
            Answer::NoData { answers, soa } => Reply {
                answers,
                authorities: vec![soa],
                ..Reply::ours(ResponseCode::NoError)
            },
            Answer::NxDomain { answers, soa } => {
                if inside
                    && answers.is_empty()
                    && let Some(answer) = self.ask_cluster(name, record_type).await
                    && answer.metadata.response_code == ResponseCode::NoError
                {
                    return Some(Reply::from(answer));
                }
                Reply {
                    answers,
                    authorities: vec![soa],
                    ..Reply::ours(ResponseCode::NXDomain)
                }
            }
            Answer::Records {
                answers,
                additionals,
                chase: None,
            } => Reply {
                answers,
                additionals,
                ..Reply::ours(ResponseCode::NoError)
            },
            Answer::Records {
                answers,
                chase: Some(target),
                ..
            } => self.chase(answers, target, record_type, upstream).await,
        })
    }

    /// The zone as it is now.
    pub(super) fn zone(&self) -> Arc<Zone> {
        self.zone.read().clone()
    }

    /// Whether datagrams to that server come to one of the server's own sockets.
    pub(super) fn is_ourselves(&self, server: &SocketAddr) -> bool {
        self.own.iter().any(|own| same_socket(own, server))
    }

    pub(super) async fn look_up(&self, name: &Name, record_type: RecordType) -> Answer {
        let zone = self.zone();
        let mut answer = resolve(&self.mirror.read(), &zone, name, record_type);
        answer.shuffle(&mut rand::rng());
        if let (
            Some(by),
            Answer::Records {
                answers,
                additionals,
                ..
            },
        ) = (&zone.translate, &mut answer)
            && !translate(by.as_ref(), answers, additionals).await
        {
            return Answer::ServFail;
        }
        answer
    }

    async fn forward(&self, request: &Request) -> Reply {
        match self
            .forwarder
            .ask(&self.upstream(), request.as_slice())
            .await
        {
            Ok(answer) => Reply::from(answer),
            Err(ForwardError::NoServer) => Reply::error(ResponseCode::Refused),
            Err(ForwardError::Question) => Reply::error(ResponseCode::FormErr),
            Err(error @ (ForwardError::Busy | ForwardError::Unanswered(_))) => {
                tracing::debug!(%error, "a question could not be forwarded");
                Reply::error(ResponseCode::ServFail)
            }
        }
    }

    /// Adds the records of an external name. Stub resolvers don't follow it themselves.
    async fn chase(
        &self,
        mut answers: Vec<Record>,
        target: Name,
        record_type: RecordType,
        upstream: &[SocketAddr],
    ) -> Reply {
        if self.zone.read().domain.zone_of(&target) {
            return match self.ask_cluster(&target, record_type).await {
                Some(found) => Reply {
                    answers: answers.into_iter().chain(found.answers).collect(),
                    authorities: found.authorities,
                    ..Reply::ours(found.metadata.response_code)
                },
                None => Reply::error(ResponseCode::ServFail),
            };
        }
        if upstream.is_empty() {
            return Reply {
                answers,
                ..Reply::ours(ResponseCode::NoError)
            };
        }
        let asked = self.forwarder.ask_for(upstream, &target, record_type);
        match asked.await {
            Ok(found) => {
                answers.extend(found.answers);
                Reply {
                    answers,
                    authorities: found.authorities,
                    ..Reply::ours(found.metadata.response_code)
                }
            }
            Err(error) => {
                tracing::debug!(%error, "an external name could not be followed");
                Reply::error(ResponseCode::ServFail)
            }
        }
    }
}

#[derive(Debug)]
struct Handler {
    shared: Arc<Shared>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let mut reply = self.shared.answer(request).await;
        reply.fit(request);
        let (metadata, edns) = reply.heading(request);
        let response = MessageResponseBuilder::new(reply::question(request), edns.as_ref()).build(
            metadata,
            reply.answers.iter(),
            reply.authorities.iter(),
            [],
            reply.additionals.iter(),
        );
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "an answer could not be sent");
                ResponseInfo::from(Header {
                    metadata,
                    counts: HeaderCounts::default(),
                })
            }
        }
    }
}

/// Whether datagrams to `server` come to the socket `own`: it may be bound to any address.
fn same_socket(own: &SocketAddr, server: &SocketAddr) -> bool {
    own.port() == server.port()
        && (own.ip() == server.ip()
            || own.ip().is_unspecified()
                && (server.ip().is_loopback() || server.ip().is_unspecified()))
}

#[cfg(test)]
mod tests;
