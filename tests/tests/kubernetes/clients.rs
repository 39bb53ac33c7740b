//! Several users of one agent, and an agent far from what they want.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use pmz_tests::lab::{Lab, Laptop, Uses, on_cluster};
use pmz_tests::run_for;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::workload::{BLOB, web};

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

/// Clients that are connected at once: a team's.
const CLIENTS: usize = 50;
/// Clients that connect at the same time, on a machine that does the cluster's work, too.
const AT_A_TIME: usize = 5;
/// For 20 Mbit/s, all together, on a machine that is at other things too.
const DOWNLOAD: Duration = Duration::from_secs(80);

#[test]
fn fifty_clients_of_one_agent_all_move_data_at_once() {
    on_cluster("fifty_clients", Uses::Alone, async |lab| {
        web(lab, "many", None).await?;
        let line = b"many\n";
        let blob: Vec<u8> = line.iter().copied().cycle().take(BLOB).collect();
        let sum = Sha256::digest(&blob)
            .iter()
            .fold(String::new(), |sum, byte| sum + &format!("{byte:02x}"));
        let kubeconfig = lab.developer("team").await?;
        let begun = Instant::now();
        let connect = async |number: usize| {
            let laptop = lab.laptop(&format!("team{number}"), &kubeconfig).await?;
            laptop.up(&[]).await?;
            anyhow::Ok(laptop)
        };
        let laptops: Vec<Laptop> = stream::iter(0..CLIENTS)
            .map(connect)
            .buffer_unordered(AT_A_TIME)
            .try_collect()
            .await?;
        println!("{CLIENTS} clients in {:.1?}", begun.elapsed());
        let download = async |laptop: &Laptop| {
            let mut bash = laptop.command("bash");
            let script = "curl -sS --fail http://web.many.svc/blob | sha256sum";
            bash.args(["-o", "pipefail", "-ec", script]);
            let ran = run_for(bash, DOWNLOAD).await?;
            ensure!(
                ran.code == Some(0) && ran.stdout.starts_with(&sum),
                "{ran:?}"
            );
            anyhow::Ok(ran.took)
        };
        let took = futures::future::try_join_all(laptops.iter().map(download)).await?;
        println!("{BLOB} bytes for each in {:.1?}", took.iter().max());
        // Each has an address of its own.
        let mut addresses = std::collections::HashSet::new();
        for laptop in &laptops {
            let status = laptop.status().await?;
            ensure!(
                status["state"] == "connected" && status["reconnects"] == 0,
                "{status}"
            );
            addresses.insert(status["addresses"].to_string());
        }
        ensure!(addresses.len() == CLIENTS, "{addresses:?}");
        Ok(())
    });
}

async fn connected(lab: &Lab, user: &str) -> Result<Laptop> {
    let kubeconfig = lab.developer(user).await?;
    let laptop = lab.laptop(user, &kubeconfig).await?;
    laptop.up(&[]).await?;
    Ok(laptop)
}
