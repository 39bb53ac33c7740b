//! A laptop that uses the cluster's addresses for something else.

use anyhow::{Context, Result, ensure};
use pmz_tests::lab::{Lab, Laptop, Uses, on_cluster};
use pmz_tests::{Ran, run};
use serde_json::json;

use crate::workload::{served, web};

/// A VPN over the services' prefix, a container bridge over the pods', and a second default route. Each has a
/// neighbour that its own routes lead to.
const NETWORKS: &str = "
ip link add vpn0 type veth peer name vpn1
ip netns add office
ip link set vpn1 netns office
ip link set vpn0 addrgenmode none
ip address add 10.96.0.1/12 dev vpn0
ip link set vpn0 up
ip -n office address add 10.96.0.10/12 dev vpn1
ip -n office link set vpn1 up
ip link add br-containers type bridge
ip link set br-containers addrgenmode none
ip address add 10.244.0.1/16 dev br-containers
ip link set br-containers up
ip route add default via 10.96.0.10 dev vpn0 metric 4000
";

/// As VPN clients with policy routing do it.
const RULES: &str = "
ip link add vpn0 type bridge
ip link set vpn0 up
ip address add 192.0.2.2/24 dev vpn0
ip route add 10.96.0.0/16 dev vpn0 table 700
ip rule add to 10.96.0.0/16 lookup 700 priority 900
";

/// The kernel adds the route of an IPv6 address when it has found that nobody else has it (RFC 4862, 5.4).
const SETTLED: &str = "for i in $(seq 100); do ip -6 address show tentative | grep -q inet6 || exit 0; sleep 0.1; done; exit 1";

const DUMP: &str = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all";

#[test]
fn services_and_pods_are_reached_beside_a_vpn_and_a_bridge_with_their_addresses() {
    on_cluster("overlap", Uses::Shared, async |lab| {
        let laptop = with(lab, "olga", NETWORKS).await?;
        let checked = beside(lab, &laptop).await;
        laptop.script("ip netns delete office").await?;
        checked
    });
}

async fn beside(lab: &Lab, laptop: &Laptop) -> Result<()> {
    let before = laptop.script(DUMP).await?;
    let refused = up(laptop, &["--overlap", "refuse"]).await?;
    ensure!(refused.code != Some(0), "{refused:?}");
    for word in ["vpn0", "br-containers"] {
        ensure!(refused.stderr.contains(word), "{word}: {refused:?}");
    }
    ensure!(
        laptop.script(DUMP).await? == before,
        "a refusal changed something"
    );

    laptop.up(&[]).await?;
    let steering = laptop.status().await?["steering"].clone();
    let remapped = steering["remapped"]
        .as_array()
        .context("nothing remapped")?;
    ensure!(remapped.contains(&json!("10.96.0.0/16")), "{steering}");
    let body = laptop.get("http://web.overlap.svc/").await?;
    ensure!(body == "hello from overlap\n", "{body:?}");
    // The VPN and the bridge keep what they had.
    for (address, device) in [("10.96.0.10", "vpn0"), ("10.244.0.9", "br-containers")] {
        let route = laptop.script(&format!("ip route get {address}")).await?;
        ensure!(route.contains(&format!("dev {device} ")), "{route}");
    }
    // A headless name leads to the pod, by an address of its own here.
    lab.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: pods, namespace: overlap}\n\
         spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}\n",
    )
    .await?;
    let ask = "for i in $(seq 50); do getent ahostsv4 pods.overlap.svc && exit 0; sleep 0.2; done; exit 1";
    let hosts = laptop.script(ask).await?;
    ensure!(!hosts.starts_with("10.244."), "{hosts}");
    let body = laptop.get("http://pods.overlap.svc:8080/").await?;
    ensure!(body == "hello from overlap\n", "{body:?}");

    let ran = laptop.run_pmz(&["down"]).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    let after = laptop.script(DUMP).await?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

#[test]
fn a_rule_that_is_asked_before_the_main_table_is_found_and_gone_round() {
    on_cluster("overlap_rules", Uses::Shared, async |lab| {
        let laptop = with(lab, "rita", RULES).await?;
        let refused = up(&laptop, &["--overlap", "prefer-cluster"]).await?;
        ensure!(
            refused.code != Some(0) && refused.stderr.contains("rule"),
            "{refused:?}"
        );
        ensure!(refused.stderr.contains("700"), "{refused:?}");
        laptop.up(&[]).await?;
        let body = laptop.get("http://web.overlap.svc/").await?;
        ensure!(body == "hello from overlap\n", "{body:?}");
        let route = laptop.script("ip route get 10.96.0.10").await?;
        ensure!(route.contains("dev vpn0 "), "{route}");
        Ok(())
    });
}

/// The services' and the pods' prefixes of a cluster that is routed by hand, through its node.
const ROUTES: [&str; 2] = ["10.96.0.0/16", "10.244.0.0/16"];
/// A service of both.
const TWINS: &str = "10.96.77.77";

#[test]
fn of_two_clusters_with_the_same_addresses_each_is_reached() {
    on_cluster("twins", Uses::Alone, async |lab| {
        let twin = tokio::task::spawn_blocking(|| lab.twin()).await??;
        // The same address in both, whose server tells which one it is.
        for (cluster, namespace) in [(lab, "here"), (&twin, "there")] {
            web(cluster, namespace, None).await?;
            let manifest = format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: twin, namespace: {namespace}}}\n\
                 spec: {{clusterIP: {TWINS}, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}\n"
            );
            cluster.apply(&manifest).await?;
            served(cluster, namespace, "twin").await?;
        }
        let kubeconfig = lab.developer("tara").await?;
        let laptop = lab.laptop("tara", &kubeconfig).await?;
        laptop.attach(&twin).await?;
        let get = "get nodes -o jsonpath={.items[0].status.addresses[0].address}";
        let node = twin.ask(get).await?;
        for route in ROUTES {
            laptop
                .script(&format!("ip route add {route} via {node}"))
                .await?;
        }
        let by_address = format!("http://{TWINS}/");
        ensure!(laptop.get(&by_address).await? == "hello from there\n");

        laptop.up(&[]).await?;
        let body = laptop.get("http://twin.here.svc/").await?;
        ensure!(body == "hello from here\n", "{body:?}");
        let body = laptop.get(&by_address).await?;
        ensure!(body == "hello from there\n", "{body:?}");
        let ran = laptop.run_pmz(&["down"]).await?;
        ensure!(ran.code == Some(0), "{ran:?}");
        ensure!(laptop.get(&by_address).await? == "hello from there\n");
        Ok(())
    });
}

async fn with(lab: &Lab, user: &str, networks: &str) -> Result<Laptop> {
    web(lab, "overlap", None).await?;
    let kubeconfig = lab.developer(user).await?;
    let laptop = lab.laptop(user, &kubeconfig).await?;
    laptop.script(networks).await?;
    laptop.script(SETTLED).await?;
    Ok(laptop)
}

async fn up(laptop: &Laptop, arguments: &[&str]) -> Result<Ran> {
    let mut command = laptop.pmz();
    command.arg("up").args(arguments);
    run(command).await
}
