//! A small cluster behind an API server on loopback, and clients of it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use parking_lot::Mutex;
use pmz_cli::playground::api::{
    ApiServer, Binding, Config, Follower, Identity, PodDialer, Rule, Store, follow,
};
use pmz_cli::playground::model::{
    ContainerPort, Labels, Model, NodeSpec, PodPhase, PodSpec, Protocol, ServicePort, ServiceSpec,
    ServiceType, SharedModel, new_uid,
};
use tokio::net::TcpStream;

/// No wait in a test is longer.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Pods' ports, which are listeners of the test. What isn't there is refused.
#[derive(Clone, Default)]
pub(crate) struct Ports(Arc<Mutex<HashMap<(String, u16), SocketAddr>>>);

impl Ports {
    pub(crate) fn insert(&self, pod: &str, port: u16, address: SocketAddr) {
        self.0.lock().insert((pod.to_owned(), port), address);
    }
}

impl PodDialer for Ports {
    async fn dial(&self, _namespace: &str, pod: &str, port: u16) -> io::Result<TcpStream> {
        let address = self.0.lock().get(&(pod.to_owned(), port)).copied();
        match address {
            Some(address) => TcpStream::connect(address).await,
            None => Err(io::Error::from_raw_os_error(libc::ECONNREFUSED)),
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) address: SocketAddr,
    pub(crate) model: SharedModel,
    pub(crate) ports: Ports,
    _follower: Follower,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let model = SharedModel::new(model());
        let store = Store::new();
        let follower = follow(store.clone(), &model).unwrap();
        let ports = Ports::default();
        let server = ApiServer::start(listener, config(address), store, ports.clone()).unwrap();
        Self {
            server,
            address,
            model,
            ports,
            _follower: follower,
        }
    }

    pub(crate) async fn client(&self, user: &str) -> Client {
        let yaml = self.server.kubeconfig(user).unwrap();
        client_of(&yaml).await
    }

    /// A client that has the token and certificate that the agent's pod has.
    pub(crate) fn agent(&self) -> Client {
        let files = self
            .server
            .service_account_files("pmz", "pmz-agent")
            .unwrap();
        let mut config = kube::Config::new(format!("https://{}", self.address).parse().unwrap());
        let ca = pem_to_der(&files.ca);
        config.root_cert = Some(vec![ca]);
        config.auth_info.token = Some(files.token.into());
        Client::try_from(config).unwrap()
    }
}

pub(crate) async fn client_of(yaml: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(yaml).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    assert_eq!(config.default_namespace, "default");
    Client::try_from(config).unwrap()
}

pub(crate) fn pem_to_der(pem: &str) -> Vec<u8> {
    use base64::Engine;
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).collect();
    base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap()
}

fn config(address: SocketAddr) -> Config {
    let identity = |name: &str, groups: &[&str]| Identity {
        name: name.into(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
    };
    let binding = |name: &str, namespace: Option<&str>, users: &[&str], rules: Vec<Rule>| Binding {
        name: name.into(),
        namespace: namespace.map(str::to_owned),
        users: users.iter().map(|u| (*u).to_owned()).collect(),
        groups: vec![],
        rules,
    };
    let pods = || Rule::on(&["get", "list"], "", &["pods"]);
    Config {
        advertised: address,
        addresses: vec![IpAddr::from([10, 96, 0, 1])],
        users: vec![
            identity("admin", &["system:masters"]),
            identity("dev", &[]),
            identity("dev2", &[]),
            identity("half", &[]),
        ],
        service_accounts: vec![("pmz".into(), "pmz-agent".into())],
        bindings: vec![
            binding(
                "pmz-user",
                Some("pmz"),
                &["dev"],
                vec![
                    pods(),
                    Rule::on(&["get", "create"], "", &["pods/portforward"]),
                ],
            ),
            binding("pods", Some("pmz"), &["dev2"], vec![pods()]),
            binding(
                "half",
                Some("pmz"),
                &["half"],
                vec![Rule::on(&["get"], "", &["pods/portforward"])],
            ),
            binding(
                "pmz-agent",
                None,
                &["system:serviceaccount:pmz:pmz-agent"],
                vec![
                    Rule::on(&["list", "watch"], "", &["services"]),
                    Rule::on(&["list", "watch"], "discovery.k8s.io", &["endpointslices"]),
                ],
            ),
        ],
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn labels(all: &[(&str, &str)]) -> Labels {
    all.iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect()
}

pub(crate) fn pod(namespace: &str, name: &str, app: &str, number: u8) -> PodSpec {
    PodSpec {
        namespace: namespace.into(),
        name: name.into(),
        uid: new_uid(),
        labels: labels(&[("app", app)]),
        container: app.into(),
        service_account: "default".into(),
        addresses: vec![
            IpAddr::from([10, 244, 0, number]),
            ip(&format!("fd00:10:244::{number:x}")),
        ],
        ports: vec![ContainerPort {
            name: Some("http".into()),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        hostname: None,
        subdomain: None,
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        node: "node-0".into(),
    }
}

pub(crate) fn service(namespace: &str, name: &str, number: u8) -> ServiceSpec {
    ServiceSpec {
        namespace: namespace.into(),
        name: name.into(),
        uid: new_uid(),
        labels: labels(&[("app", name)]),
        kind: ServiceType::ClusterIp {
            cluster_ips: vec![
                IpAddr::from([10, 96, 0, number]),
                ip(&format!("fd00:10:96::{number:x}")),
            ],
        },
        ports: vec![ServicePort {
            name: None,
            protocol: Protocol::Tcp,
            port: 80,
            target_port: 8080,
            node_port: None,
        }],
        selector: labels(&[("app", name)]),
        external_endpoints: vec![],
    }
}

fn model() -> Model {
    let mut db = service("default", "db", 1);
    db.kind = ServiceType::Headless;
    let mut outside = service("default", "outside", 1);
    outside.kind = ServiceType::ExternalName {
        target: "example.test".into(),
    };
    outside.selector.clear();
    outside.ports.clear();
    let mut kubernetes = service("default", "kubernetes", 1);
    kubernetes.selector.clear();
    kubernetes.external_endpoints = vec![ip("10.99.0.11"), ip("fd99::11")];
    let mut node_port = service("default", "np", 13);
    if let ServiceType::ClusterIp { cluster_ips } = node_port.kind {
        node_port.kind = ServiceType::NodePort { cluster_ips };
    }
    node_port.ports[0].node_port = Some(31000);
    let mut member = pod("default", "db-0", "db", 12);
    member.hostname = Some("db-0".into());
    member.subdomain = Some("db".into());
    Model {
        namespaces: ["default", "kube-system", "pmz", "shop"]
            .map(String::from)
            .to_vec(),
        node: NodeSpec {
            name: "node-0".into(),
            uid: new_uid(),
            addresses: vec![ip("10.99.0.11"), ip("fd99::11")],
            pod_cidrs: vec![
                "10.244.0.0/24".parse().unwrap(),
                "fd00:10:244::/64".parse().unwrap(),
            ],
        },
        service_cidrs: vec![
            "10.96.0.0/16".parse().unwrap(),
            "fd00:10:96::/112".parse().unwrap(),
        ],
        services: vec![
            kubernetes,
            service("default", "echo", 10),
            db,
            outside,
            service("default", "empty", 11),
            service("shop", "echo", 12),
            node_port,
        ],
        pods: vec![
            pod("default", "echo-0", "echo", 10),
            pod("default", "echo-1", "echo", 11),
            member,
            pod("shop", "echo-0", "echo", 13),
            pod("pmz", "pmz-agent-0", "pmz-agent", 14),
        ],
    }
}
