//! The connection to the API server, on sockets of pmz's own making: an agent's port-forward is the tunnel's
//! carrier, and how its TCP sends decides how fast the tunnel is.

use std::borrow::Cow;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Client;
use kube::client::ConfigExt;
use socket2::SockRef;
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceBuilder};

use super::config::Loaded;
use super::map::{ANSWER_WITHIN, Peer, chain};
use super::review::narrow;
use super::{Action, ClusterError, Target};

const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Data that nobody has acknowledged for so long: the path is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that may wait in the socket unsent; what waits before it can still be put in a fair order.
const NOTSENT_LOWAT: u32 = 128 << 10;
/// Keeps up its rate where segments are lost, which an algorithm that takes loss for congestion does not.
const CONGESTION: &str = "bbr";

/// Somebody with the right to choose a congestion control that users may not.
pub trait SocketTuner: Send + Sync + 'static {
    /// Sets it, if it can; a socket without it works, too.
    fn set_congestion<'a>(
        &'a self,
        socket: BorrowedFd<'a>,
        algorithm: &'static str,
    ) -> BoxFuture<'a, ()>;
}

/// A cluster, as one context of the kubeconfig sees it.
#[derive(Clone)]
pub struct Cluster {
    pub(super) client: Client,
    pub(super) peer: Peer,
    pub(super) namespace: String,
    /// Somebody on the way to its pods does not know SPDY.
    pub(super) without_spdy: Arc<AtomicBool>,
}

impl Cluster {
    /// Reads the kubeconfig and gets the credentials (which may run a plugin of the user's). Nothing is sent
    /// to the cluster yet.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn open(
        target: &Target,
        tuner: Option<Arc<dyn SocketTuner>>,
    ) -> Result<Self, ClusterError> {
        let Loaded {
            config,
            context,
            server,
        } = target.load().await?;
        let peer = Peer { server, context };
        // A plugin is run at once, and its end is waited for: on a thread where that does no harm.
        let build = tokio::task::spawn_blocking(move || client(config, tuner));
        let client = match tokio::time::timeout(ANSWER_WITHIN * 4, build).await {
            Ok(Ok(Ok(client))) => client,
            Ok(Ok(Err(error))) => {
                return Err(match error {
                    kube::Error::Auth(_) => ClusterError::Credentials {
                        context: peer.context,
                        reason: chain(&error),
                    },
                    other => ClusterError::BadKubeconfig {
                        reason: chain(&other),
                    },
                });
            }
            Ok(Err(panicked)) => {
                return Err(ClusterError::BadKubeconfig {
                    reason: panicked.to_string(),
                });
            }
            Err(_) => {
                let reason = "the credential plugin does not end".to_owned();
                return Err(ClusterError::Credentials {
                    context: peer.context,
                    reason,
                });
            }
        };
        Ok(Self {
            client,
            peer,
            namespace: target.namespace.clone(),
            without_spdy: Arc::default(),
        })
    }

    /// The kubeconfig's context.
    pub fn context(&self) -> &str {
        &self.peer.context
    }

    /// The API server's address.
    pub fn server(&self) -> &str {
        &self.peer.server
    }

    /// The agent's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// For requests of other kinds than this module makes.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Awaits the answer to a request for a limited time. `what` is what it does ("list pods"), `action` the
    /// right that it takes.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub(crate) async fn ask<T>(
        &self,
        what: impl Into<Cow<'static, str>>,
        action: Action,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ClusterError> {
        match self.peer.ask(what, action, request).await {
            Err(error) => Err(narrow(&self.client, error).await),
            answer => answer,
        }
    }

    /// What a request's failure means to the user.
    pub(crate) fn explain(
        &self,
        what: impl Into<Cow<'static, str>>,
        action: Action,
        error: &kube::Error,
    ) -> ClusterError {
        self.peer.map(what.into(), action, error)
    }

    /// Asks the API server whether it is there, whoever asks.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn ping(&self) -> Result<String, ClusterError> {
        let action = Action::list_pods(&self.namespace);
        let version = self.client.apiserver_version();
        Ok(self
            .peer
            .ask("tell its version", action, version)
            .await?
            .git_version)
    }
}

fn client(config: kube::Config, tuner: Option<Arc<dyn SocketTuner>>) -> kube::Result<Client> {
    let namespace = config.default_namespace.clone();
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_connect_timeout(Some(CONNECT_WITHIN));
    let https = config.rustls_https_connector_with_connector(Tuned { tcp, tuner })?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, namespace))
}

/// A TCP connector that sets its sockets up.
#[derive(Clone)]
struct Tuned {
    tcp: HttpConnector,
    tuner: Option<Arc<dyn SocketTuner>>,
}

impl Service<Uri> for Tuned {
    type Response = TokioIo<TcpStream>;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connect = self.tcp.call(to);
        let tuner = self.tuner.clone();
        Box::pin(async move {
            let stream = connect.await?;
            tune(stream.inner(), tuner.as_deref()).await;
            Ok(stream)
        })
    }
}

/// What can't be set is only slower.
async fn tune(stream: &TcpStream, tuner: Option<&dyn SocketTuner>) {
    let socket = SockRef::from(stream);
    if let Err(error) = socket.set_tcp_user_timeout(Some(USER_TIMEOUT)) {
        tracing::debug!(%error, "no TCP_USER_TIMEOUT");
    }
    if let Err(error) = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT) {
        tracing::debug!(%error, "no TCP_NOTSENT_LOWAT");
    }
    match (socket.set_tcp_congestion(CONGESTION.as_bytes()), tuner) {
        (Ok(()), _) => {}
        (Err(_), Some(tuner)) => tuner.set_congestion(stream.as_fd(), CONGESTION).await,
        (Err(error), None) => {
            tracing::debug!(%error, "no {CONGESTION} for the API server's sockets")
        }
    }
}
