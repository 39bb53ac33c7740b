//! What the agent and its users may do, and what they are told where they may not.

use anyhow::ensure;
use pmz_tests::lab::{Uses, on_any_cluster};

#[test]
fn the_agent_is_ready_where_pod_security_restricted_is_enforced() {
    on_any_cluster("restricted", Uses::Shared, async |cluster| {
        let namespace = cluster.namespace();
        let label = r"{.metadata.labels.pod-security\.kubernetes\.io/enforce}";
        let level = cluster
            .ask(&format!("get namespace {namespace} -o jsonpath={label}"))
            .await?;
        ensure!(level == "restricted", "{level:?}");
        // That the label means something: a pod with less care is refused.
        let careless = "run careless --image=localhost/busybox:1";
        let refused = cluster.ask(&format!("{careless} -n {namespace}")).await;
        let Err(error) = refused else {
            anyhow::bail!("a careless pod is let in");
        };
        ensure!(format!("{error:#}").contains("restricted"), "{error:#}");
        let get = format!("get deployment pmz-agent -n {namespace}");
        let ready = cluster
            .ask(&format!("{get} -o jsonpath={{.status.readyReplicas}}"))
            .await?;
        ensure!(ready == "1", "{ready:?} replicas are ready");
        Ok(())
    });
}

#[test]
fn a_missing_verb_is_named_with_the_line_that_checks_it() {
    on_any_cluster("missing_verbs", Uses::Shared, async |cluster| {
        let namespace = cluster.namespace();
        let cases: [(&str, &[&str], &str, &str); 2] = [
            (
                "nolist",
                &["pods:get", "pods/portforward:get,create"],
                "list pods",
                "kubectl auth can-i list pods",
            ),
            (
                "nocreate",
                &["pods:get,list", "pods/portforward:get"],
                "create",
                "kubectl auth can-i create pods --subresource=portforward",
            ),
        ];
        for (user, rules, verb, check) in cases {
            let check = format!("{check} -n {namespace}");
            cluster.allow(user, namespace, rules).await?;
            let kubeconfig = cluster.kubeconfig(user).await?;
            let laptop = cluster.laptop(user, &kubeconfig).await?;
            let ran = laptop.run_pmz(&["up"]).await?;
            let said = &ran.stderr;
            ensure!(ran.code == Some(4), "{user}: {ran:?}");
            ensure!(
                said.contains(verb) && said.contains(&check),
                "{user}: {said}"
            );
            ensure!(
                said.contains(&format!("in namespace {namespace:?}")),
                "{said}"
            );
        }
        Ok(())
    });
}

#[test]
fn to_create_port_forwards_is_enough_where_everybody_on_the_way_knows_spdy() {
    on_any_cluster("create_alone", Uses::Shared, async |cluster| {
        let namespace = cluster.namespace();
        let rules = ["pods:list", "pods/portforward:create"];
        cluster.allow("createalone", namespace, &rules).await?;
        let kubeconfig = cluster.kubeconfig("createalone").await?;
        let laptop = cluster.laptop("createalone", &kubeconfig).await?;
        laptop.up(&[]).await.map(drop)
    });
}

#[test]
fn getting_pods_by_name_is_for_kubectl_and_pmz_connects_without() {
    on_any_cluster("no_get_pods", Uses::Shared, async |cluster| {
        let namespace = cluster.namespace();
        let rules = ["pods:list", "pods/portforward:get,create"];
        cluster.allow("nogetpods", namespace, &rules).await?;
        let kubeconfig = cluster.kubeconfig("nogetpods").await?;
        let laptop = cluster.laptop("nogetpods", &kubeconfig).await?;
        laptop.up(&[]).await?;
        Ok(())
    });
}
