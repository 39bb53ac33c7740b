//! Objects of the manifests: as JSON, with what the API must know to take them.

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;

use crate::cluster::{Action, Cluster, ClusterError};

/// A kind of object that an agent is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) namespaced: bool,
}

const fn kind(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Kind {
    Kind {
        group,
        version: "v1",
        kind,
        plural,
        namespaced,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// All of them.
static KINDS: [Kind; 8] = [
    kind("", "Namespace", "namespaces", false),
    kind("", "ServiceAccount", "serviceaccounts", true),
    kind("", "Service", "services", true),
    kind(RBAC, "ClusterRole", "clusterroles", false),
    kind(RBAC, "ClusterRoleBinding", "clusterrolebindings", false),
    kind(RBAC, "Role", "roles", true),
    kind("apps", "Deployment", "deployments", true),
    kind(
        "policy",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        true,
    ),
];

impl Kind {
    fn of(value: &Value) -> Option<&'static Self> {
        let name = value.get("kind")?.as_str()?;
        let version = value.get("apiVersion")?.as_str()?;
        KINDS
            .iter()
            .find(|kind| kind.kind == name && kind.api_version() == version)
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource as kubectl takes it: `deployments.apps`.
    pub(super) fn resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

/// An object of a manifest.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: &'static Kind,
    pub(super) value: Value,
}

impl Object {
    /// `None` where it is of no known kind, or has no name.
    pub(super) fn new(value: Value) -> Option<Self> {
        value.pointer("/metadata/name")?.as_str()?;
        Some(Self {
            kind: Kind::of(&value)?,
            value,
        })
    }

    pub(super) fn name(&self) -> &str {
        self.text("/metadata/name").unwrap_or_default()
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.text("/metadata/namespace")
            .filter(|_| self.kind.namespaced)
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.value.pointer(pointer)?.as_str()
    }

    /// As people name it: `deployment pmz-agent`.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind.kind, self.name())
    }

    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind.kind == kind
    }

    /// The right that requests on it take.
    pub(super) fn action(&self, verbs: &'static [&'static str]) -> Action {
        let action = Action::new(verbs, self.kind.resource());
        match self.namespace() {
            Some(namespace) => action.within(namespace),
            None => action,
        }
    }

    pub(super) fn api(&self, client: Client) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(self.kind.group, self.kind.version, self.kind.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, self.kind.plural);
        match self.namespace() {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        }
    }
}

/// The object as it is in the cluster.
pub(super) async fn find(
    cluster: &Cluster,
    object: &Object,
) -> Result<Option<DynamicObject>, ClusterError> {
    let api = object.api(cluster.client());
    let what = format!("get {}", object.title());
    cluster
        .ask(what, object.action(&["get"]), api.get_opt(object.name()))
        .await
}
