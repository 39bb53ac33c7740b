//! Load from clients and servers that nobody here wrote, by each carrier.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_tests::lab::{Laptop, Programs, Uses, on_cluster};
use pmz_tests::{run, run_for};

use crate::servers::{BLOB, servers};

const CARRIER: Duration = Duration::from_secs(10);
/// For 100 Mbit/s, which is a tenth of what an idle machine does.
const DOWNLOAD: Duration = Duration::from_secs(90);

#[test]
fn a_gibibyte_arrives_whole_and_hundreds_of_clients_are_served_by_udp() {
    load("load_by_udp", "udp");
}

#[test]
fn a_gibibyte_arrives_whole_and_hundreds_of_clients_are_served_by_streams() {
    load("load_by_streams", "stream");
}

fn load(test: &str, carrier: &str) {
    let Some(programs) = Programs::of(test) else {
        return;
    };
    on_cluster(test, Uses::Alone, async |lab| {
        let servers = servers(lab, &programs).await?;
        let user = format!("load-{carrier}");
        let kubeconfig = lab.developer(&user).await?;
        let laptop = lab.laptop(&user, &kubeconfig).await?;
        laptop.up(&["--transport", carrier]).await?;
        laptop
            .wait_for(carrier, CARRIER, |s| s["carrier"]["kind"] == carrier)
            .await?;
        download(&laptop, &servers.checksum)
            .await
            .context("download")?;
        http(&laptop, &programs, &["--h1", "http://nginx.servers.svc/"]).await?;
        http(&laptop, &programs, &["http://nginx.servers.svc:81/"]).await?;
        redis(&laptop, &programs).await.context("redis-benchmark")?;
        let status = laptop.status().await?;
        ensure!(status["carrier"]["kind"] == carrier, "{status}");
        Ok(())
    });
}

async fn download(laptop: &Laptop, checksum: &str) -> Result<()> {
    let url = "http://nginx.servers.svc/blob";
    // Until kube-proxy has heard of the pod, a node refuses; of the Service, it knows no way.
    let retry = "--retry 20 --retry-all-errors --retry-delay 1";
    let script =
        format!("curl -sS --fail --max-time 85 {retry} {url} | tee >(wc -c >&2) | sha256sum");
    let mut command = laptop.command("bash");
    command.args(["-o", "pipefail", "-ec", &script]);
    let ran = run_for(command, DOWNLOAD).await?;
    let got = ran.stdout.split_whitespace().next().unwrap_or_default();
    ensure!(
        ran.code == Some(0) && got == checksum,
        "not {checksum}, of {BLOB} bytes: {ran:?}"
    );
    println!("1 GiB in {:.1?}", ran.took);
    Ok(())
}

/// A hundred clients at once.
async fn http(laptop: &Laptop, programs: &Programs, how: &[&str]) -> Result<()> {
    let mut h2load = programs.on(laptop, "usr/bin/h2load");
    h2load
        .args(["-c", "100", "-t", "1", "-n", "10000"])
        .args(how);
    let ran = run(h2load).await?;
    ensure!(
        ran.code == Some(0) && ran.stdout.contains("10000 succeeded, 0 failed, 0 errored"),
        "h2load {how:?}: {ran:?}"
    );
    println!(
        "{how:?} {:?}",
        ran.stdout.lines().find(|l| l.starts_with("finished"))
    );
    Ok(())
}

async fn redis(laptop: &Laptop, programs: &Programs) -> Result<()> {
    let mut benchmark = programs.on(laptop, "usr/bin/redis-benchmark");
    benchmark.args([
        "-h",
        "redis.servers.svc",
        "-n",
        "20000",
        "-c",
        "50",
        "-d",
        "100",
    ]);
    benchmark.args(["-t", "set,get", "--csv"]);
    let ran = run(benchmark).await?;
    let lines = ran.stdout.lines().filter(|line| {
        let mut cells = line.split(',').map(|cell| cell.trim_matches('"'));
        let test = cells.next().unwrap_or_default();
        let rate = cells.next().and_then(|rate| rate.parse::<f64>().ok());
        ["SET", "GET"].contains(&test) && rate.is_some_and(|rate| rate > 0.0)
    });
    ensure!(ran.code == Some(0) && lines.count() == 2, "{ran:?}");
    println!("{}", ran.stdout);
    Ok(())
}
