use std::path::Path;

use super::*;
use crate::deploy::{DEFAULT_IMAGE, PullPolicy};

fn manifest(options: &AgentOptions) -> Manifest {
    Manifest::new(options, "pmz", DEFAULT_IMAGE).unwrap()
}

fn find<'a>(manifest: &'a Manifest, kind: &str) -> &'a Value {
    let found = manifest.wanted.iter().find(|object| object.is(kind));
    &found.unwrap_or_else(|| panic!("no {kind}")).value
}

fn pod(manifest: &Manifest) -> &Value {
    &find(manifest, "Deployment")["spec"]["template"]["spec"]
}

fn kinds(manifest: &Manifest) -> Vec<&str> {
    manifest
        .wanted
        .iter()
        .map(|object| object.kind.kind)
        .collect()
}

fn refused(options: &AgentOptions) -> String {
    Manifest::new(options, "pmz", DEFAULT_IMAGE)
        .unwrap_err()
        .to_string()
}

/// The folder with the manifests, as kubectl reads it.
fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"))
}

#[test]
fn without_options_pmz_makes_what_kubectl_makes_of_the_folder() {
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(folder().join(name)).unwrap();
        serde_saphyr::from_str(&text).unwrap()
    };
    let kustomization = read("kustomization.yaml");
    let mut theirs: Vec<String> = kustomization["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| read(name.as_str().unwrap()).to_string())
        .collect();
    let manifest = manifest(&AgentOptions::default());
    let mut ours: Vec<String> = manifest
        .wanted
        .iter()
        .map(|o| o.value.to_string())
        .collect();
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn the_folder_names_this_version_and_its_image() {
    let manifest = manifest(&AgentOptions::default());
    let deployment = find(&manifest, "Deployment");
    let version = "app.kubernetes.io~1version";
    for labels in [
        "/metadata/labels",
        "/spec/template/metadata/labels",
        "/spec/template/spec/topologySpreadConstraints/0/labelSelector/matchLabels",
    ] {
        let label = deployment.pointer(&format!("{labels}/{version}")).unwrap();
        assert_eq!(label, env!("CARGO_PKG_VERSION"));
    }
    let text = std::fs::read_to_string(folder().join("deployment.yaml")).unwrap();
    assert!(
        text.contains(&format!("image: {DEFAULT_IMAGE}\n")),
        "{DEFAULT_IMAGE}"
    );
}

#[test]
fn every_object_bears_the_label_by_which_it_is_deleted() {
    for object in Manifest::all("pmz").unwrap() {
        let label = &object.value["metadata"]["labels"][MANAGED_BY];
        assert_eq!(label, MANAGER, "{}", object.title());
    }
}

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>
#[test]
fn the_pod_meets_the_level_restricted() {
    let manifest = manifest(&AgentOptions::default());
    let namespace = find(&manifest, "Namespace");
    let enforce = "pod-security.kubernetes.io/enforce";
    assert_eq!(namespace["metadata"]["labels"][enforce], "restricted");
    let pod = pod(&manifest);
    for shared in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod.get(shared).is_none(), "{shared}");
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    assert!(pod["securityContext"]["runAsUser"].as_u64().unwrap() > 0);
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
        for port in container["ports"].as_array().unwrap() {
            assert!(port.get("hostPort").is_none());
        }
        for (pair, name) in [
            ("requests", "cpu"),
            ("requests", "memory"),
            ("limits", "cpu"),
            ("limits", "memory"),
        ] {
            assert!(
                container["resources"][pair][name].is_string(),
                "{pair} {name}"
            );
        }
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(
                container[probe]["exec"]["command"],
                json!(["/pmz", "agent", "probe"])
            );
        }
    }
}

#[test]
fn the_command_of_the_pod_is_one_that_this_program_has() {
    let manifest = manifest(&AgentOptions::default());
    let container = &pod(&manifest)["containers"][0];
    let command = crate::cmd::command_for_tests();
    for line in [
        &container["command"],
        &container["startupProbe"]["exec"]["command"],
    ] {
        let words = line
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap());
        command.clone().try_get_matches_from(words).unwrap();
    }
}

#[test]
fn a_budget_for_disruptions_comes_with_the_second_replica() {
    let one = AgentOptions::default();
    let two = AgentOptions {
        replicas: Some(2),
        ..one.clone()
    };
    let budget = "PodDisruptionBudget";
    assert!(!kinds(&manifest(&one)).contains(&budget));
    let two = manifest(&two);
    assert!(kinds(&two).contains(&budget));
    assert_eq!(find(&two, "Deployment")["spec"]["replicas"], 2);
    // What is not wanted any more is named, so that it can go.
    let one = manifest(&one);
    let unwanted: Vec<_> = one.unwanted.iter().map(|o| o.kind.kind).collect();
    assert_eq!(unwanted, [budget]);
}

#[test]
fn the_service_is_of_the_kind_that_was_chosen() {
    let with = |expose| {
        manifest(&AgentOptions {
            expose,
            ..AgentOptions::default()
        })
    };
    assert_eq!(
        find(&with(Expose::Nodeport), "Service")["spec"]["type"],
        "NodePort"
    );
    assert_eq!(
        find(&with(Expose::Loadbalancer), "Service")["spec"]["type"],
        "LoadBalancer"
    );
    let none = with(Expose::None);
    assert!(!kinds(&none).contains(&"Service"));
    assert!(none.unwanted.iter().any(|object| object.is("Service")));
}

#[test]
fn options_reach_the_pod() {
    let options = AgentOptions {
        node_selector: vec!["disktype=ssd".parse().unwrap()],
        tolerations: vec![
            "dedicated=dev:NoSchedule".parse().unwrap(),
            "spot".parse().unwrap(),
        ],
        pull_secrets: vec!["registry".to_owned()],
        pull_policy: Some(PullPolicy::Never),
        ..AgentOptions::default()
    };
    let manifest = Manifest::new(&options, "pmz", "registry.example/pmz:1").unwrap();
    let pod = pod(&manifest);
    assert_eq!(
        pod["nodeSelector"],
        json!({"kubernetes.io/os": "linux", "disktype": "ssd"})
    );
    assert_eq!(
        pod["tolerations"],
        json!([
            {"key": "dedicated", "operator": "Equal", "value": "dev", "effect": "NoSchedule"},
            {"key": "spot", "operator": "Exists"},
        ])
    );
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]));
    assert_eq!(pod["containers"][0]["image"], "registry.example/pmz:1");
    assert_eq!(pod["containers"][0]["imagePullPolicy"], "Never");
}

#[test]
fn a_request_is_never_above_its_limit() {
    let with = |requests: &[&str], limits: &[&str]| AgentOptions {
        requests: requests.iter().map(|text| text.parse().unwrap()).collect(),
        limits: limits.iter().map(|text| text.parse().unwrap()).collect(),
        ..AgentOptions::default()
    };
    let resources =
        |options: &AgentOptions| pod(&manifest(options))["containers"][0]["resources"].clone();
    let small = resources(&with(&[], &["cpu=50m", "memory=32Mi"]));
    assert_eq!(small["requests"], json!({"cpu": "50m", "memory": "32Mi"}));
    let large = resources(&with(&["memory=4Gi"], &[]));
    assert_eq!(
        (&large["requests"]["memory"], &large["limits"]["memory"]),
        (&json!("4Gi"), &json!("4Gi"))
    );
    assert_eq!(large["limits"]["cpu"], "2");
    let text = refused(&with(&["cpu=2"], &["cpu=1"]));
    assert!(text.contains("cpu=2 is above the limit of cpu=1"), "{text}");
}

#[test]
fn the_congestion_control_is_told_to_the_agent_where_one_was_chosen() {
    let variables = |congestion| -> Vec<Value> {
        let options = AgentOptions {
            congestion,
            ..AgentOptions::default()
        };
        let manifest = manifest(&options);
        let all = pod(&manifest)["containers"][0]["env"]
            .as_array()
            .unwrap()
            .iter();
        all.filter(|v| v["name"] == "PMZ_CONGESTION")
            .cloned()
            .collect()
    };
    assert!(variables(None).is_empty());
    let chosen = variables(Some(pmz_net::tcp::Congestion::Cubic));
    assert_eq!(
        chosen,
        [json!({"name": "PMZ_CONGESTION", "value": "cubic"})]
    );
}

#[test]
fn agents_in_two_namespaces_share_no_object() {
    let titles = |namespace: &str| -> Vec<String> {
        let all = Manifest::all(namespace).unwrap();
        all.iter()
            .map(|o| format!("{} {:?}", o.title(), o.namespace()))
            .collect()
    };
    let (a, b) = (titles("pmz"), titles("tools"));
    assert!(a.iter().all(|title| !b.contains(title)), "{a:?} {b:?}");
    let manifest = Manifest::new(&AgentOptions::default(), "tools", DEFAULT_IMAGE).unwrap();
    let binding = find(&manifest, "ClusterRoleBinding");
    assert_eq!(
        binding["roleRef"]["name"],
        find(&manifest, "ClusterRole")["metadata"]["name"]
    );
    assert_eq!(binding["subjects"][0]["namespace"], "tools");
}

#[test]
fn the_kernels_nat_and_impossible_namespaces_are_refused() {
    let kernel = AgentOptions {
        nat: NatMode::Kernel,
        ..AgentOptions::default()
    };
    assert!(refused(&kernel).contains("--nat kernel can't be had"));
    assert!(Manifest::new(&AgentOptions::default(), "No Such", DEFAULT_IMAGE).is_err());
}

#[test]
fn the_yaml_says_the_same_as_the_objects() {
    let options = AgentOptions {
        // YAML 1.1, which kubectl reads, takes these for a boolean and a number where they aren't quoted.
        node_selector: vec![
            "a=yes".parse().unwrap(),
            "b=1.0".parse().unwrap(),
            "c=".parse().unwrap(),
        ],
        ..AgentOptions::default()
    };
    let manifest = manifest(&options);
    let yaml = manifest.to_yaml().unwrap();
    for quoted in ["a: \"yes\"", "b: \"1.0\"", "c: \"\""] {
        assert!(
            yaml.contains(quoted) || yaml.contains(&quoted.replace('"', "'")),
            "{quoted}:\n{yaml}"
        );
    }
    let read: Vec<Value> = yaml
        .split("---\n")
        .skip(1)
        .map(|text| serde_saphyr::from_str(text).unwrap())
        .collect();
    let objects: Vec<Value> = manifest.wanted.iter().map(|o| o.value.clone()).collect();
    assert_eq!(read, objects);
}
