//! Which right is missing, of several that a request takes: the API server knows.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::{Action, ClusterError};

/// It is only for a better word; nobody waits long for that.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Leaves of a refused action's verbs those that are missing, where the API server tells.
pub(super) async fn narrow(client: &Client, error: ClusterError) -> ClusterError {
    let ClusterError::Forbidden { mut action, reason } = error else {
        return error;
    };
    if action.verbs.len() > 1 {
        let asked = tokio::time::timeout(ANSWER_WITHIN, missing(client, &action)).await;
        if let Ok(Ok(missing)) = asked
            && !missing.is_empty()
        {
            action.verbs = missing;
        }
    }
    ClusterError::Forbidden { action, reason }
}

async fn missing(client: &Client, action: &Action) -> kube::Result<Vec<&'static str>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut missing = Vec::new();
    for verb in &action.verbs {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes(action, verb)),
                ..Default::default()
            },
            ..Default::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await?;
        if answer.status.is_some_and(|status| !status.allowed) {
            missing.push(*verb);
        }
    }
    Ok(missing)
}

fn attributes(action: &Action, verb: &str) -> ResourceAttributes {
    let (resource, group) = match action.resource.split_once('.') {
        Some((resource, group)) => (resource, Some(group.to_owned())),
        None => (&*action.resource, None),
    };
    ResourceAttributes {
        group,
        namespace: action.namespace.clone(),
        resource: Some(resource.to_owned()),
        subresource: action.subresource.map(str::to_owned),
        verb: Some(verb.to_owned()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_asked_for_with_its_group() {
        let asked = attributes(&Action::port_forward("pmz"), "create");
        assert_eq!(asked.resource.as_deref(), Some("pods"));
        assert_eq!(asked.subresource.as_deref(), Some("portforward"));
        assert_eq!(
            (asked.group, asked.namespace.as_deref()),
            (None, Some("pmz"))
        );
        let asked = attributes(&Action::new(&["create"], "deployments.apps"), "create");
        assert_eq!(asked.resource.as_deref(), Some("deployments"));
        assert_eq!(asked.group.as_deref(), Some("apps"));
    }
}
