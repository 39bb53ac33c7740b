//! What the mirror does not hold is asked of the cluster's own name server.

use hickory_proto::rr::rdata::SOA;

use super::*;
use crate::catalog::samples::port;
use crate::catalog::{Protocol, Service, ServiceKind};
use crate::dns::Translate;

/// The one name below the domain that this server has, besides services.
const BY_HAND: &str = "vault.cluster.local.";
/// Another, below `svc`: a rewriting rule of the server's.
const REWRITTEN: &str = "alias.default.svc.cluster.local.";
/// One that is there and has nothing.
const BARE: &str = "bare.cluster.local.";

/// A name server of a cluster's, which answers by UDP.
struct ClusterServer {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: tokio::task::JoinSet<()>,
}

impl ClusterServer {
    async fn start() -> Self {
        let udp = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        let counter = asked.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                counter.fetch_add(1, Ordering::Relaxed);
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let name = asked.queries[0].name().to_ascii().to_ascii_lowercase();
                let mut answer = answer(&asked, [10, 96, 0, 77]);
                if ![BY_HAND, REWRITTEN].contains(&name.as_str()) {
                    answer.answers.clear();
                    if name != BARE {
                        answer.metadata.response_code = ResponseCode::NXDomain;
                    }
                    answer.add_authority(soa());
                }
                udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        Self {
            address,
            asked,
            _tasks: tasks,
        }
    }

    /// The service that leads to it.
    fn service(&self) -> Service {
        let addresses = [self.address.ip().to_string()];
        let mut service = cluster_ip("kube-system", "kube-dns", &[&addresses[0]], &[]);
        service.ports = vec![
            port("dns", Protocol::Udp, self.address.port()),
            port("dns-tcp", Protocol::Tcp, self.address.port()),
        ];
        service
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn soa() -> Record {
    let name = Name::from_ascii("cluster.local.").unwrap();
    let soa = SOA::new(name.clone(), name.clone(), 1, 7200, 1800, 86400, 30);
    Record::from_rdata(name, 30, RData::SOA(soa))
}

/// A bench whose cluster has these services.
fn bench(services: Vec<Service>) -> Bench {
    let bench = Bench::start(vec![]);
    let snapshot = Snapshot {
        version: 2,
        services,
    };
    bench.mirror.apply_snapshot(snapshot).unwrap();
    bench
}

#[tokio::test]
async fn what_no_service_explains_is_asked_of_the_cluster_once_within_its_ttl() {
    let server = ClusterServer::start().await;
    let echo = cluster_ip("default", "echo", &["10.96.0.7"], &[]);
    let bench = bench(vec![echo, server.service()]);
    for name in [
        "vault.cluster.local.",
        "Vault.Cluster.Local.",
        "alias.default.svc.cluster.local.",
        "Alias.default.svc.cluster.local.",
    ] {
        let reply = bench.udp(&query(name, RecordType::A)).await;
        assert_eq!(addresses(&reply), ["10.96.0.77"], "{name}");
        assert_eq!(reply.answers[0].name.to_ascii(), name);
        assert!(reply.answers[0].ttl <= 300 && !reply.metadata.authoritative);
    }
    assert_eq!(server.asked(), 2);
    // What is not there is kept, too.
    for _ in 0..2 {
        let question = query("nothing.cluster.local.", RecordType::A);
        let reply = bench.udp(&question).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    }
    assert_eq!(server.asked(), 3);
    for record_type in [RecordType::A, RecordType::ANY] {
        let reply = bench.udp(&query(BARE, record_type)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.answers.is_empty(), "{record_type}");
        assert_eq!(reply.authorities[0].record_type(), RecordType::SOA);
    }
}

#[tokio::test]
async fn the_cluster_s_domain_itself_is_asked_of_the_cluster_and_not_outside() {
    let (server, outside) = (
        ClusterServer::start().await,
        Upstream::start(Manner::Answer).await,
    );
    let bench = bench(vec![server.service()]);
    bench.handle.set_upstream(vec![outside.address]);
    // It has the form of a service's name and its namespace.
    let reply = bench.udp(&query("cluster.local.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(server.asked(), 1);
}

#[tokio::test]
async fn what_the_mirror_holds_is_not_asked_of_the_cluster() {
    let server = ClusterServer::start().await;
    let echo = cluster_ip("default", "echo", &["10.96.0.7"], &[]);
    let bench = bench(vec![echo, server.service()]);
    for name in [
        "echo.default.svc.cluster.local.",
        "echo.default.svc.",
        "nothing.default.svc.",
        "example.org.",
    ] {
        bench.udp(&query(name, RecordType::A)).await;
        bench.udp(&query(name, RecordType::AAAA)).await;
    }
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_cluster_without_a_name_server_of_a_known_name_is_not_asked() {
    let bench = bench(vec![]);
    let question = query("nothing.default.svc.cluster.local.", RecordType::A);
    let reply = bench.udp(&question).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert!(reply.metadata.authoritative);
    let reply = bench
        .udp(&query("vault.cluster.local.", RecordType::A))
        .await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn while_the_tunnel_is_away_the_cluster_s_names_are_refused_at_once() {
    let server = ClusterServer::start().await;
    let bench = bench(vec![server.service()]);
    bench.mirror.mark_stale();
    let begun = std::time::Instant::now();
    for name in ["vault.cluster.local.", "a.default.svc.cluster.local."] {
        let reply = bench.udp(&query(name, RecordType::A)).await;
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::ServFail,
            "{name}"
        );
    }
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_name_server_that_does_not_answer_keeps_nobody_waiting_twice() {
    let silent = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let mut service = cluster_ip("kube-system", "kube-dns", &["127.0.0.1"], &[]);
    let at = silent.local_addr().unwrap().port();
    service.ports = vec![port("dns", Protocol::Udp, at)];
    let bench = bench(vec![service]);
    let question = query("nothing.default.svc.cluster.local.", RecordType::A);
    let reply = bench.udp(&question).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    let begun = std::time::Instant::now();
    let reply = bench.udp(&question).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    let reply = bench
        .udp(&query("vault.cluster.local.", RecordType::A))
        .await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn an_external_name_within_the_cluster_is_followed_there() {
    let server = ClusterServer::start().await;
    let alias = external("default", "alias", "vault.cluster.local");
    let bench = bench(vec![alias, server.service()]);
    let reply = bench.udp(&query("alias.default.svc.", RecordType::A)).await;
    assert_eq!(reply.answers[0].record_type(), RecordType::CNAME);
    assert_eq!(addresses(&reply), ["10.96.0.77"]);
}

/// Every address of the cluster has a virtual one; only the name server's is its own.
#[derive(Debug)]
struct Virtual;

#[async_trait::async_trait]
impl Translate for Virtual {
    async fn used(&self, real: &[IpAddr]) -> Vec<Option<IpAddr>> {
        let used = |it: &IpAddr| match it.is_loopback() {
            true => Some(*it),
            false => Some(IpAddr::from([240, 0, 0, 7])),
        };
        real.iter().map(used).collect()
    }

    fn real(&self, _used: IpAddr) -> Option<IpAddr> {
        None
    }
}

#[tokio::test]
async fn the_cluster_s_answers_lead_to_the_addresses_that_the_machine_uses() {
    let server = ClusterServer::start().await;
    let bench = bench(vec![server.service()]);
    let zone = Zone::new("cluster.local").unwrap();
    bench
        .handle
        .set_zone(zone.with_translate(Arc::new(Virtual)));
    let reply = bench
        .udp(&query("vault.cluster.local.", RecordType::A))
        .await;
    assert_eq!(addresses(&reply), ["240.0.0.7"]);
}

#[test]
fn the_cluster_s_name_server_is_found_by_its_service() {
    let mirror = SharedMirror::new();
    let mut dns = cluster_ip("kube-system", "kube-dns", &["10.96.0.10", "fd00::a"], &[]);
    dns.ports = vec![
        port("metrics", Protocol::Tcp, 9153),
        port("dns", Protocol::Udp, 53),
    ];
    let mut other = cluster_ip("kube-system", "coredns", &["10.96.0.11"], &[]);
    other.ports.clone_from(&dns.ports);
    let apply = |version, services| {
        mirror
            .apply_snapshot(Snapshot { version, services })
            .unwrap();
        crate::dns::cluster::servers(&mirror.read().mirror)
    };
    let found = apply(1, vec![dns.clone(), other.clone()]);
    assert_eq!(
        found,
        [
            "10.96.0.10:53".parse().unwrap(),
            "[fd00::a]:53".parse().unwrap()
        ]
    );
    dns.kind = ServiceKind::Headless;
    assert_eq!(
        apply(2, vec![dns, other]),
        ["10.96.0.11:53".parse().unwrap()]
    );
    let echo = cluster_ip("default", "echo", &["10.96.0.7"], &[]);
    assert!(apply(3, vec![echo]).is_empty());
}

#[tokio::test]
async fn a_name_and_its_namespace_alone_are_the_outsides_where_it_has_such_a_name() {
    let question = query("echo.default.", RecordType::A);
    let has_it = Upstream::start(Manner::Answer).await;
    let bench = Bench::start(vec![has_it.address]);
    assert_eq!(addresses(&bench.udp(&question).await), ["192.0.2.1"]);
    // It knows no such name.
    let lacks_it = ClusterServer::start().await;
    bench.handle.set_upstream(vec![lacks_it.address]);
    assert_eq!(addresses(&bench.udp(&question).await), ["10.96.0.7"]);
    bench.handle.set_upstream(vec![]);
    assert_eq!(addresses(&bench.udp(&question).await), ["10.96.0.7"]);
    // Of what no service is called, nothing changes.
    let other = query("other.default.", RecordType::A);
    bench.handle.set_upstream(vec![has_it.address]);
    assert_eq!(addresses(&bench.udp(&other).await), ["192.0.2.1"]);
}
