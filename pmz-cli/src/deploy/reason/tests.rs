use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

/// An agent's objects in a cluster, to be changed by each test.
struct World {
    deployment: Value,
    set: Value,
    pod: Value,
    events: Vec<Value>,
}

fn world() -> World {
    World {
        deployment: json!({
            "metadata": {"name": "pmz-agent", "namespace": "pmz", "uid": "d", "generation": 2,
                         "annotations": {"deployment.kubernetes.io/revision": "7"}},
            "spec": {"replicas": 1, "selector": {}, "template": {}},
            "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1},
        }),
        set: json!({
            "metadata": {"name": "pmz-agent-7", "namespace": "pmz", "uid": "s7",
                         "annotations": {"deployment.kubernetes.io/revision": "7"},
                         "ownerReferences": [owner("Deployment", "d")]},
            "spec": {"selector": {}}, "status": {"replicas": 1},
        }),
        pod: json!({
            "metadata": {"name": "pmz-agent-7-x", "namespace": "pmz", "uid": "p",
                         "ownerReferences": [owner("ReplicaSet", "s7")]},
            "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]},
        }),
        events: Vec::new(),
    }
}

fn owner(kind: &str, uid: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": "", "uid": uid})
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

impl World {
    fn judge(&self) -> Judged {
        let events: Vec<Arc<Event>> = self.events.iter().map(|e| Arc::new(read(e))).collect();
        judge(&Seen {
            deployment: &read(&self.deployment),
            sets: &[Arc::new(read(&self.set))],
            pods: &[Arc::new(read(&self.pod))],
            events: &events,
        })
    }

    fn problem(&self) -> Problem {
        self.judge().problem.unwrap()
    }

    fn container(&mut self, state: Value, last: Value, restarts: i32) {
        self.pod["status"]["containerStatuses"] = json!([{
            "name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": restarts,
            "state": state, "lastState": last,
        }]);
    }

    fn waiting(&mut self, reason: &str, message: &str) {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        self.container(state, json!({}), 0);
    }

    fn event(&mut self, second: u8, reason: &str, message: &str) {
        self.events.push(json!({
            "metadata": {}, "type": "Warning", "reason": reason, "message": message,
            "involvedObject": {"kind": "Pod", "uid": "p"},
            "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        }));
    }

    fn not_created(&mut self, message: &str) {
        self.set["status"]["conditions"] = json!([
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
        ]);
    }
}

#[test]
fn a_rollout_is_complete_when_all_pods_are_new_and_serve() {
    let mut world = world();
    world.deployment["status"]["availableReplicas"] = 1.into();
    let judged = world.judge();
    assert!(judged.complete && judged.problem.is_none());
    assert_eq!(judged.to_string(), "1 of 1 ready");
    // An old pod that is still there.
    world.deployment["status"]["replicas"] = 2.into();
    assert!(!world.judge().complete);
}

#[test]
fn what_the_controller_has_not_seen_yet_is_not_judged() {
    let mut world = world();
    world.waiting("InvalidImageName", "from the rollout before");
    world.deployment["status"]["availableReplicas"] = 1.into();
    world.deployment["metadata"]["generation"] = 3.into();
    let judged = world.judge();
    assert!(!judged.complete && judged.problem.is_none(), "{judged:?}");
}

#[test]
fn pods_of_an_older_kind_do_not_count() {
    let mut world = world();
    world.waiting("InvalidImageName", "old");
    world.deployment["metadata"]["annotations"][REVISION] = "8".into();
    assert_eq!(world.judge().problem, None);
}

#[test]
fn an_image_that_does_not_exist_is_told_at_once_in_the_registrys_words() {
    let mut world = world();
    world.waiting("ImagePullBackOff", "Back-off pulling image \"x\"");
    world.event(
        5,
        "Failed",
        "Failed to pull image \"x\": rpc error: x: not found",
    );
    world.event(7, "BackOff", "Error: ImagePullBackOff");
    let problem = world.problem();
    assert!(problem.lasting, "{problem:?}");
    assert!(
        problem
            .what
            .contains("Failed to pull image \"x\": rpc error: x: not found"),
        "{problem:?}"
    );
    assert!(problem.next.contains("--image"), "{problem:?}");
}

#[test]
fn a_registry_that_wants_credentials_is_told_at_once() {
    let mut world = world();
    world.waiting("ErrImagePull", "failed to authorize: 401 Unauthorized");
    let problem = world.problem();
    assert!(
        problem.lasting && problem.next.contains("--pull-secret"),
        "{problem:?}"
    );
}

#[test]
fn a_registry_that_is_not_reached_may_be_later() {
    let mut world = world();
    world.waiting("ErrImagePull", "dial tcp: lookup ghcr.io: i/o timeout");
    let problem = world.problem();
    assert!(!problem.lasting, "{problem:?}");
    assert!(problem.what.contains("i/o timeout"), "{problem:?}");
}

#[test]
fn images_that_no_kubelet_pulls_are_told_at_once() {
    for reason in ["ErrImageNeverPull", "InvalidImageName"] {
        let mut world = world();
        world.waiting(reason, "words");
        assert!(world.problem().lasting, "{reason}");
    }
}

#[test]
fn a_quota_is_told_at_once_with_its_name() {
    let mut world = world();
    world.not_created("pods \"pmz-agent-7-x\" is forbidden: exceeded quota: few, limited: pods=0");
    let problem = world.problem();
    assert!(
        problem.lasting && problem.what.contains("exceeded quota: few"),
        "{problem:?}"
    );
    assert!(
        problem.next.contains("kubectl describe quota -n pmz"),
        "{problem:?}"
    );
}

#[test]
fn pod_security_and_webhooks_are_told_at_once() {
    for words in [
        "pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
        "admission webhook \"policy.example\" denied the request: no images from there",
        "pods \"x\" is forbidden: maximum memory usage per Container is 256Mi, but limit is 1Gi",
    ] {
        let mut world = world();
        world.not_created(words);
        let problem = world.problem();
        assert!(
            problem.lasting && problem.what.contains(words),
            "{problem:?}"
        );
    }
}

#[test]
fn what_passes_by_itself_is_waited_for() {
    for words in [
        "pods \"x\" is forbidden: error looking up service account pmz/pmz-agent: not found",
        "Internal error occurred: failed calling webhook \"policy.example\": timeout",
    ] {
        let mut world = world();
        world.not_created(words);
        assert!(!world.problem().lasting, "{words}");
    }
}

#[test]
fn a_pod_that_no_node_takes_may_get_one() {
    let mut world = world();
    world.pod["status"]["conditions"] = json!([
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
         "message": "0/1 nodes are available: 1 Insufficient memory."},
    ]);
    let problem = world.problem();
    assert!(
        !problem.lasting && problem.what.contains("1 Insufficient memory"),
        "{problem:?}"
    );
    assert!(problem.next.contains("--request"), "{problem:?}");
}

#[test]
fn an_agent_that_ends_again_and_again_is_told_with_its_log() {
    let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}});
    let mut world = world();
    world.container(waiting.clone(), ended.clone(), 1);
    let first = world.problem();
    assert!(
        !first.lasting && first.what.contains("exit code 1"),
        "{first:?}"
    );
    world.container(waiting, ended, 2);
    let third = world.problem();
    assert!(third.lasting, "{third:?}");
    assert_eq!(
        (third.crashed.as_deref(), third.previous),
        (Some("pmz-agent-7-x"), true)
    );
}

#[test]
fn too_little_memory_is_named() {
    let ended = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let mut world = world();
    world.container(ended, json!({}), 0);
    let problem = world.problem();
    assert!(problem.next.contains("--limit memory"), "{problem:?}");
    assert!(!problem.previous);
}

#[test]
fn an_image_without_pmz_is_told_at_once() {
    let words = "exec: \"/pmz\": stat /pmz: no such file or directory";
    let mut a = world();
    a.waiting("RunContainerError", words);
    let mut b = world();
    let ended = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": words}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    b.container(waiting, ended, 1);
    for world in [a, b] {
        let problem = world.problem();
        assert!(
            problem.lasting && problem.what.contains(words),
            "{problem:?}"
        );
        assert!(
            problem.next.contains("must hold pmz as /pmz"),
            "{problem:?}"
        );
        assert_eq!(problem.crashed, None);
    }
}

#[test]
fn a_running_agent_that_is_not_ready_yet_is_no_problem_until_something_warns() {
    let mut world = world();
    world.container(json!({"running": {}}), json!({}), 0);
    assert_eq!(world.judge().problem, None);
    world.event(1, "Unhealthy", "Startup probe failed: connection refused");
    let problem = world.problem();
    assert!(
        !problem.lasting && problem.what.contains("Startup probe failed"),
        "{problem:?}"
    );
}
