//! Why an agent's pods don't start, out of what the API shows of them. Pure: it looks at copies of objects.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt;

const REVISION: &str = "deployment.kubernetes.io/revision";

/// What a store holds, shared with it.
pub(super) type Shared<K> = [Arc<K>];

/// Starts that an agent gets before its ending is taken for its habit.
const STARTS: i32 = 3;

const IMAGE_IS_WRONG: &str = "The image must hold pmz as /pmz, for the node's architecture: name another \
                              with --image";

/// What was seen of an agent in its namespace.
pub(super) struct Seen<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) sets: &'a Shared<ReplicaSet>,
    pub(super) pods: &'a Shared<Pod>,
    /// Warnings.
    pub(super) events: &'a Shared<Event>,
}

/// How far a rollout is.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) complete: bool,
    pub(super) ready: i32,
    pub(super) wanted: i32,
    pub(super) problem: Option<Problem>,
}

/// What keeps a pod from serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// With the cluster's own words.
    pub(super) what: String,
    /// What to do.
    pub(super) next: String,
    /// Whether waiting is no use.
    pub(super) lasting: bool,
    /// The pod whose log tells more.
    pub(super) crashed: Option<String>,
    /// Whether that is the log of the container before the present one.
    pub(super) previous: bool,
}

impl Problem {
    fn new(what: String, next: impl Into<String>, lasting: bool) -> Self {
        Self {
            what,
            next: next.into(),
            lasting,
            crashed: None,
            previous: false,
        }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ready", self.ready, self.wanted)?;
        match &self.problem {
            Some(problem) => write!(f, "; {}", problem.what),
            None => Ok(()),
        }
    }
}

/// How far the rollout is, and what is in its way.
pub(super) fn judge(seen: &Seen<'_>) -> Judged {
    let deployment = seen.deployment;
    let status = deployment.status.as_ref();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    // What is there of an older kind serves meanwhile, but is not what was asked for.
    let ready = status.map_or(0, |status| {
        let updated = status.updated_replicas.unwrap_or(0);
        updated.min(status.available_replicas.unwrap_or(0))
    });
    let complete = is_complete(deployment);
    Judged {
        complete,
        ready,
        wanted: wanted.unwrap_or(1),
        problem: if complete { None } else { problem(seen) },
    }
}

fn problem(seen: &Seen<'_>) -> Option<Problem> {
    let set = newest(seen)?;
    if let Some(refused) = not_created(set) {
        return Some(refused);
    }
    let uid = set.metadata.uid.as_deref()?;
    let mut problems: Vec<Problem> = seen
        .pods
        .iter()
        .filter(|pod| owned_by(pod.owner_references(), uid))
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| in_the_way(pod, seen.events))
        .collect();
    problems.sort_by_key(|problem| !problem.lasting);
    problems.into_iter().next()
}

/// The replica set that is rolled out, once the controller has made it.
fn newest<'a>(seen: &Seen<'a>) -> Option<&'a ReplicaSet> {
    let deployment = seen.deployment;
    let observed = deployment.status.as_ref()?.observed_generation;
    if observed < deployment.metadata.generation {
        return None;
    }
    let uid = deployment.metadata.uid.as_deref()?;
    let revision = deployment.annotations().get(REVISION)?;
    seen.sets.iter().map(AsRef::as_ref).find(|set| {
        owned_by(set.owner_references(), uid) && set.annotations().get(REVISION) == Some(revision)
    })
}

fn owned_by(
    owners: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
    uid: &str,
) -> bool {
    owners.iter().any(|owner| owner.uid == uid)
}

/// Why there is no pod at all: quota, Pod Security, a webhook.
fn not_created(set: &ReplicaSet) -> Option<Problem> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let words = failure.message.clone().unwrap_or_default();
    let namespace = set.namespace().unwrap_or_default();
    let (next, lasting) = if words.contains("exceeded quota") || words.contains("failed quota") {
        (
            format!(
                "Ask for more (`kubectl describe quota -n {namespace}` shows it), or for less with \
                 --request and --limit"
            ),
            true,
        )
    } else if words.contains(" usage per ") {
        (
            format!(
                "Keep within it with --request and --limit (`kubectl describe limitrange -n {namespace}` shows \
                 it)"
            ),
            true,
        )
    } else if words.contains("violates PodSecurity") {
        (
            format!(
                "The agent meets the level 'restricted', so something has changed its pods, or the manifests: \
                 `kubectl get namespace {namespace} -o yaml` shows the namespace's levels"
            ),
            true,
        )
    } else if words.contains("denied the request") || words.contains("is forbidden") {
        // A service account may be missing for a moment only.
        let lasting = !words.contains("service account");
        (
            "Who runs the cluster can tell why that rule is there".to_owned(),
            lasting,
        )
    } else {
        (
            format!(
                "`kubectl describe replicaset {} -n {namespace}` says more",
                set.name_any()
            ),
            false,
        )
    };
    Some(Problem::new(
        format!("no pod is made: {words}"),
        next,
        lasting,
    ))
}

fn in_the_way(pod: &Pod, events: &Shared<Event>) -> Option<Problem> {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let condition = |kind: &str| {
        let mut all = conditions.into_iter().flatten();
        all.find(|condition| condition.type_ == kind)
    };
    if condition("Ready").is_some_and(|ready| ready.status == "True") {
        return None;
    }
    let name = pod.name_any();
    let describe = format!(
        "`kubectl describe pod {name} -n {}` says more",
        pod.namespace().unwrap_or_default()
    );
    if let Some(scheduled) = condition("PodScheduled").filter(|c| c.status == "False") {
        let words = scheduled.message.clone().unwrap_or_default();
        let what = format!("no node takes pod {name}: {words}");
        let next = "See --node-selector, --toleration and --request, or free a node";
        return Some(Problem::new(what, next, false));
    }
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let stuck = containers
        .into_iter()
        .flatten()
        .find_map(|container| stuck(pod, container, events));
    stuck.or_else(|| {
        let words = last_warning(pod, events, |_| true)?;
        Some(Problem::new(
            format!("pod {name}: {words}"),
            describe,
            false,
        ))
    })
}

fn stuck(pod: &Pod, container: &ContainerStatus, events: &Shared<Event>) -> Option<Problem> {
    let name = pod.name_any();
    let namespace = pod.namespace().unwrap_or_default();
    let state = container.state.as_ref()?;
    let ended = state.terminated.as_ref().or_else(|| {
        let last = container.last_state.as_ref()?;
        last.terminated.as_ref()
    });
    let waiting = state.waiting.as_ref();
    let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
    let words = waiting.and_then(|waiting| waiting.message.clone());
    match reason {
        Some(
            reason @ ("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName"
            | "ErrImageNeverPull"),
        ) => {
            let event = last_warning(pod, events, |text| text.contains("pull"));
            let words = event.or(words).unwrap_or_default();
            let what = format!("pod {name}: {reason}: {words}");
            let lasting = !reason.contains("Pull") || reason.contains("Never") || is_final(&words);
            let next = "Name an image that the nodes can pull with --image (and --pull-secret where the \
                        registry wants credentials), or make one with `pmz agent image` and load it into \
                        the nodes";
            Some(Problem::new(what, next, lasting))
        }
        Some(
            reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError"),
        ) => {
            let what = format!("pod {name}: {reason}: {}", words.unwrap_or_default());
            let next = match reason {
                "RunContainerError" => IMAGE_IS_WRONG.to_owned(),
                _ => format!("`kubectl describe pod {name} -n {namespace}` says more"),
            };
            Some(Problem::new(what, next, reason != "CreateContainerError"))
        }
        _ => {
            let ended = ended.filter(|_| state.running.is_none() || container.restart_count > 0)?;
            let reason = ended.reason.as_deref().unwrap_or("Error");
            let words = ended.message.as_deref().unwrap_or_default();
            let what = match reason {
                "OOMKilled" => format!("pod {name}: the agent was out of memory (OOMKilled)"),
                "StartError" | "ContainerCannotRun" => {
                    format!("pod {name}: the image can't be run ({reason}): {words}")
                }
                _ => format!(
                    "pod {name}: the agent ended with exit code {} after start {} {words}",
                    ended.exit_code,
                    container.restart_count + i32::from(state.running.is_none()),
                ),
            };
            let next = match reason {
                "OOMKilled" => "Give it more with --limit memory=2Gi".to_owned(),
                "StartError" | "ContainerCannotRun" => IMAGE_IS_WRONG.to_owned(),
                _ => format!("`kubectl logs {name} -n {namespace} --previous` says more"),
            };
            let starts = container.restart_count + 1;
            let lasting = matches!(reason, "StartError" | "ContainerCannotRun") || starts >= STARTS;
            Some(Problem {
                what: what.trim_end().to_owned(),
                next,
                lasting,
                crashed: Some(name)
                    .filter(|_| !matches!(reason, "StartError" | "ContainerCannotRun")),
                previous: state.terminated.is_none(),
            })
        }
    }
}

/// Whether the registry has answered, and will answer the same again.
fn is_final(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    [
        ": not found",
        "manifest unknown",
        "name unknown",
        "unauthorized",
        "authentication required",
        "authorization failed",
        "denied",
        "403 forbidden",
        "401 ",
        "no match for platform",
        "invalid reference",
    ]
    .iter()
    .any(|sign| words.contains(sign))
}

/// The text of the newest warning about a pod that `fits`.
fn last_warning(pod: &Pod, events: &Shared<Event>, fits: impl Fn(&str) -> bool) -> Option<String> {
    let uid = pod.metadata.uid.as_deref();
    let mut about: Vec<_> = events
        .iter()
        .filter(|event| event.involved_object.uid.as_deref() == uid)
        .filter(|event| event.message.as_deref().is_some_and(&fits))
        .collect();
    about.sort_by_key(|event| when(event));
    let last = about.pop()?;
    let reason = last.reason.as_deref().unwrap_or("Warning");
    Some(format!("{} ({reason})", last.message.as_deref()?.trim()))
}

/// When an event happened last.
pub(super) fn when(event: &Event) -> Option<k8s_openapi::jiff::Timestamp> {
    let series = event.series.as_ref();
    series
        .and_then(|series| Some(series.last_observed_time.as_ref()?.0))
        .or(event.last_timestamp.as_ref().map(|at| at.0))
        .or(event.event_time.as_ref().map(|at| at.0))
        .or(event.metadata.creation_timestamp.as_ref().map(|at| at.0))
}

/// Whether a deployment's pods are all of its newest kind, and serve.
pub(super) fn is_complete(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let wanted = wanted.unwrap_or(1);
    let Some(status) = &deployment.status else {
        return false;
    };
    let is = |count: Option<i32>| count.unwrap_or(0) == wanted;
    status.observed_generation >= deployment.metadata.generation
        && is(status.replicas)
        && is(status.updated_replicas)
        && is(status.available_replicas)
}

#[cfg(test)]
mod tests;
