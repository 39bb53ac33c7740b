//! The server itself: its listener, its connections, and the handle on it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use rand::RngCore;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::faults::{Faults, Frozen};
use super::kubeconfig::{ServiceAccountFiles, kubeconfig};
use super::portforward::PodDialer;
use super::rbac::{Access, Binding, Identity};
use super::run::Run;
use super::service::Service;
use super::store::Store;
use super::{Error, pki};

/// Connections at a time; more wait in the kernel.
const CONNECTIONS: usize = 4096;
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time between requests on a connection, and for the head of a request. Longer than kube-rs keeps idle
/// connections, so that it is not the server that closes them.
const IDLE: Duration = Duration::from_secs(120);
/// Connections that the kernel keeps for a listener that is busy.
const BACKLOG: i32 = 1024;

/// What a server is made of.
pub struct Config {
    /// Where clients outside of the cluster reach the server; goes into kubeconfigs.
    pub advertised: SocketAddr,
    /// Further addresses that lead to it, for its certificate: the node's others, the ClusterIPs of
    /// `kubernetes.default`.
    pub addresses: Vec<IpAddr>,
    /// Who there is, without service accounts. A member of `system:masters` may do all.
    pub users: Vec<Identity>,
    /// Service accounts, as namespace and name.
    pub service_accounts: Vec<(String, String)>,
    /// Who may do what, beside what everybody may.
    pub bindings: Vec<Binding>,
}

/// A running API server. It ends when this is dropped; open connections are cut then.
pub struct ApiServer {
    listener: TcpListener,
    bound: SocketAddr,
    service: Arc<Service>,
    tls: TlsAcceptor,
    ca_pem: String,
    advertised: SocketAddr,
    tokens: HashMap<String, String>,
    run: Mutex<Option<Run>>,
}

impl ApiServer {
    /// Starts on `listener`, whose network namespace may be another one than the caller's.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(
        listener: TcpListener,
        config: Config,
        store: Store,
        dialer: impl PodDialer,
    ) -> Result<Self, Error> {
        let mut addresses = config.addresses.clone();
        addresses.extend([
            config.advertised.ip(),
            IpAddr::from([127, 0, 0, 1]),
            IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        ]);
        let pki = pki::generate(&addresses)?;
        let accounts = config
            .service_accounts
            .iter()
            .map(|(namespace, name)| Identity {
                name: service_account(namespace, name),
                groups: vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ],
            });
        let mut tokens = HashMap::new();
        let mut identities = HashMap::new();
        for identity in config.users.into_iter().chain(accounts) {
            let token = new_token();
            tokens.insert(identity.name.clone(), token.clone());
            identities.insert(token, identity);
        }
        let service = Arc::new(Service {
            store,
            access: Access::new(identities, config.bindings),
            faults: Faults::new(),
            dialer: Arc::new(dialer),
            advertised: config.advertised,
            watches: Arc::default(),
        });
        let server = Self {
            bound: listener.local_addr().map_err(Error::Listen)?,
            listener,
            service,
            tls: TlsAcceptor::from(pki.tls),
            ca_pem: pki.ca_pem,
            advertised: config.advertised,
            tokens,
            run: Mutex::new(None),
        };
        server.resume()?;
        Ok(server)
    }

    /// The objects that it serves.
    pub fn store(&self) -> &Store {
        &self.service.store
    }

    /// A kubeconfig for the user of that name. Context `playground`, namespace `default`. None: there is no
    /// such user.
    pub fn kubeconfig(&self, user: &str) -> Option<String> {
        let server = format!("https://{}", self.advertised);
        let token = self.tokens.get(user)?;
        Some(kubeconfig(&server, &self.ca_pem, user, token))
    }

    /// What pods with that service account find in their file systems. None: there is no such account.
    pub fn service_account_files(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<ServiceAccountFiles> {
        let token = self.tokens.get(&service_account(namespace, name))?;
        Some(ServiceAccountFiles {
            ca: self.ca_pem.clone(),
            token: token.clone(),
            namespace: namespace.to_owned(),
        })
    }

    /// As after kill -9: connections are cut, port-forwards and watches too, new ones are refused. Objects,
    /// certificates and tokens stay. Returns once all is down.
    pub async fn stop(&self) {
        let run = self.run.lock().take();
        if let Some(run) = &run {
            run.cancel();
        }
        // On Linux a listener that is shut down refuses connections until it listens again.
        let _ = socket2::SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
        if let Some(run) = run {
            run.ended().await;
        }
    }

    /// Goes on after [`Self::stop`]. Does nothing while the server runs.
    pub fn resume(&self) -> Result<(), Error> {
        let mut running = self.run.lock();
        if running.is_some() {
            return Ok(());
        }
        self.listen().map_err(Error::Listen)?;
        let listener = self.listener.try_clone().map_err(Error::Listen)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Listen)?;
        let run = Run::new();
        run.spawn(accept(
            listener,
            self.tls.clone(),
            self.service.clone(),
            run.clone(),
        ));
        *running = Some(run);
        Ok(())
    }

    fn listen(&self) -> std::io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let socket = socket2::SockRef::from(&self.listener);
        // The kernel takes a port that it has chosen itself back from a listener that is shut down. Where it
        // has not, there is nothing to bind (EINVAL).
        let _ = socket.bind(&self.bound.into());
        socket.listen(BACKLOG)?;
        if self.listener.local_addr()? == self.bound {
            Ok(())
        } else {
            Err(std::io::ErrorKind::AddrInUse.into())
        }
    }

    /// Makes port-forwards stand still, without closing anything, or go on again.
    pub fn freeze_port_forwards(&self, frozen: Frozen) {
        self.service.faults.freeze(frozen);
    }

    /// Cuts all open port-forwards, as if the connections broke.
    pub fn cut_port_forwards(&self) {
        self.service.faults.cut();
    }

    /// Refuses new port-forwards, as if the node's kubelet was down (500), or no longer.
    pub fn refuse_port_forwards(&self, refuse: bool) {
        self.service.faults.refuse(refuse);
    }

    /// Port-forwards that are open.
    pub fn open_port_forwards(&self) -> usize {
        self.service.faults.open()
    }

    /// Watches that are running.
    pub fn running_watches(&self) -> usize {
        self.service
            .watches
            .load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(run) = self.run.lock().take() {
            run.cancel();
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    tls: TlsAcceptor,
    service: Arc<Service>,
    run: Run,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the API server's stand-in can't accept a connection");
                // Out of descriptors or memory: others have to end first.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, service, inner) = (tls.clone(), service.clone(), run.clone());
        run.spawn(async move {
            serve(stream, tls, service, &inner).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, service: Arc<Service>, run: &Run) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await else {
        return;
    };
    let answer = service_fn(|request| {
        let (service, run) = (service.clone(), run.clone());
        async move { Ok::<_, std::convert::Infallible>(service.answer(request, &run).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::trace!(%error, "a connection to the API server's stand-in ended");
    }
}

fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// 256 bits that nobody can guess.
fn new_token() -> String {
    let mut bits = [0; 32];
    // A cryptographic generator, seeded by the kernel.
    rand::rng().fill_bytes(&mut bits);
    URL_SAFE_NO_PAD.encode(bits)
}
