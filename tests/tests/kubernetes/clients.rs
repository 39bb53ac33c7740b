//! Several users of one agent, and an agent far from what they want.

use anyhow::{Context, Result, ensure};
use pmz_tests::lab::{Lab, Laptop, Uses, on_cluster};
use serde_json::Value;

use crate::workload::web;

#[test]
fn two_users_are_connected_at_once_each_with_addresses_of_its_own() {
    on_cluster("two_users", Uses::Shared, async |lab| {
        web(lab, "pair", None).await?;
        let (one, two) = tokio::try_join!(connected(lab, "bea"), connected(lab, "cleo"))?;
        let (of_one, of_two) = tokio::try_join!(one.status(), two.status())?;
        ensure!(
            of_one["addresses"] != of_two["addresses"] && of_one["addresses"] != Value::Null,
            "{of_one} {of_two}"
        );
        let url = "http://web.pair.svc/";
        tokio::try_join!(one.get(url), two.get(url))?;
        let ran = one.run_pmz(&["down"]).await?;
        ensure!(ran.code == Some(0), "{ran:?}");
        ensure!(
            one.get(url).await.is_err(),
            "disconnected, and still reached"
        );
        two.get(url).await.context("after the other one left")?;
        Ok(())
    });
}

#[test]
fn a_service_whose_only_pod_is_on_another_node_than_the_agent_is_reached() {
    on_cluster("other_node", Uses::Shared, async |lab| {
        let other = match lab.agent_node().await?.as_str() {
            "node1" => "node2",
            _ => "node1",
        };
        web(lab, "far", Some(other)).await?;
        let laptop = connected(lab, "dora").await?;
        let body = laptop.get("http://web.far.svc/").await?;
        ensure!(body == "hello from far\n", "{body:?}");
        // By the pod's own address, too: no Service is in between.
        let address = lab
            .ask("get pod web -n far -o jsonpath={.status.podIP}")
            .await?;
        laptop.get(&format!("http://{address}:8080/")).await?;
        Ok(())
    });
}

async fn connected(lab: &Lab, user: &str) -> Result<Laptop> {
    let kubeconfig = lab.developer(user).await?;
    let laptop = lab.laptop(user, &kubeconfig).await?;
    laptop.up(&[]).await?;
    Ok(laptop)
}
