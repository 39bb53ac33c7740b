//! Waiting for an agent's pods, with an eye on what keeps them from starting.

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::LogParams;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio::time::Instant;

use super::error::DeployError;
use super::manifest::NAME;
use super::reason::{Problem, Seen, judge};
use crate::cluster::{AGENT_SELECTOR, Action, Cluster, ClusterError};
use crate::daemon::Board;

/// Lines of a crashed agent's log that are shown.
const LOG_LINES: i64 = 3;

/// Waits until all pods of the deployment's newest kind serve; gives their number.
pub(super) async fn wait(
    cluster: &Cluster,
    namespace: &str,
    within: Duration,
    board: &Board,
) -> Result<i32, DeployError> {
    let client = cluster.client();
    let deadline = Instant::now() + within;
    let ours = watcher::Config::default().labels(AGENT_SELECTOR);
    let warnings = watcher::Config::default().fields("type=Warning");
    let named = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let (deployments, a) = follow::<Deployment>(&client, namespace, named, "deployments.apps");
    let (sets, b) = follow::<ReplicaSet>(&client, namespace, ours.clone(), "replicasets.apps");
    let (pods, c) = follow::<Pod>(&client, namespace, ours, "pods");
    let (events, d) = follow::<Event>(&client, namespace, warnings, "events");
    let mut changes = select_all([a, b, c, d]);
    let mut fault: Option<ClusterError> = None;
    loop {
        let (sets, pods, events) = (sets.state(), pods.state(), events.state());
        let deployment = deployments.state().into_iter().next();
        let judged = deployment.as_deref().map(|deployment| {
            judge(&Seen {
                deployment,
                sets: &sets,
                pods: &pods,
                events: &events,
            })
        });
        if let Some(judged) = &judged {
            if judged.complete {
                return Ok(judged.ready);
            }
            board.restate(format!("waiting for the agent: {judged}"));
            if let Some(problem) = judged.problem.as_ref().filter(|problem| problem.lasting) {
                let what = with_log(&client, namespace, problem).await;
                let next = problem.next.clone();
                return Err(DeployError::CantStart { what, next });
            }
        }
        tokio::select! {
            Some(change) = changes.next() => match change {
                Ok(()) => {}
                Err((resource, error)) => {
                    let action = Action::new(&["list", "watch"], resource).within(namespace);
                    let error = cluster.explain(format!("watch {resource}"), action, &error);
                    match error {
                        // Without them less is known about failures; that is all.
                        ClusterError::Forbidden { .. } if resource == "events" => {}
                        error if error.is_transient() => fault = Some(error),
                        error => return Err(error.into()),
                    }
                }
            },
            () = tokio::time::sleep_until(deadline) => {
                let problem = judged.as_ref().and_then(|judged| judged.problem.as_ref());
                let state = match (problem, judged.as_ref(), fault) {
                    (Some(problem), _, _) => with_log(&client, namespace, problem).await,
                    (None, _, Some(fault)) => fault.to_string(),
                    (None, Some(judged), None) => judged.to_string(),
                    (None, None, None) => "nothing is known of its deployment".to_owned(),
                };
                let next = match problem {
                    Some(problem) => problem.next.clone(),
                    None => format!("`kubectl describe pods -n {namespace} -l {AGENT_SELECTOR}` says more"),
                };
                let next = format!("{next}; --timeout waits longer");
                return Err(DeployError::NotReady { within, state, next });
            }
        }
    }
}

type Change = Result<(), (&'static str, kube::Error)>;

/// Keeps a copy of what is in the namespace; the stream tells of each change.
fn follow<K>(
    client: &Client,
    namespace: &str,
    config: watcher::Config,
    resource: &'static str,
) -> (Store<K>, BoxStream<'static, Change>)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let changes = watcher(api, config)
        .default_backoff()
        .reflect(writer)
        .map(move |event| {
            event
                .map(drop)
                .map_err(|error| (resource, into_kube(error)))
        });
    (store, changes.boxed())
}

pub(super) fn into_kube(error: watcher::Error) -> kube::Error {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => error,
        watcher::Error::WatchError(status) => kube::Error::Api(status),
        watcher::Error::NoResourceVersion => {
            kube::Error::Service("a list without a resource version".into())
        }
    }
}

/// The problem; of an agent that ended, its last words, too.
async fn with_log(client: &Client, namespace: &str, problem: &Problem) -> String {
    let Some(pod) = &problem.crashed else {
        return problem.what.clone();
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = LogParams {
        previous: problem.previous,
        tail_lines: Some(LOG_LINES),
        limit_bytes: Some(4096),
        ..LogParams::default()
    };
    let log = tokio::time::timeout(Duration::from_secs(5), pods.logs(pod, &params)).await;
    match log {
        Ok(Ok(log)) if !log.trim().is_empty() => {
            format!("{}; its last words: {}", problem.what, log.trim())
        }
        // Not everybody may read logs.
        _ => problem.what.clone(),
    }
}
