//! Names below the cluster's domain that no service explains are asked of the cluster's own name server, through the
//! tunnel: what its administrators have put there by hand, mostly.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::{Resolver, TokioResolver};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::catalog::mirror::Mirror;
use crate::catalog::{Protocol, ServiceKind};

/// Namespace and name of the service before the cluster's name server. Kubernetes keeps the first, whatever serves there
/// ("Using CoreDNS for Service Discovery"); the others are what distributions have instead.
const SERVICES: [(&str, &str); 4] = [
    ("kube-system", "kube-dns"),
    ("kube-system", "coredns"),
    ("kube-system", "rke2-coredns-rke2-coredns"),
    ("openshift-dns", "dns-default"),
];
const DNS_PORT: u16 = 53;
/// How long one try may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Tries after the first one.
const RETRIES: usize = 1;
/// Questions that may be under way at once.
const MAX_CONCURRENT: usize = 64;
/// Answers that are kept at most.
const CACHED: u64 = 4096;
/// How long an answer is kept at most, whatever its TTL.
const MAX_TTL: Duration = Duration::from_secs(300);
/// How long it is kept that there is nothing.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(30);

/// How long it is left alone after it did not answer: whoever asks for what isn't there is not to wait each time.
const PAUSE: Duration = Duration::from_secs(5);

/// Why the cluster's server has said nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterDnsError {
    #[error("{MAX_CONCURRENT} questions are under way to the cluster's name server already")]
    Busy,
    #[error("the cluster's name server has not answered of late")]
    Silent,
    #[error("the cluster's name server does not answer: {0}")]
    Unanswered(#[source] NetError),
}

/// The cluster's own name server, with what it has said of late.
#[derive(Debug)]
pub(super) struct ClusterDns {
    permits: Semaphore,
    /// Where it was asked last.
    resolver: Mutex<Option<(Vec<SocketAddr>, Arc<TokioResolver>)>>,
    silent_since: Mutex<Option<Instant>>,
}

impl ClusterDns {
    pub(super) fn new() -> Self {
        Self {
            permits: Semaphore::new(MAX_CONCURRENT),
            resolver: Mutex::default(),
            silent_since: Mutex::default(),
        }
    }

    /// Asks the server at these addresses, or answers from what it said within the time that it gave. All addresses are
    /// the same server's.
    pub(super) async fn ask(
        &self,
        servers: &[SocketAddr],
        name: &Name,
        record_type: RecordType,
    ) -> Result<Message, ClusterDnsError> {
        let silent_since = *self.silent_since.lock();
        if silent_since.is_some_and(|since| since.elapsed() < PAUSE) {
            return Err(ClusterDnsError::Silent);
        }
        let resolver = self.toward(servers).map_err(ClusterDnsError::Unanswered)?;
        let _permit = self
            .permits
            .try_acquire()
            .map_err(|_| ClusterDnsError::Busy)?;
        // As a whole: no search domains.
        let mut whole = name.clone();
        whole.set_fqdn(true);
        let mut answer = Message::new(0, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_available = true;
        match resolver.lookup(whole, record_type).await {
            Ok(found) => {
                answer.answers = found.answers().to_vec();
                answer.additionals = found.additionals().to_vec();
                if answer.answers.is_empty() {
                    // To ANY, what says that there is nothing counts as found.
                    answer.authorities = found.authorities().to_vec();
                }
                // Kept under the name as somebody else has asked for it, letter case and all.
                for record in &mut answer.answers {
                    if record.name.eq_ignore_root(name) {
                        record.name.clone_from(name);
                    }
                }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                answer.metadata.response_code = nothing.response_code;
                let soa = nothing.soa.map(|soa| soa.into_record_of_rdata());
                answer.authorities = soa.into_iter().collect::<Vec<Record>>();
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => {
                answer.metadata.response_code = code;
            }
            Err(error) => {
                *self.silent_since.lock() = Some(Instant::now());
                return Err(ClusterDnsError::Unanswered(error));
            }
        }
        *self.silent_since.lock() = None;
        Ok(answer)
    }

    fn toward(&self, servers: &[SocketAddr]) -> Result<Arc<TokioResolver>, NetError> {
        let mut present = self.resolver.lock();
        if let Some((addresses, resolver)) = &*present
            && addresses == servers
        {
            return Ok(resolver.clone());
        }
        let resolver = Arc::new(resolver(servers)?);
        *present = Some((servers.to_vec(), resolver.clone()));
        *self.silent_since.lock() = None;
        Ok(resolver)
    }
}

/// Where the cluster's name server is reached, as the cluster calls it; nowhere, where no service of the usual names is.
pub(super) fn servers(mirror: &Mirror) -> Vec<SocketAddr> {
    let services = SERVICES
        .iter()
        .filter_map(|(namespace, name)| mirror.service(namespace, name));
    for service in services {
        let ServiceKind::ClusterIp { addresses } = &service.kind else {
            continue;
        };
        let udp = service
            .ports
            .iter()
            .filter(|it| it.protocol == Protocol::Udp);
        let port = udp
            .clone()
            .find(|it| it.port == DNS_PORT)
            .or(udp.clone().find(|it| it.name.as_deref() == Some("dns")));
        if let Some(port) = port {
            let at = |address: &IpAddr| SocketAddr::new(*address, port.port);
            return addresses.iter().map(at).collect();
        }
    }
    Vec::new()
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let connections = connections.map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.to_vec())
    });
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = TIMEOUT;
    options.attempts = RETRIES;
    options.edns0 = true;
    options.cache_size = CACHED;
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
    options.num_concurrent_reqs = 1;
    builder.build()
}
