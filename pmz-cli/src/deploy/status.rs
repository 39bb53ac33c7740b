//! What of an agent is there, and how it does.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};

use super::manifest::NAME;
use super::reason::{Seen, judge, when};
use crate::cluster::{AGENT_SELECTOR, Action, Cluster, ClusterError, pod_state};

/// The label that names the version of pmz which made an object.
const VERSION: &str = "app.kubernetes.io/version";

/// An agent as the API shows it. What the user may not see is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Where it is.
    pub namespace: String,
    /// How many pods there should be; `None` where there is no deployment, or it may not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// Its pods, of whatever kind.
    pub pods: Vec<PodReport>,
    /// How its UDP port is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposure: Option<Exposure>,
    /// What keeps a rollout from coming to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The newest warning about it, which may be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_warning: Option<Warning>,
    /// Resources that the user may not see, so that something may be missing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

/// Counts of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// As many as there should be.
    pub wanted: i32,
    /// Those that serve.
    pub ready: i32,
    /// Those of the newest kind.
    pub updated: i32,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodReport {
    /// Its name.
    pub name: String,
    /// Whether it serves.
    pub ready: bool,
    /// What it does instead of serving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Its node, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its image.
    pub image: String,
    /// The version of pmz that deployed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How often its container was started again.
    pub restarts: i32,
}

/// How the UDP port is reached from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// `NodePort`, `LoadBalancer`, or `none`.
    pub kind: String,
    /// The port at each node that runs an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
    /// What a load balancer has given, once it has: `203.0.113.9:51820`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Whom it is about: `Pod pmz-agent-abc`.
    pub about: String,
    /// In one word.
    pub reason: String,
    /// In the cluster's words.
    pub message: String,
    /// When it happened last, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl AgentReport {
    /// Whether nothing at all is there.
    pub fn is_empty(&self) -> bool {
        self.replicas.is_none() && self.pods.is_empty()
    }

    /// Whether somebody can be served.
    pub fn serves(&self) -> bool {
        self.pods.iter().any(|pod| pod.ready)
    }
}

/// Looks at the agent in the cluster's namespace. Only its pods must be seen; who connects sees them.
///
/// # Errors
/// See [`ClusterError`].
pub async fn agent_report(cluster: &Cluster) -> Result<AgentReport, ClusterError> {
    let namespace = cluster.namespace();
    let client = cluster.client();
    let mut unseen = Vec::new();
    let labelled = ListParams::default().labels(AGENT_SELECTOR);
    let named = ListParams::default().fields(&format!("metadata.name={NAME}"));
    let warnings = ListParams::default().fields("type=Warning").limit(500);

    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let action = Action::new(&["list"], "pods").within(namespace);
    let pods = cluster
        .ask("list pods", action, pods.list(&labelled))
        .await?;
    let pods: Vec<Arc<Pod>> = pods.items.into_iter().map(Arc::new).collect();

    let mut see = Seeing {
        cluster,
        unseen: &mut unseen,
    };
    let deployments: Vec<Deployment> = see.list("deployments.apps", &named).await?;
    let sets: Vec<ReplicaSet> = see.list("replicasets.apps", &labelled).await?;
    let services: Vec<Service> = see.list("services", &named).await?;
    let events: Vec<Event> = see.list("events", &warnings).await?;
    let sets: Vec<_> = sets.into_iter().map(Arc::new).collect();
    let events: Vec<_> = events.into_iter().map(Arc::new).collect();
    let deployment = deployments.first();
    let judged = deployment.map(|deployment| {
        judge(&Seen {
            deployment,
            sets: &sets,
            pods: &pods,
            events: &events,
        })
    });
    let saw_services = !unseen.iter().any(|resource| resource == "services");
    Ok(AgentReport {
        namespace: namespace.to_owned(),
        replicas: deployment.map(replicas),
        pods: pods.iter().map(|pod| pod_report(pod)).collect(),
        exposure: (deployment.is_some() && saw_services).then(|| exposure(services.first())),
        problem: judged
            .and_then(|judged| judged.problem)
            .map(|problem| problem.what),
        last_warning: last_warning(&events),
        unseen,
    })
}

struct Seeing<'a> {
    cluster: &'a Cluster,
    unseen: &'a mut Vec<String>,
}

impl Seeing<'_> {
    /// Lists what may be listed; else notes that it may not.
    async fn list<K>(
        &mut self,
        resource: &'static str,
        params: &ListParams,
    ) -> Result<Vec<K>, ClusterError>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let namespace = self.cluster.namespace();
        let api = Api::<K>::namespaced(self.cluster.client(), namespace);
        let action = Action::new(&["list"], resource).within(namespace);
        let listed = self
            .cluster
            .ask(format!("list {resource}"), action, api.list(params))
            .await;
        match listed {
            Ok(list) => Ok(list.items),
            Err(ClusterError::Forbidden { .. }) => {
                self.unseen.push(resource.to_owned());
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

fn replicas(deployment: &Deployment) -> Replicas {
    let status = deployment.status.as_ref();
    let count = |count: Option<i32>| count.unwrap_or(0);
    Replicas {
        wanted: deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1),
        ready: status.map_or(0, |status| count(status.ready_replicas)),
        updated: status.map_or(0, |status| count(status.updated_replicas)),
    }
}

fn pod_report(pod: &Pod) -> PodReport {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let state = pod_state(pod);
    PodReport {
        name: pod.name_any(),
        ready: state.is_none(),
        state,
        node: spec.and_then(|spec| spec.node_name.clone()),
        image: spec
            .and_then(|spec| spec.containers.first()?.image.clone())
            .unwrap_or_default(),
        version: pod.labels().get(VERSION).cloned(),
        restarts: containers
            .into_iter()
            .flatten()
            .map(|container| container.restart_count)
            .sum(),
    }
}

fn exposure(service: Option<&Service>) -> Exposure {
    let Some(spec) = service.and_then(|service| service.spec.as_ref()) else {
        return Exposure {
            kind: "none".to_owned(),
            ..Exposure::default()
        };
    };
    let port = spec
        .ports
        .iter()
        .flatten()
        .find(|port| port.protocol.as_deref() == Some("UDP"));
    let balancer = service.and_then(|service| service.status.as_ref()?.load_balancer.as_ref());
    let ingresses = balancer
        .into_iter()
        .flat_map(|balancer| balancer.ingress.iter().flatten());
    let hosts = ingresses.filter_map(|ingress| ingress.ip.as_ref().or(ingress.hostname.as_ref()));
    Exposure {
        kind: spec.type_.clone().unwrap_or_else(|| "ClusterIP".to_owned()),
        node_port: port.and_then(|port| port.node_port),
        addresses: hosts
            .zip(std::iter::repeat(port.map_or(0, |port| port.port)))
            .map(|(host, port)| {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            })
            .collect(),
    }
}

/// The newest warning about the agent's own objects.
fn last_warning(events: &[Arc<Event>]) -> Option<Warning> {
    let ours = |event: &&Arc<Event>| {
        let name = event.involved_object.name.as_deref().unwrap_or_default();
        name == NAME
            || name
                .strip_prefix(NAME)
                .is_some_and(|rest| rest.starts_with('-'))
    };
    let event = events.iter().filter(ours).max_by_key(|event| when(event))?;
    let about = &event.involved_object;
    Some(Warning {
        about: format!(
            "{} {}",
            about.kind.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default()
        ),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
        at: when(event).map(|at| at.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_ways_to_the_udp_port_are_told() {
        let service = json!({
            "metadata": {"name": NAME},
            "spec": {"type": "LoadBalancer", "ports": [
                {"protocol": "TCP", "port": 1, "nodePort": 30001},
                {"protocol": "UDP", "port": 51820, "nodePort": 30002},
            ]},
            "status": {"loadBalancer": {"ingress": [
                {"ip": "203.0.113.9"}, {"ip": "fd99::1"}, {"hostname": "lb.example"},
            ]}},
        });
        let service: Service = serde_json::from_value(service).unwrap();
        assert_eq!(
            exposure(Some(&service)),
            Exposure {
                kind: "LoadBalancer".to_owned(),
                node_port: Some(30002),
                addresses: ["203.0.113.9:51820", "[fd99::1]:51820", "lb.example:51820"]
                    .map(str::to_owned)
                    .to_vec(),
            }
        );
        assert_eq!(exposure(None).kind, "none");
    }

    #[test]
    fn the_newest_warning_about_the_agent_is_told() {
        let event = |name: &str, second: u8| {
            let event = json!({
                "metadata": {}, "reason": "Failed", "message": format!("at {second}"),
                "involvedObject": {"kind": "Pod", "name": name},
                "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            });
            Arc::new(serde_json::from_value::<Event>(event).unwrap())
        };
        let events = [
            event("pmz-agent-a", 3),
            event("pmz-agent-b", 5),
            event("pmz-agent-c", 4),
            event("pmz-agentless", 9),
            event("other", 9),
        ];
        let warning = last_warning(&events).unwrap();
        assert_eq!(warning.about, "Pod pmz-agent-b");
        assert_eq!(warning.at.as_deref(), Some("2026-01-01T00:00:05Z"));
        assert_eq!(last_warning(&events[3..]), None);
    }

    #[test]
    fn a_pods_image_version_and_restarts_are_told() {
        let pod = json!({
            "metadata": {"name": "pmz-agent-a", "labels": {"app.kubernetes.io/version": "0.1.0"}},
            "spec": {"nodeName": "node1", "containers": [{"name": "agent", "image": "a/b:c"}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            }]},
        });
        let report = pod_report(&serde_json::from_value(pod).unwrap());
        assert_eq!((report.image.as_str(), report.restarts), ("a/b:c", 2));
        assert_eq!(report.version.as_deref(), Some("0.1.0"));
        assert_eq!(
            (report.ready, report.state.as_deref()),
            (false, Some("CrashLoopBackOff"))
        );
    }
}
