//! Server-side apply of an agent's manifest.

use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::error::DeployError;
use super::manifest::{MANAGER, Manifest, NAME, is_managed};
use super::object::{Object, find};
use super::reason::is_complete;
use crate::cluster::{Action, Cluster, ClusterError};
use crate::daemon::Board;

/// What a right to apply consists of: an object that isn't there is created by it.
const APPLY: &[&str] = &["create", "patch"];
/// On the pods' template: a new value has pods made anew that could not start before.
const RETRIED_AT: &str = "pmz-retried-at";

/// Makes or changes the objects; tells whether the namespace is pmz's.
pub(super) async fn apply(
    cluster: &Cluster,
    manifest: &Manifest,
    force: bool,
    board: &Board,
) -> Result<(), DeployError> {
    for object in &manifest.wanted {
        board.restate(format!("applying {}", object.title()));
        match object.kind.kind {
            "Namespace" if !is_ours(cluster, object).await? => {}
            "Deployment" => {
                let mut object = object.clone();
                retry(cluster, &mut object).await?;
                apply_one(cluster, &object, force).await?;
            }
            _ => match apply_one(cluster, object, force).await {
                Err(DeployError::Cluster(refused @ ClusterError::Forbidden { .. })) => {
                    is_there(cluster, object, refused).await?;
                }
                applied => applied?,
            },
        }
    }
    for object in &manifest.unwanted {
        let found = match find(cluster, object).await {
            // Who may not even look has not made one before.
            Err(ClusterError::Forbidden { .. }) => None,
            found => found?,
        };
        if let Some(found) = found.filter(is_managed) {
            board.restate(format!("deleting {}", object.title()));
            super::delete::delete(cluster, object, &found).await?;
        }
    }
    Ok(())
}

/// Whether the namespace is to be made, or was made by pmz. Labels of another's namespace would change what
/// other pods in it may do.
async fn is_ours(cluster: &Cluster, object: &Object) -> Result<bool, DeployError> {
    let Some(found) = find(cluster, object).await? else {
        return Ok(true);
    };
    let phase = found.data.pointer("/status/phase");
    if phase.and_then(|phase| phase.as_str()) == Some("Terminating") {
        return Err(DeployError::Terminating {
            namespace: object.name().to_owned(),
        });
    }
    Ok(is_managed(&found))
}

/// What may not be applied may have been by somebody else: a cluster administrator who gives the agent its
/// rights, and leaves the rest to a team.
async fn is_there(
    cluster: &Cluster,
    object: &Object,
    refused: ClusterError,
) -> Result<(), ClusterError> {
    match find(cluster, object).await {
        Ok(Some(found)) if contains(&found.data, &object.value) => Ok(()),
        _ => Err(refused),
    }
}

/// Whether all that is `wanted` of an object, but for what names it, stands in what was found.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"))
            .all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value))),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len()
                && found
                    .iter()
                    .zip(wanted)
                    .all(|(found, wanted)| contains(found, wanted))
        }
        _ => found == wanted,
    }
}

/// A rollout that got stuck is not tried again by an apply that changes nothing: the kubelet and the
/// controllers wait longer and longer. A new value in the template has them begin anew.
async fn retry(cluster: &Cluster, object: &mut Object) -> Result<(), DeployError> {
    let namespace = object.namespace().unwrap_or_default().to_owned();
    let api: Api<Deployment> = Api::namespaced(cluster.client(), &namespace);
    let found = cluster
        .ask(
            format!("get {}", object.title()),
            Action::new(&["get"], "deployments.apps").within(&namespace),
            api.get_opt(NAME),
        )
        .await?;
    let Some(found) = found else { return Ok(()) };
    let kept = found
        .spec
        .as_ref()
        .and_then(|spec| spec.template.metadata.as_ref()?.annotations.as_ref())
        .and_then(|annotations| annotations.get(RETRIED_AT).cloned());
    let value = if is_complete(&found) {
        kept
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.ok().map(|now| now.as_secs().to_string())
    };
    if let (Some(value), Some(metadata)) =
        (value, object.value.pointer_mut("/spec/template/metadata"))
    {
        metadata["annotations"] = json!({ RETRIED_AT: value });
    }
    Ok(())
}

async fn apply_one(cluster: &Cluster, object: &Object, force: bool) -> Result<(), DeployError> {
    let api = object.api(cluster.client());
    let params = PatchParams {
        force,
        ..PatchParams::apply(MANAGER)
    };
    let patch = Patch::Apply(&object.value);
    let request = async {
        match api.patch(object.name(), &params, &patch).await {
            Ok(_) => Ok(Vec::new()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let conflicts = conflicts(&status);
                if conflicts.is_empty() {
                    Err(kube::Error::Api(status))
                } else {
                    Ok(conflicts)
                }
            }
            Err(error) => Err(error),
        }
    };
    let what = format!("apply {}", object.title());
    let conflicts = cluster.ask(what, object.action(APPLY), request).await?;
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(DeployError::Conflict {
        object: object.title(),
        conflicts,
    })
}

/// The fields that another field manager has, as `.spec.replicas by "kubectl-edit"`.
fn conflicts(status: &kube::core::Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| {
            // conflict with "kubectl-edit" using apps/v1
            let who = cause.message.split('"').nth(1).unwrap_or("another");
            format!("{} by {who:?}", cause.field)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_name_the_field_and_who_has_it() {
        let status = serde_json::from_value(json!({
            "code": 409, "reason": "Conflict", "message": "Apply failed with 1 conflict",
            "details": {"causes": [
                {"reason": "FieldManagerConflict", "field": ".spec.replicas",
                 "message": "conflict with \"kubectl-edit\" using apps/v1"},
                {"reason": "Other", "field": ".x", "message": ""},
            ]},
        }));
        assert_eq!(
            conflicts(&status.unwrap()),
            [".spec.replicas by \"kubectl-edit\""]
        );
    }
}
