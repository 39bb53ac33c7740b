//! Which networks lead into the tunnel, how the agent knows them, and that routes follow them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_tests::eventually;
use pmz_tests::lab::{AGENT_NAMESPACE, Lab, Laptop, Uses, on_cluster};
use serde_json::{Value, json};

use crate::workload::web;

/// The agent looks again some seconds after it has seen an address that it can't place.
const FOLLOWED: Duration = Duration::from_secs(20);
/// A ServiceCIDR is used once the API server says that it is ready.
const READY: Duration = Duration::from_secs(30);

#[test]
fn networks_are_those_of_the_cluster_and_routes_follow_a_new_one() {
    on_cluster("networks", Uses::Alone, async |lab| {
        web(lab, "networks", None).await?;
        let kubeconfig = lab.developer("net").await?;
        let laptop = lab.laptop("net", &kubeconfig).await?;
        laptop.up(&[]).await?;
        let networks = networks(&laptop).await?;
        let services = json!({
            "prefixes": ["10.96.0.0/16", "fd00:10:96::/112"],
            "found": "service-cidr",
        });
        ensure!(networks["services"] == services, "{networks}");
        // Both nodes' own, joined.
        let pods = json!({
            "prefixes": ["10.244.0.0/23", "fd00:10:244:1::/64", "fd00:10:244:2::/64"],
            "found": "nodes",
        });
        ensure!(networks["pods"] == pods, "{networks}");

        let checked = follows(lab, &laptop).await;
        lab.ask("delete service extra -n networks --ignore-not-found")
            .await?;
        lab.ask("delete servicecidr extra --ignore-not-found --wait=false")
            .await?;
        checked
    });
}

/// A network that the cluster is given while a laptop is connected.
async fn follows(lab: &Lab, laptop: &Laptop) -> Result<()> {
    lab.apply(
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: extra}\n\
         spec: {cidrs: [10.99.200.0/24]}\n",
    )
    .await
    .context("a ServiceCIDR")?;
    let service = "apiVersion: v1
kind: Service
metadata: {name: extra, namespace: networks}
spec:
  clusterIP: 10.99.200.80
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";
    eventually("a service in it", READY, async || {
        Ok(lab.apply(service).await.is_ok().then_some(()))
    })
    .await?;
    laptop
        .wait_for("routed", FOLLOWED, |status| {
            let routes = status["routes"].as_array();
            routes.is_some_and(|routes| routes.contains(&json!("10.99.200.0/24")))
        })
        .await?;
    // kube-proxy hears of it by itself.
    let body = eventually("an answer", FOLLOWED, async || {
        Ok(laptop.get("http://extra.networks.svc/").await.ok())
    })
    .await?;
    ensure!(body == "hello from networks\n", "{body:?}");
    let status = laptop.status().await?;
    ensure!(status["reconnects"] == 0, "{status}");
    Ok(())
}

#[test]
fn an_agent_with_fewer_rights_learns_the_networks_in_other_ways() {
    on_cluster("fewer_rights", Uses::Alone, async |lab| {
        web(lab, "fewer", None).await?;
        let role = lab.ask("get clusterrole pmz-agent -o json").await?;
        let checked = fewer_rights(lab, &role).await;
        let mut role: Value = serde_json::from_str(&role)?;
        strip(&mut role);
        lab.apply(&role.to_string()).await?;
        restart_agent(lab).await.context("afterwards")?;
        checked
    });
}

async fn fewer_rights(lab: &Lab, role: &str) -> Result<()> {
    let mut role: Value = serde_json::from_str(role)?;
    strip(&mut role);
    let rules = role["rules"].as_array_mut().context("no rules")?;
    let dispensable = ["servicecidrs", "nodes"];
    rules.retain(|rule| {
        !dispensable
            .iter()
            .any(|resource| rule["resources"] == json!([resource]))
    });
    lab.apply(&role.to_string()).await?;
    restart_agent(lab).await?;
    let kubeconfig = lab.developer("few").await?;
    let laptop = lab.laptop("few", &kubeconfig).await?;
    laptop.up(&[]).await?;
    let guessed = networks(&laptop).await?;
    ensure!(guessed["services"]["found"] == "seen", "{guessed}");
    ensure!(guessed["pods"]["found"] == "seen", "{guessed}");
    laptop
        .get("http://web.fewer.svc/")
        .await
        .context("by a guess")?;
    laptop.run_pmz(&["down"]).await?;

    // What the API server says when it refuses an address.
    let account = format!("system:serviceaccount:{AGENT_NAMESPACE}:pmz-agent");
    lab.allow_as("asks", &account, AGENT_NAMESPACE, &["services:create"])
        .await?;
    restart_agent(lab).await?;
    laptop.up(&[]).await?;
    let asked = networks(&laptop).await?;
    let services = json!({
        "prefixes": ["10.96.0.0/16", "fd00:10:96::/112"],
        "found": "refusal",
    });
    lab.ask(&format!("delete rolebinding asks-0 -n {AGENT_NAMESPACE}"))
        .await?;
    ensure!(asked["services"] == services, "{asked}");
    let made = lab
        .ask(&format!("get services -n {AGENT_NAMESPACE} -o name"))
        .await?;
    ensure!(made.trim() == "service/pmz-agent", "{made}");
    Ok(())
}

/// What the API server has added, and an apply may not carry.
fn strip(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.retain(|key, _| key == "name" || key == "labels");
    }
}

async fn restart_agent(lab: &Lab) -> Result<()> {
    lab.ask(&format!(
        "rollout restart deployment/pmz-agent -n {AGENT_NAMESPACE}"
    ))
    .await?;
    lab.ask(&format!(
        "rollout status deployment/pmz-agent -n {AGENT_NAMESPACE} --timeout=25s"
    ))
    .await?;
    // The old pod goes when nobody is connected to it; it must not be the one that answers.
    let pods = format!("get pods -n {AGENT_NAMESPACE} -l app.kubernetes.io/name=pmz-agent -o name");
    eventually("one agent alone", FOLLOWED, async || {
        Ok((lab.ask(&pods).await?.lines().count() == 1).then_some(()))
    })
    .await
}

async fn networks(laptop: &Laptop) -> Result<Value> {
    Ok(laptop.status().await?["networks"].clone())
}
