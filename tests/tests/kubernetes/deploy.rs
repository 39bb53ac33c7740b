//! Deploying the agent, what is said where that fails, and deleting it. Each test has a namespace of its own.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_tests::lab::{AGENT_IMAGE, Lab, Uses, on_cluster};
use pmz_tests::{Ran, run, run_for};
use serde_json::Value;

/// A deploy waits for its agent for two minutes by itself.
const DEPLOYED: Duration = Duration::from_secs(150);
/// For failures that only time proves.
const SOON: [&str; 2] = ["--timeout", "8"];

/// pmz as the administrator, to its end.
async fn pmz(lab: &Lab, namespace: &str, arguments: &[&str]) -> Result<Ran> {
    let mut command = lab.pmz();
    command.args(["-n", namespace]).args(arguments);
    run_for(command, DEPLOYED).await
}

/// The same, and that it goes well.
async fn succeed(lab: &Lab, namespace: &str, arguments: &[&str]) -> Result<Ran> {
    let ran = pmz(lab, namespace, arguments).await?;
    ensure!(ran.code == Some(0), "{arguments:?}: {ran:?}");
    Ok(ran)
}

/// What a deploy says that must fail.
async fn refused(lab: &Lab, namespace: &str, code: i32, arguments: &[&str]) -> Result<String> {
    let arguments = [&["agent", "deploy"], arguments].concat();
    let ran = pmz(lab, namespace, &arguments).await?;
    ensure!(ran.code == Some(code), "{arguments:?}: {ran:?}");
    Ok(ran.stderr)
}

async fn status(lab: &Lab, namespace: &str) -> Result<Value> {
    let ran = pmz(lab, namespace, &["agent", "status", "-o", "json"]).await?;
    serde_json::from_str(&ran.stdout).with_context(|| format!("{ran:?}"))
}

fn holds(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    Ok(())
}

/// All that bears pmz's label and could be of an agent in that namespace.
async fn traces(lab: &Lab, namespace: &str) -> Result<String> {
    let label = "-l app.kubernetes.io/managed-by=pmz -o name --ignore-not-found";
    let kinds = "deployments,replicasets,pods,services,serviceaccounts,roles,poddisruptionbudgets";
    let within = lab
        .ask(&format!("get {kinds} -n {namespace} {label}"))
        .await?;
    let cluster = lab
        .ask(&format!(
            "get namespaces,clusterroles,clusterrolebindings {label}"
        ))
        .await?;
    let ours = cluster.lines().filter(|line| line.ends_with(namespace));
    Ok(within + &ours.collect::<Vec<_>>().join("\n"))
}

#[test]
fn an_agent_is_deployed_changed_and_deleted_without_a_trace() {
    on_cluster("deploy", Uses::Shared, async |lab| {
        let namespace = "deployed";
        let two = ["--replicas", "2", "--expose", "none"];
        succeed(lab, namespace, &[&["agent", "deploy"], &two[..]].concat()).await?;
        let found = status(lab, namespace).await?;
        ensure!(found["replicas"]["ready"] == 2, "{found}");
        ensure!(found["exposure"]["kind"] == "none", "{found}");
        let mut nodes = Vec::new();
        for pod in found["pods"].as_array().into_iter().flatten() {
            ensure!(pod["image"] == AGENT_IMAGE && pod["ready"] == true, "{pod}");
            ensure!(pod["version"] == env!("CARGO_PKG_VERSION"), "{pod}");
            nodes.extend(pod["node"].as_str());
        }
        nodes.sort_unstable();
        ensure!(nodes == ["node1", "node2"], "{found}");
        let budget = lab.ask(&format!("get pdb -n {namespace} -o name")).await?;
        ensure!(!budget.is_empty(), "no PodDisruptionBudget");

        // Without options it has the defaults again.
        succeed(lab, namespace, &["agent", "deploy"]).await?;
        let found = status(lab, namespace).await?;
        ensure!(found["replicas"]["wanted"] == 1, "{found}");
        ensure!(found["exposure"]["kind"] == "NodePort", "{found}");
        let budget = lab.ask(&format!("get pdb -n {namespace} -o name")).await?;
        ensure!(budget.is_empty(), "{budget}");

        succeed(lab, namespace, &["agent", "delete"]).await?;
        let left = traces(lab, namespace).await?;
        ensure!(left.is_empty(), "{left}");
        let found = lab
            .ask(&format!("get namespace {namespace} --ignore-not-found"))
            .await?;
        ensure!(found.is_empty(), "{found}");
        let again = succeed(lab, namespace, &["agent", "delete"]).await?;
        holds(&again.stderr, &["nothing of pmz's"])
    });
}

#[test]
fn what_others_have_in_the_namespace_stays_and_is_named() {
    on_cluster("foreign", Uses::Shared, async |lab| {
        let namespace = "foreign";
        succeed(lab, namespace, &["agent", "deploy"]).await?;
        lab.ask(&format!("create configmap mine -n {namespace}"))
            .await?;
        let bind = "create rolebinding users --role=pmz-user --user=somebody";
        lab.ask(&format!("{bind} -n {namespace}")).await?;
        let disown = "label serviceaccount pmz-agent --overwrite app.kubernetes.io/managed-by=helm";
        lab.ask(&format!("{disown} -n {namespace}")).await?;
        let ran = succeed(lab, namespace, &["agent", "delete"]).await?;
        holds(
            &ran.stderr,
            &[
                "Left, since pmz did not make it: ServiceAccount pmz-agent",
                "ConfigMap mine",
                "RoleBinding users",
            ],
        )?;
        let kinds = "configmap/mine rolebinding/users serviceaccount/pmz-agent";
        lab.ask(&format!("get -n {namespace} {kinds}")).await?;
        Ok(())
    });
}

#[test]
fn a_namespace_that_pmz_did_not_make_is_left_as_it_is() {
    on_cluster("own_namespace", Uses::Shared, async |lab| {
        let namespace = "theirs";
        lab.ask(&format!("create namespace {namespace}")).await?;
        let labels = format!("get namespace {namespace} -o jsonpath={{.metadata.labels}}");
        let before = lab.ask(&labels).await?;
        succeed(lab, namespace, &["agent", "deploy"]).await?;
        let ran = succeed(lab, namespace, &["agent", "delete"]).await?;
        holds(
            &ran.stderr,
            &["The namespace stays: it was not made by pmz"],
        )?;
        ensure!(lab.ask(&labels).await? == before);
        let left = traces(lab, namespace).await?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    });
}

#[test]
fn kubectl_takes_the_manifest_and_the_folder() {
    on_cluster("manifest", Uses::Shared, async |lab| {
        let namespace = "gitops";
        // A dry run makes no namespace for what would be in it.
        lab.ask(&format!("create namespace {namespace}")).await?;
        let manifest = succeed(lab, namespace, &["agent", "manifest", "--replicas", "2"]).await?;
        let path = lab.scratch().join("manifest.yaml");
        std::fs::write(&path, manifest.stdout)?;
        let dry = format!("apply --dry-run=server -f {}", path.display());
        let said = lab.ask(&dry).await?;
        holds(
            &said,
            &[
                "deployment.apps/pmz-agent created",
                "poddisruptionbudget.policy/pmz-agent created",
            ],
        )?;
        // The folder's namespace is the one of the agent that all tests share.
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        let said = lab
            .ask(&format!("apply --dry-run=server -k {folder}"))
            .await?;
        holds(&said, &["deployment.apps/pmz-agent", "namespace/pmz"])
    });
}

#[test]
fn a_pod_that_cannot_start_is_told_in_the_cluster_s_words() {
    on_cluster("cannot_start", Uses::Shared, async |lab| {
        let namespace = "failing";
        let text = refused(
            lab,
            namespace,
            6,
            &["--image", "registry.invalid/pmz:1", SOON[0], SOON[1]],
        )
        .await?;
        holds(
            &text,
            &[
                "not ready within 8 s",
                "Failed to pull image \"registry.invalid/pmz:1\"",
            ],
        )?;
        let never = ["--image", "localhost/missing:1", "--pull-policy", "Never"];
        let text = refused(lab, namespace, 6, &never).await?;
        holds(
            &text,
            &[
                "can't start",
                "localhost/missing:1",
                "not present with pull policy of Never",
            ],
        )?;
        let text = refused(lab, namespace, 6, &["--image", "localhost/busybox:1"]).await?;
        holds(
            &text,
            &[
                "can't start",
                "/pmz",
                "no such file",
                "must hold pmz as /pmz",
            ],
        )?;
        let text = refused(
            lab,
            namespace,
            6,
            &["--node-selector", "no=where", SOON[0], SOON[1]],
        )
        .await?;
        holds(
            &text,
            &[
                "no node takes pod",
                "didn't match Pod's node affinity/selector",
            ],
        )?;
        // And from there to one that starts.
        succeed(lab, namespace, &["agent", "deploy"]).await?;
        succeed(lab, namespace, &["agent", "delete"]).await?;
        Ok(())
    });
}

#[test]
fn rules_of_the_namespace_are_told_at_once_and_tried_again() {
    on_cluster("rules", Uses::Shared, async |lab| {
        let namespace = "ruled";
        lab.ask(&format!("create namespace {namespace}")).await?;
        lab.ask(&format!("create quota few -n {namespace} --hard=pods=0"))
            .await?;
        let text = refused(lab, namespace, 6, &[]).await?;
        holds(
            &text,
            &[
                "can't start",
                "exceeded quota: few",
                "kubectl describe quota -n ruled",
            ],
        )?;
        lab.ask(&format!("delete quota few -n {namespace}")).await?;
        // The controller would wait for minutes by itself.
        succeed(lab, namespace, &["agent", "deploy"]).await?;

        let limits = format!(
            "apiVersion: v1\nkind: LimitRange\nmetadata: {{name: small, namespace: {namespace}}}\n\
             spec: {{limits: [{{type: Container, max: {{memory: 256Mi}}}}]}}\n"
        );
        lab.apply(&limits).await?;
        let text = refused(lab, namespace, 6, &["--request", "cpu=20m"]).await?;
        holds(
            &text,
            &["maximum memory usage per Container is 256Mi", "--limit"],
        )?;
        succeed(
            lab,
            namespace,
            &["agent", "deploy", "--limit", "memory=256Mi"],
        )
        .await?;
        succeed(lab, namespace, &["agent", "delete"]).await?;
        Ok(())
    });
}

#[test]
fn a_pod_against_pod_security_is_told_with_the_violation() {
    on_cluster("pod_security", Uses::Shared, async |lab| {
        let namespace = "secured";
        succeed(lab, namespace, &["agent", "deploy"]).await?;
        // Somebody else's change, which the next deploy does not undo: it is no field of pmz's.
        let patch = r#"{"spec":{"template":{"spec":{"hostNetwork":true}}}}"#;
        let mut kubectl: Command = lab.kubectl();
        kubectl.args([
            "patch",
            "deployment",
            "pmz-agent",
            "-n",
            namespace,
            "-p",
            patch,
        ]);
        let ran = run(kubectl).await?;
        ensure!(ran.code == Some(0), "{ran:?}");
        let text = refused(lab, namespace, 6, &[]).await?;
        holds(
            &text,
            &[
                "can't start",
                "violates PodSecurity \"restricted",
                "hostNetwork",
            ],
        )?;
        succeed(lab, namespace, &["agent", "delete"]).await?;
        Ok(())
    });
}

#[test]
fn fields_that_others_have_changed_are_named_and_taken_over_when_told() {
    on_cluster("conflicts", Uses::Shared, async |lab| {
        let namespace = "conflicts";
        succeed(lab, namespace, &["agent", "deploy"]).await?;
        let scale = "scale deployment pmz-agent --replicas=2";
        lab.ask(&format!("{scale} -n {namespace}")).await?;
        let text = refused(lab, namespace, 1, &[]).await?;
        holds(
            &text,
            &[
                "Deployment pmz-agent",
                ".spec.replicas by \"kubectl\"",
                "--force-conflicts",
            ],
        )?;
        succeed(lab, namespace, &["agent", "deploy", "--force-conflicts"]).await?;
        ensure!(status(lab, namespace).await?["replicas"]["wanted"] == 1);
        succeed(lab, namespace, &["agent", "delete"]).await?;
        Ok(())
    });
}

#[test]
fn a_missing_right_to_deploy_is_named_with_the_line_that_checks_it() {
    on_cluster("deploy_rights", Uses::Shared, async |lab| {
        let user = "deployer";
        let path = lab.scratch().join("deployer.conf");
        std::fs::write(&path, lab.kubeconfig(user).await?)?;
        let path = path.to_str().context("no UTF-8")?;
        // Each right leads to the next one that is missing.
        let steps: [(&str, &[&str]); 5] = [
            (
                "",
                &["get namespaces", "`kubectl auth can-i get namespaces`"],
            ),
            (
                "get,create namespaces",
                &[
                    "No permission to patch namespaces in the cluster",
                    "`kubectl auth can-i patch namespaces`",
                ],
            ),
            (
                "patch namespaces,serviceaccounts;create serviceaccounts",
                &["create and patch clusterroles.rbac.authorization.k8s.io in the cluster"],
            ),
            (
                "create,patch clusterroles.rbac.authorization.k8s.io",
                &[
                    "attempting to grant RBAC permissions",
                    "can-i escalate clusterroles",
                ],
            ),
            (
                "escalate,bind clusterroles.rbac.authorization.k8s.io,roles.rbac.authorization.k8s.io;\
                 create,patch clusterrolebindings.rbac.authorization.k8s.io,roles.rbac.authorization.k8s.io,services",
                &[
                    "get deployments.apps in namespace \"rights\"",
                    "`kubectl auth can-i get deployments.apps -n rights`",
                ],
            ),
        ];
        let mut number = 0;
        for (grants, words) in steps {
            for grant in grants.split(';').filter(|grant| !grant.is_empty()) {
                let (verbs, resources) = grant.split_once(' ').context("no resources")?;
                let name = format!("{user}-{number}");
                number += 1;
                lab.ask(&format!(
                    "create clusterrole {name} --verb={verbs} --resource={resources}"
                ))
                .await?;
                lab.ask(&format!(
                    "create clusterrolebinding {name} --clusterrole={name} --user={user}"
                ))
                .await?;
            }
            let text = refused(lab, "rights", 4, &["--kubeconfig", path]).await;
            holds(&text?, words)?;
        }
        succeed(lab, "rights", &["agent", "delete"]).await?;
        Ok(())
    });
}

#[test]
fn what_an_administrator_has_applied_a_team_need_not_apply() {
    on_cluster("team", Uses::Shared, async |lab| {
        let namespace = "team";
        succeed(lab, namespace, &["agent", "deploy"]).await?;
        lab.ask(&format!("delete deployment pmz-agent -n {namespace}"))
            .await?;
        let member = "teammate";
        for (name, role) in [("admin", "clusterrole=admin"), ("use", "role=pmz-user")] {
            lab.ask(&format!(
                "create rolebinding {name} -n {namespace} --{role} --user={member}"
            ))
            .await?;
        }
        // The administrator's objects of the whole cluster must be seen, to know that they are there.
        let see = "create clusterrole see-pmz --verb=get --resource=clusterroles.rbac.authorization.k8s.io,\
                   clusterrolebindings.rbac.authorization.k8s.io";
        lab.ask(see).await?;
        lab.ask(&format!(
            "create clusterrolebinding see-pmz --clusterrole=see-pmz --user={member}"
        ))
        .await?;
        let path = lab.scratch().join("teammate.conf");
        std::fs::write(&path, lab.kubeconfig(member).await?)?;
        let path = path.to_str().context("no UTF-8")?;
        succeed(lab, namespace, &["--kubeconfig", path, "agent", "deploy"]).await?;
        Ok(())
    });
}

#[test]
fn pmz_up_deploys_where_it_may_and_says_how_where_it_was_not_told_to() {
    on_cluster("up_deploy", Uses::Shared, async |lab| {
        let namespace = "up-deploy";
        let kubeconfig = lab.ask("config view --raw --flatten").await?;
        let laptop = lab.laptop("deployer", &kubeconfig).await?;
        let ran = laptop.run_pmz(&["-n", namespace, "up"]).await?;
        ensure!(ran.code == Some(6), "{ran:?}");
        holds(
            &ran.stderr,
            &[
                "no pmz agent in namespace \"up-deploy\"",
                "`pmz agent deploy` or `pmz up --deploy`",
            ],
        )?;

        let mut up = laptop.pmz();
        up.args(["-n", namespace, "up", "--deploy"])
            .env("PMZ_IMAGE", AGENT_IMAGE);
        let ran = run(up).await?;
        ensure!(ran.code == Some(0), "{ran:?}");
        holds(
            &ran.stderr,
            &["waiting for the agent: 1 pod ready", "Connected to"],
        )?;
        let status = laptop.status().await?;
        ensure!(status["agent"]["namespace"] == namespace, "{status}");
        laptop.run_pmz(&["down"]).await?;
        succeed(lab, namespace, &["agent", "delete"]).await?;
        Ok(())
    });
}
