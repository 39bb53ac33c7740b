//! Users of a cluster, and what they may do.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Cluster;

/// Seconds for which a token is good: longer than any run.
const TOKEN_LIFE: &str = "3600s";

/// Whom a role is given to.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// By name, as a client certificate says it.
    User(&'a str),
    /// By name and namespace.
    ServiceAccount(&'a str, &'a str),
}

/// As YAML's flow style, which a RoleBinding has in it.
impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(
                f,
                "{{kind: User, apiGroup: rbac.authorization.k8s.io, name: {name}}}"
            ),
            Self::ServiceAccount(name, namespace) => write!(
                f,
                "{{kind: ServiceAccount, name: {name}, namespace: {namespace}}}"
            ),
        }
    }
}

/// Roles and bindings, called by that name, for rules like `pods:get,list`.
pub(super) fn roles(
    name: &str,
    subject: Subject<'_>,
    namespace: &str,
    rules: &[&str],
) -> Result<String> {
    let mut manifest = String::new();
    for (i, rule) in rules.iter().enumerate() {
        let (resource, verbs) = rule.split_once(':').context("a rule without verbs")?;
        let name = format!("{name}-{i}");
        manifest += &format!(
            "---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {name}, namespace: {namespace}}}
rules:
- {{apiGroups: [\"\"], resources: [{resource}], verbs: [{verbs}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {name}, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}
subjects: [{subject}]
"
        );
    }
    Ok(manifest)
}

/// A kubeconfig of a ServiceAccount, which is made in the agent's namespace: every cluster has those, and
/// no other user can be made by kubectl alone.
pub(super) async fn service_account(cluster: &Cluster, name: &str) -> Result<String> {
    let namespace = cluster.namespace();
    let account = format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
    );
    cluster.apply(&account).await?;
    let token = format!("create token {name} -n {namespace} --duration={TOKEN_LIFE}");
    let token = cluster.ask(&token).await?;
    let own = cluster.ask("config view --minify --raw --flatten -o json");
    let mut config: Value = serde_json::from_str(&own.await?)?;
    config["users"] = json!([{"name": name, "user": {"token": token.trim()}}]);
    let context = config["contexts"][0]["context"]
        .as_object_mut()
        .context("the kubeconfig has no context")?;
    context.insert("user".to_owned(), name.into());
    Ok(config.to_string())
}
