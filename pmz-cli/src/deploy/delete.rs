//! Deleting an agent: all that was made for it, and nothing else.

use std::time::Duration;

use futures::stream::{StreamExt, TryStreamExt, iter};
use kube::api::{
    DeleteParams, DynamicObject, ListParams, PartialObjectMeta, Preconditions, PropagationPolicy,
};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt};

use super::error::DeployError;
use super::manifest::{Manifest, NAME, is_managed};
use super::object::{Object, find};
use crate::cluster::{Action, Cluster, ClusterError};
use crate::daemon::Board;

/// Foreign objects that are named at most.
const NAMED: usize = 5;
/// Kinds of objects that are asked for at the same time.
const AT_ONCE: usize = 8;

/// What has become of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// What is gone.
    pub deleted: Vec<String>,
    /// What has the name of an agent's object, but isn't pmz's.
    pub left: Vec<String>,
    /// Why the namespace is still there, where it is.
    pub namespace: Option<String>,
}

/// Deletes an agent's objects, waits until its pods are gone, and deletes the namespace if pmz made it and
/// nobody else uses it.
///
/// # Errors
/// See [`DeployError`].
pub async fn delete_agent(
    cluster: &Cluster,
    within: Duration,
    board: &Board,
) -> Result<Deleted, DeployError> {
    let namespace = cluster.namespace();
    let mut result = Deleted::default();
    let mut gone: Vec<String> = Vec::new();
    // The account's rights go last: a pod that still runs logs no complaints.
    for object in Manifest::all(namespace)?.iter().rev() {
        let Some(found) = find(cluster, object).await? else {
            continue;
        };
        let title = object.title();
        if !is_managed(&found) {
            result.left.push(title.clone());
            if object.is("Namespace") {
                result.namespace = Some("it was not made by pmz".to_owned());
            }
            continue;
        }
        board.step(format!("deleting {title}"));
        if object.is("Namespace") {
            match foreign(cluster, namespace, &gone).await {
                Ok(others) if others.is_empty() => {}
                Ok(others) => {
                    result.namespace = Some(format!("it holds {}", list(&others)));
                    board.done("it stays");
                    continue;
                }
                Err(error) => {
                    result.namespace =
                        Some(format!("what else it holds could not be seen: {error}"));
                    board.done("it stays");
                    continue;
                }
            }
        }
        delete(cluster, object, &found).await?;
        // The others are gone at once; these take their contents along.
        if object.is("Deployment") || object.is("Namespace") {
            wait_gone(cluster, object, &found, within).await?;
        }
        gone.extend(found.uid());
        result.deleted.push(title);
        board.done("");
    }
    Ok(result)
}

/// Deletes one object, if it is still the one that was found.
pub(super) async fn delete(
    cluster: &Cluster,
    object: &Object,
    found: &DynamicObject,
) -> Result<(), ClusterError> {
    let api = object.api(cluster.client());
    let params = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        preconditions: Some(Preconditions {
            uid: found.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let request = async {
        match api.delete(object.name(), &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop),
        }
    };
    let what = format!("delete {}", object.title());
    cluster.ask(what, object.action(&["delete"]), request).await
}

async fn wait_gone(
    cluster: &Cluster,
    object: &Object,
    found: &DynamicObject,
    within: Duration,
) -> Result<(), DeployError> {
    let api = object.api(cluster.client());
    let uid = found.uid().unwrap_or_default();
    let gone = await_condition(api, object.name(), conditions::is_deleted(&uid));
    match tokio::time::timeout(within, gone).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let error = match error {
                kube::runtime::wait::Error::ProbeFailed(error) => super::rollout::into_kube(error),
            };
            let action = object.action(&["get", "list", "watch"]);
            Err(cluster
                .explain(format!("watch {}", object.title()), action, &error)
                .into())
        }
        Err(_) => Err(DeployError::StillThere {
            object: object.title(),
            within,
            namespace: cluster.namespace().to_owned(),
        }),
    }
}

/// What a namespace holds beside what was the agent's and what every namespace has.
async fn foreign(
    cluster: &Cluster,
    namespace: &str,
    gone: &[String],
) -> Result<Vec<String>, ClusterError> {
    let client = cluster.client();
    let discover = async {
        // One request in newer clusters, one for each group of kinds in older ones.
        match Discovery::new(client.clone()).run_aggregated().await {
            Ok(found) => Ok(found),
            Err(_) => Discovery::new(client.clone()).run().await,
        }
    };
    let discovery = cluster
        .ask(
            "tell which kinds of objects it has",
            Action::new(&["get"], "namespaces"),
            discover,
        )
        .await?;
    let kinds = discovery
        .groups()
        .filter(|group| !is_view(group.name()))
        .flat_map(|group| group.recommended_resources())
        .filter(|(kind, able)| {
            able.scope == Scope::Namespaced
                && able.supports_operation(verbs::LIST)
                && kind.plural != "events"
        })
        .map(|(kind, _)| kind);
    let lists = iter(kinds.collect::<Vec<_>>())
        .map(|kind| {
            let client = client.clone();
            async move {
                let resource = if kind.group.is_empty() {
                    kind.plural.clone()
                } else {
                    format!("{}.{}", kind.plural, kind.group)
                };
                let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind);
                let action = Action::new(&["list"], resource.clone()).within(namespace);
                let params = ListParams::default().limit(100);
                let listed = async {
                    match api.list_metadata(&params).await {
                        // Some kinds can be listed by name only, or the server's part for them is away.
                        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {
                            Ok(Vec::new())
                        }
                        listed => listed.map(|list| list.items),
                    }
                };
                let items = cluster
                    .ask(format!("list {resource}"), action, listed)
                    .await?;
                let names: Vec<String> = items
                    .iter()
                    .filter(|item| {
                        !is_everywhere(&kind.kind, item) && !is_remnant(&kind.kind, item, gone)
                    })
                    .map(|item| format!("{} {}", kind.kind, item.name_any()))
                    .collect();
                Ok::<_, ClusterError>(names)
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>();
    let mut names: Vec<String> = lists.await?.into_iter().flatten().collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Groups that show what others hold, or what every namespace shows.
fn is_view(group: &str) -> bool {
    matches!(
        group,
        "metrics.k8s.io" | "packages.operators.coreos.com" | "authorization.k8s.io"
    )
}

/// What Kubernetes, or OpenShift, puts into every namespace.
fn is_everywhere(kind: &str, item: &PartialObjectMeta<DynamicObject>) -> bool {
    let name = item.name_any();
    match kind {
        "ConfigMap" => matches!(
            name.as_str(),
            "kube-root-ca.crt" | "openshift-service-ca.crt"
        ),
        "ServiceAccount" => matches!(name.as_str(), "default" | "builder" | "deployer"),
        "RoleBinding" => name.starts_with("system:"),
        "Secret" => {
            let account = item.annotations().get("kubernetes.io/service-account.name");
            account.is_some_and(|name| {
                matches!(name.as_str(), "default" | "builder" | "deployer" | NAME)
            })
        }
        _ => false,
    }
}

/// What goes by itself, soon after what was deleted.
fn is_remnant(kind: &str, item: &PartialObjectMeta<DynamicObject>, gone: &[String]) -> bool {
    let owned = item
        .owner_references()
        .iter()
        .any(|owner| gone.contains(&owner.uid));
    owned || (kind == "Endpoints" && item.name_any() == NAME)
}

fn list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
