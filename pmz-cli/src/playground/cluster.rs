//! The playground's cluster as it stands at the start, and how pods come and go.

use std::net::IpAddr;

use anyhow::{Context, Result};

use super::addresses;
use super::model::{
    ContainerPort, Labels, Model, NodeSpec, PodPhase, PodSpec, Protocol, ServicePort, ServiceSpec,
    ServiceType, new_uid,
};

/// Name of the only node.
pub const NODE_NAME: &str = "node-0";
/// Where the agent lives.
pub const AGENT_NAMESPACE: &str = "pmz";
/// The value of the agent's `app.kubernetes.io/name`, and its service's name.
pub const AGENT_NAME: &str = "pmz-agent";
/// The agent's UDP port.
pub const AGENT_PORT: u16 = 51820;

const DEFAULT: &str = "default";
const SHOP: &str = "shop";

/// What a pod serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// HTTP that answers with what was asked.
    Echo,
    /// Sends datagrams back.
    UdpEcho,
    /// HTTP for big downloads and uploads.
    Blob,
    /// Accepts connections and never reads.
    Slow,
    /// Sends lines back.
    LineEcho,
}

impl Role {
    /// The port that it listens on.
    pub fn port(self) -> u16 {
        match self {
            Self::Echo | Self::Blob | Self::Slow => 8080,
            Self::UdpEcho => 7007,
            Self::LineEcho => 5432,
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::UdpEcho => Protocol::Udp,
            Self::Echo | Self::Blob | Self::Slow | Self::LineEcho => Protocol::Tcp,
        }
    }
}

/// The pods that serve something, as namespace, app and role; each gets a number as its name's end.
const PODS: [(&str, &str, Role); 8] = [
    (DEFAULT, "echo", Role::Echo),
    (DEFAULT, "echo", Role::Echo),
    (DEFAULT, "udp-echo", Role::UdpEcho),
    (DEFAULT, "blob", Role::Blob),
    (DEFAULT, "slow", Role::Slow),
    (DEFAULT, "db", Role::LineEcho),
    (DEFAULT, "db", Role::LineEcho),
    (SHOP, "echo", Role::Echo),
];

/// The cluster at the start, without agents, and what each of its pods serves.
pub(super) fn initial() -> Result<(Model, Vec<Role>)> {
    let mut model = Model {
        namespaces: [
            DEFAULT,
            "kube-node-lease",
            "kube-public",
            "kube-system",
            AGENT_NAMESPACE,
            SHOP,
        ]
        .map(str::to_owned)
        .to_vec(),
        node: NodeSpec {
            name: NODE_NAME.into(),
            uid: new_uid(),
            addresses: addresses::NODE.to_vec(),
            pod_cidrs: addresses::pod_cidrs().to_vec(),
        },
        service_cidrs: addresses::service_cidrs().to_vec(),
        services: services(),
        pods: Vec::new(),
    };
    for (namespace, app, role) in PODS {
        add_serving_pod(&mut model, namespace, app, role)?;
    }
    Ok((model, PODS.map(|(_, _, role)| role).to_vec()))
}

fn services() -> Vec<ServiceSpec> {
    let mut kubernetes = cluster_ip(
        DEFAULT,
        "kubernetes",
        1,
        Protocol::Tcp,
        443,
        addresses::API_PORT,
    );
    kubernetes.selector = Labels::new();
    kubernetes.external_endpoints = addresses::NODE.to_vec();
    kubernetes.labels = Labels::from([
        ("component".into(), "apiserver".into()),
        ("provider".into(), "kubernetes".into()),
    ]);
    for port in &mut kubernetes.ports {
        port.name = Some("https".into());
    }
    let mut db = cluster_ip(DEFAULT, "db", 1, Protocol::Tcp, 5432, Role::LineEcho.port());
    db.kind = ServiceType::Headless;
    let mut outside = cluster_ip(DEFAULT, "outside", 1, Protocol::Tcp, 443, 443);
    outside.kind = ServiceType::ExternalName {
        target: "www.example.com".into(),
    };
    outside.selector = Labels::new();
    outside.ports = Vec::new();
    let mut agent = cluster_ip(
        AGENT_NAMESPACE,
        AGENT_NAME,
        2,
        Protocol::Udp,
        AGENT_PORT,
        AGENT_PORT,
    );
    agent.kind = ServiceType::NodePort {
        cluster_ips: addresses::service(2).to_vec(),
    };
    agent.selector = agent_labels();
    agent.labels = agent_labels();
    for port in &mut agent.ports {
        port.node_port = Some(addresses::AGENT_NODE_PORT);
        port.name = Some("tunnel".into());
    }
    vec![
        kubernetes,
        cluster_ip(DEFAULT, "echo", 10, Protocol::Tcp, 80, Role::Echo.port()),
        cluster_ip(
            DEFAULT,
            "udp-echo",
            11,
            Protocol::Udp,
            7,
            Role::UdpEcho.port(),
        ),
        cluster_ip(DEFAULT, "blob", 12, Protocol::Tcp, 80, Role::Blob.port()),
        cluster_ip(DEFAULT, "slow", 13, Protocol::Tcp, 80, Role::Slow.port()),
        db,
        cluster_ip(DEFAULT, "empty", 14, Protocol::Tcp, 80, 8080),
        outside,
        cluster_ip(SHOP, "echo", 15, Protocol::Tcp, 80, Role::Echo.port()),
        agent,
    ]
}

/// A service for the pods with the label `app: name`.
fn cluster_ip(
    namespace: &str,
    name: &str,
    number: u8,
    protocol: Protocol,
    port: u16,
    target_port: u16,
) -> ServiceSpec {
    let app = Labels::from([("app".into(), name.into())]);
    ServiceSpec {
        namespace: namespace.into(),
        name: name.into(),
        uid: new_uid(),
        labels: app.clone(),
        kind: ServiceType::ClusterIp {
            cluster_ips: addresses::service(number).to_vec(),
        },
        ports: vec![ServicePort {
            name: None,
            protocol,
            port,
            target_port,
            node_port: None,
        }],
        selector: app,
        external_endpoints: Vec::new(),
    }
}

fn agent_labels() -> Labels {
    Labels::from([("app.kubernetes.io/name".into(), AGENT_NAME.into())])
}

fn add_serving_pod(model: &mut Model, namespace: &str, app: &str, role: Role) -> Result<()> {
    let is_one = |pod: &&PodSpec| pod.namespace == namespace && pod.container == app;
    let number = model.pods.iter().filter(is_one).count();
    // An answer's `hostname` tells the namespaces apart.
    let name = match namespace {
        DEFAULT => format!("{app}-{number}"),
        _ => format!("{namespace}-{app}-{number}"),
    };
    // What a StatefulSet gives its pods: a name of their own below the headless service.
    let stateful = role == Role::LineEcho;
    let pod = PodSpec {
        namespace: namespace.into(),
        name: name.clone(),
        uid: new_uid(),
        labels: Labels::from([("app".into(), app.into())]),
        container: app.into(),
        service_account: "default".into(),
        addresses: free_addresses(model)?,
        ports: vec![ContainerPort {
            name: None,
            protocol: role.protocol(),
            port: role.port(),
        }],
        hostname: stateful.then_some(name),
        subdomain: stateful.then(|| app.into()),
        phase: PodPhase::Running,
        ready: true,
        terminating: false,
        node: NODE_NAME.into(),
    };
    model.pods.push(pod);
    Ok(())
}

/// A new pod for an agent: running, not ready.
pub(super) fn agent_pod(model: &Model, hash: &str) -> Result<PodSpec> {
    let name = (0..)
        .map(|number: u32| format!("{AGENT_NAME}-{hash}-{number}"))
        .find(|name| model.pod(AGENT_NAMESPACE, name).is_none())
        .context("no name is free")?;
    let mut labels = agent_labels();
    labels.insert("pod-template-hash".into(), hash.into());
    Ok(PodSpec {
        namespace: AGENT_NAMESPACE.into(),
        name,
        uid: new_uid(),
        labels,
        container: "agent".into(),
        service_account: AGENT_NAME.into(),
        addresses: free_addresses(model)?,
        ports: vec![ContainerPort {
            name: Some("tunnel".into()),
            protocol: Protocol::Udp,
            port: AGENT_PORT,
        }],
        hostname: None,
        subdomain: None,
        phase: PodPhase::Running,
        ready: false,
        terminating: false,
        node: NODE_NAME.into(),
    })
}

fn free_addresses(model: &Model) -> Result<Vec<IpAddr>> {
    let free = (10..=254).map(addresses::pod).find(|candidate| {
        model
            .pods
            .iter()
            .all(|pod| !pod.addresses.contains(&candidate[0]))
    });
    Ok(free
        .context("the node has no address left for a pod")?
        .to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_the_endpoints_that_its_readers_expect() {
        let (model, roles) = initial().unwrap();
        assert_eq!(model.pods.len(), roles.len());
        let endpoints = |namespace, name| {
            let service = model.service(namespace, name).unwrap();
            model
                .endpoints(service)
                .map(|pod| pod.name.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(endpoints("default", "echo"), ["echo-0", "echo-1"]);
        assert_eq!(endpoints("default", "db"), ["db-0", "db-1"]);
        assert_eq!(endpoints("shop", "echo"), ["shop-echo-0"]);
        assert!(endpoints("default", "empty").is_empty());
        assert!(endpoints("default", "outside").is_empty());
        for (pod, role) in model.pods.iter().zip(roles) {
            let of_pod = model
                .services
                .iter()
                .filter(|s| s.selects(pod))
                .flat_map(|s| &s.ports);
            assert!(of_pod.clone().count() > 0, "{}", pod.name);
            assert!(
                of_pod
                    .into_iter()
                    .all(|port| port.target_port == role.port()),
                "{}",
                pod.name
            );
        }
    }

    #[test]
    fn addresses_are_given_once() {
        let (model, _) = initial().unwrap();
        let mut all: Vec<_> = model.pods.iter().flat_map(|p| &p.addresses).collect();
        all.extend(model.services.iter().flat_map(|s| s.cluster_ips()));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn agents_get_the_first_name_and_address_that_is_free() {
        let (mut model, _) = initial().unwrap();
        for expected in ["pmz-agent-abc-0", "pmz-agent-abc-1"] {
            let pod = agent_pod(&model, "abc").unwrap();
            assert_eq!(pod.name, expected);
            model.pods.push(pod);
        }
        let gone = model.pods.remove(model.pods.len() - 2);
        let again = agent_pod(&model, "abc").unwrap();
        assert_eq!((again.name, again.addresses), (gone.name, gone.addresses));
        let service = model.service("pmz", "pmz-agent").unwrap();
        assert_eq!(model.endpoints(service).count(), 1);
    }
}
