//! Finding the agent's pod.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::{AGENT_SELECTOR, Action, Cluster, ClusterError};

/// A pod of the agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Distinguishes it from a later pod of the same name.
    pub uid: String,
    /// Its node.
    pub node: Option<String>,
}

impl Cluster {
    /// The agents to try, in this order: those that are ready, newest first; then those that run and are
    /// not ready, which may only not have been asked yet (a kubelet that starts again forgets what it knew).
    ///
    /// # Errors
    /// [`ClusterError::NoAgent`] or [`ClusterError::AgentNotReady`] where there is none; else see
    /// [`ClusterError`].
    pub async fn find_agents(&self) -> Result<Vec<AgentPod>, ClusterError> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let wanted = ListParams::default().labels(AGENT_SELECTOR);
        let action = Action::list_pods(&self.namespace);
        let list = self
            .peer
            .ask("list pods", action, pods.list(&wanted))
            .await?;
        choose(list.items, &self.namespace)
    }

    /// The agent to use.
    ///
    /// # Errors
    /// As [`Cluster::find_agents`].
    pub async fn find_agent(&self) -> Result<AgentPod, ClusterError> {
        let mut agents = self.find_agents().await?;
        if agents.is_empty() {
            return Err(ClusterError::NoAgent {
                namespace: self.namespace.clone(),
            });
        }
        Ok(agents.swap_remove(0))
    }
}

/// Runs, and is not ready.
const NOT_READY: &str = "not ready";
/// What a pod waits for that does not come by waiting.
const HOPELESS: [&str; 7] = [
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "Failed",
];

/// Whether a pod in this state may become ready by itself, and soon.
pub(crate) fn may_become_ready(state: &str) -> bool {
    !HOPELESS.contains(&state)
}

fn choose(mut pods: Vec<Pod>, namespace: &str) -> Result<Vec<AgentPod>, ClusterError> {
    pods.sort_by(|a, b| {
        b.metadata
            .creation_timestamp
            .cmp(&a.metadata.creation_timestamp)
            .then_with(|| {
                // Pods of one second: the order must not change from call to call.
                a.metadata.name.cmp(&b.metadata.name)
            })
    });
    let (ready, others): (Vec<&Pod>, Vec<&Pod>) = pods.iter().partition(|pod| state(pod).is_none());
    let running = others
        .into_iter()
        .filter(|pod| state(pod).as_deref() == Some(NOT_READY));
    let usable: Vec<AgentPod> = ready
        .into_iter()
        .chain(running)
        .filter_map(|pod| agent(pod, namespace))
        .collect();
    if !usable.is_empty() {
        return Ok(usable);
    }
    let namespace = namespace.to_owned();
    match pods.into_iter().next() {
        Some(pod) => Err(ClusterError::AgentNotReady {
            namespace,
            state: state(&pod).unwrap_or_default(),
            pod: pod.metadata.name.unwrap_or_default(),
        }),
        None => Err(ClusterError::NoAgent { namespace }),
    }
}

fn agent(pod: &Pod, namespace: &str) -> Option<AgentPod> {
    Some(AgentPod {
        namespace: namespace.to_owned(),
        name: pod.metadata.name.clone()?,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
    })
}

/// What a pod does instead of serving; `None` for one that is ready.
pub(crate) fn state(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("being deleted".to_owned());
    }
    let status = pod.status.as_ref()?;
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    if ready {
        return None;
    }
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.phase.clone().unwrap_or_else(|| "Unknown".to_owned());
    Some(waiting.unwrap_or_else(|| {
        if phase == "Running" {
            NOT_READY.to_owned()
        } else {
            phase
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, second: u8, ready: bool) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"containers": [], "nodeName": "node-1"},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            },
        }))
        .unwrap()
    }

    fn names(pods: Vec<Pod>) -> Vec<String> {
        choose(pods, "pmz")
            .unwrap()
            .into_iter()
            .map(|a| a.name)
            .collect()
    }

    #[test]
    fn the_newest_ready_pod_comes_first_and_one_that_only_runs_last() {
        let mut leaving = pod("leaving", 9, true);
        leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
        let pods = vec![
            pod("old", 1, true),
            pod("starting", 8, false),
            pod("new", 5, true),
            leaving,
        ];
        assert_eq!(names(pods), ["new", "old", "starting"]);
    }

    #[test]
    fn pods_of_one_second_keep_their_order() {
        let pods = vec![pod("b", 1, true), pod("a", 1, true)];
        assert_eq!(names(pods.clone()), names(pods.into_iter().rev().collect()));
    }

    #[test]
    fn no_pod_and_no_ready_pod_are_told_apart() {
        assert!(matches!(
            choose(vec![], "pmz"),
            Err(ClusterError::NoAgent { .. })
        ));
        let mut pulling = pod("agent-0", 1, false);
        let containers = serde_json::json!([{
            "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff"}},
        }]);
        pulling.status.as_mut().unwrap().container_statuses =
            serde_json::from_value(containers).unwrap();
        match choose(vec![pulling], "pmz") {
            Err(ClusterError::AgentNotReady { pod, state, .. }) => {
                assert_eq!(
                    (pod.as_str(), state.as_str()),
                    ("agent-0", "ImagePullBackOff")
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
