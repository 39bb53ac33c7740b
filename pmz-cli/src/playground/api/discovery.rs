//! The pages that say which APIs there are. Only what this server keeps is listed, and what can be done with it:
//! reading.

use serde_json::{Value, json};

use super::resources::{ALL, Resource};

/// Groups beside the core one, in the order of the real server.
const GROUPS: [&str; 3] = [
    "authorization.k8s.io",
    "networking.k8s.io",
    "discovery.k8s.io",
];

/// The page at `path`, if it is one of these. `address` is where the server is.
pub(super) fn page(path: &str, address: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api"] => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
        })),
        ["api", "v1"] => Some(json!({
            "kind": "APIResourceList",
            "groupVersion": "v1",
            "resources": resources(""),
        })),
        ["apis"] => Some(json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": GROUPS.map(versions),
        })),
        ["apis", name] if GROUPS.contains(name) => {
            let mut page = versions(name);
            page["kind"] = "APIGroup".into();
            page["apiVersion"] = "v1".into();
            Some(page)
        }
        ["apis", name, "v1"] if GROUPS.contains(name) => Some(json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": format!("{name}/v1"),
            "resources": resources(name),
        })),
        _ => None,
    }
}

/// The page `/version`.
pub(super) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "37",
        "emulationMajor": "1",
        "emulationMinor": "37",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "36",
        "gitVersion": "v1.37.2",
        "gitCommit": "$Format:%H$",
        "gitTreeState": "archive",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26.8",
        "compiler": "gc",
        "platform": "linux/amd64",
    })
}

fn versions(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for resource in ALL.iter().filter(|r| r.group == group) {
        all.push(entry(resource));
        if resource.kind == "Pod" {
            all.push(json!({
                "name": "pods/portforward",
                "singularName": "",
                "namespaced": true,
                "kind": "PodPortForwardOptions",
                "verbs": ["create", "get"],
            }));
        }
    }
    if group == "authorization.k8s.io" {
        all.push(json!({
            "name": "selfsubjectaccessreviews",
            "singularName": "selfsubjectaccessreview",
            "namespaced": false,
            "kind": "SelfSubjectAccessReview",
            "verbs": ["create"],
        }));
    }
    all
}

fn entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.name,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["get", "list", "watch"],
    });
    if !resource.short.is_empty() {
        entry["shortNames"] = json!(resource.short);
    }
    if matches!(resource.kind, "Pod" | "Service") {
        entry["categories"] = json!(["all"]);
    }
    entry
}
