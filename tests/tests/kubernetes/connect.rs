//! Connecting, by a user with no more rights than that needs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_tests::lab::{Cluster, Laptop, Uses, on_any_cluster, on_cluster};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::workload::web;

const ANSWER: Duration = Duration::from_secs(5);

#[test]
fn a_user_with_the_four_rights_connects_and_names_and_packets_work() {
    on_any_cluster("four_rights", Uses::Shared, async |cluster| {
        let kubeconfig = cluster.developer("ann").await?;
        let laptop = cluster.laptop("ann", &kubeconfig).await?;
        let outside = laptop.get("http://kubernetes.default.svc/").await;
        ensure!(outside.is_err(), "reached before it is connected");
        laptop.up(&[]).await?;
        // In every cluster; any status is an answer of the server's.
        let url = "https://kubernetes.default.svc/version";
        let script = format!("curl -skS --max-time 10 -o /dev/null -w '%{{http_code}}' {url}");
        let code = laptop.script(&script).await?;
        ensure!(code.len() == 3 && code != "000", "{code}");
        cluster_dns(cluster, &laptop)
            .await
            .context("the cluster's DNS")?;

        // Nothing is left, and names are as they were.
        let ran = laptop.run_pmz(&["down"]).await?;
        ensure!(ran.code == Some(0), "{ran:?}");
        let left = laptop.script("ip -br link; cat /etc/resolv.conf").await?;
        ensure!(!left.contains("pmz0") && !left.contains("svc"), "{left}");
        Ok(())
    });
}

#[test]
fn a_service_is_reached_by_each_of_its_names_in_both_families() {
    on_cluster("names", Uses::Shared, async |lab| {
        web(lab, "hello", None).await?;
        let kubeconfig = lab.developer("abe").await?;
        let laptop = lab.laptop("abe", &kubeconfig).await?;
        laptop.up(&[]).await?;
        for name in ["web.hello.svc", "web.hello.svc.cluster.local"] {
            for family in ["-4", "-6"] {
                let script = format!("curl -sS --fail --max-time 10 {family} http://{name}/");
                let body = laptop.script(&script).await?;
                ensure!(body == "hello from hello\n", "{name} {family}: {body:?}");
            }
        }
        Ok(())
    });
}

/// UDP there and back: what the cluster's DNS says of its API server's Service.
async fn cluster_dns(cluster: &Cluster, laptop: &Laptop) -> Result<()> {
    let expected = addresses(cluster, "default", "kubernetes").await?;
    let expected = *expected.first().context("no ClusterIP")?;
    let servers = addresses(cluster, "kube-system", "kube-dns").await?;
    ensure!(!servers.is_empty(), "no ClusterIP");
    for server in servers {
        let answer = query(laptop, SocketAddr::new(server, 53)).await?;
        // An A record's data are the last bytes of an answer that has nothing else.
        let IpAddr::V4(v4) = expected else {
            anyhow::bail!("{expected} is not of the first family");
        };
        ensure!(
            answer.windows(4).any(|w| w == v4.octets()),
            "{server} answers without {v4}: {answer:?}"
        );
    }
    Ok(())
}

async fn addresses(cluster: &Cluster, namespace: &str, service: &str) -> Result<Vec<IpAddr>> {
    let get = format!("get service {service} -n {namespace}");
    let text = cluster
        .ask(&format!("{get} -o jsonpath={{.spec.clusterIPs[*]}}"))
        .await?;
    let parsed: Result<Vec<IpAddr>, _> = text.split_whitespace().map(str::parse).collect();
    Ok(parsed?)
}

/// Asks for the address of `kubernetes.default.svc.cluster.local` (RFC 1035, 4.1).
async fn query(laptop: &Laptop, server: SocketAddr) -> Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() {
        "0.0.0.0:0".parse()?
    } else {
        "[::]:0".parse()?
    };
    let socket = laptop.machine().in_netns(|| {
        let socket = std::net::UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    })??;
    let id = [0x70, 0x6d];
    let mut message = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        message.push(u8::try_from(label.len())?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.connect(server).await?;
    socket.send(&message).await?;
    let mut answer = [0; 512];
    let len = timeout(ANSWER, socket.recv(&mut answer))
        .await
        .with_context(|| format!("{server} does not answer"))??;
    ensure!(answer[..2] == id, "an answer to something else");
    Ok(answer[..len].to_vec())
}
