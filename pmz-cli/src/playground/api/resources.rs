//! Which kinds of objects the server keeps, and what it says about them.

use serde_json::{Value, json};

/// A kind of objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// API group; empty: core.
    pub(super) group: &'static str,
    /// Name in paths.
    pub(super) name: &'static str,
    /// Name of one.
    pub(super) singular: &'static str,
    /// `kind`.
    pub(super) kind: &'static str,
    /// Whether the objects are in namespaces.
    pub(super) namespaced: bool,
    /// As kubectl abbreviates it.
    pub(super) short: &'static [&'static str],
    /// Fields to select by.
    pub(super) fields: &'static [&'static str],
}

/// All kinds. Each is in version v1 of its group.
pub(super) const ALL: [Resource; 6] = [
    Resource {
        group: "",
        name: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        namespaced: false,
        short: &["ns"],
        fields: &["metadata.name", "status.phase"],
    },
    Resource {
        group: "",
        name: "nodes",
        singular: "node",
        kind: "Node",
        namespaced: false,
        short: &["no"],
        fields: &["metadata.name", "spec.unschedulable"],
    },
    Resource {
        group: "",
        name: "pods",
        singular: "pod",
        kind: "Pod",
        namespaced: true,
        short: &["po"],
        fields: &[
            "metadata.name",
            "metadata.namespace",
            "spec.hostNetwork",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.nominatedNodeName",
            "status.phase",
            "status.podIP",
        ],
    },
    Resource {
        group: "",
        name: "services",
        singular: "service",
        kind: "Service",
        namespaced: true,
        short: &["svc"],
        fields: &[
            "metadata.name",
            "metadata.namespace",
            "spec.clusterIP",
            "spec.type",
        ],
    },
    Resource {
        group: "discovery.k8s.io",
        name: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        namespaced: true,
        short: &[],
        fields: &["metadata.name", "metadata.namespace"],
    },
    Resource {
        group: "networking.k8s.io",
        name: "servicecidrs",
        singular: "servicecidr",
        kind: "ServiceCIDR",
        namespaced: false,
        short: &[],
        fields: &["metadata.name"],
    },
];

impl Resource {
    /// The kind with that name in paths.
    pub(super) fn find(group: &str, name: &str) -> Option<&'static Self> {
        ALL.iter().find(|r| r.group == group && r.name == name)
    }

    /// The kind of an object.
    pub(super) fn of(object: &Value) -> Option<&'static Self> {
        let kind = object["kind"].as_str()?;
        let version = object["apiVersion"].as_str()?;
        ALL.iter()
            .find(|r| r.kind == kind && r.api_version() == version)
    }

    /// `apiVersion`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{}/v1", self.group)
        }
    }

    /// The object of a bookmark: empty but for its version.
    pub(super) fn bookmark(&self, version: u64, initial_events_end: bool) -> Value {
        let mut object = match self.kind {
            "Pod" => json!({"spec": {"containers": null}, "status": {}}),
            "Service" => json!({"spec": {}, "status": {"loadBalancer": {}}}),
            "EndpointSlice" => json!({"addressType": "", "endpoints": null, "ports": null}),
            "Node" => json!({"spec": {}, "status": {
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
                "nodeInfo": {
                    "machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "",
                    "osImage": "", "containerRuntimeVersion": "", "kubeletVersion": "",
                    "kubeProxyVersion": "", "operatingSystem": "", "architecture": "",
                },
            }}),
            _ => json!({"spec": {}, "status": {}}),
        };
        object["kind"] = self.kind.into();
        object["apiVersion"] = self.api_version().into();
        object["metadata"] = json!({"resourceVersion": version.to_string()});
        if initial_events_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        object
    }
}
