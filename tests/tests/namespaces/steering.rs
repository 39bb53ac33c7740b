//! What enters the tunnel, what is refused before it does, and what happens where addresses collide.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pmz_cli::playground::world::World;
use pmz_tests::{Http, Ran, connect, eventually, options, run, scene, script, socket, status};
use serde_json::Value;
use tokio::time::timeout;

use crate::{pod, service};

/// What a machine answers by itself is there at once.
const AT_ONCE: Duration = Duration::from_millis(500);

#[test]
fn traffic_is_told_by_service_and_what_nobody_has_is_refused_before_the_tunnel() {
    scene(
        "steering",
        || options(None),
        async |world| {
            world.up(&["--ebpf", "require"], false).await?;
            let how = &status(world).await?["steering"]["how"];
            ensure!(how == "tcx" || how == "clsact", "{how}");
            for family in [4, 6] {
                let echo = service(world, "default", "echo", family)?;
                for _ in 0..3 {
                    Http::get(world, echo, "/").await?.text().await?;
                }
                let entry = traffic_of(world, echo).await?;
                ensure!(
                    entry["name"] == "echo.default.svc" && entry["flows"] == 3,
                    "{entry}"
                );
                // Handshake, request, end.
                let counts = [&entry["sent"]["packets"], &entry["received"]["packets"]];
                for count in counts {
                    let count = count.as_u64().context("no count")?;
                    ensure!((12..60).contains(&count), "{entry}");
                }
                let nobody: SocketAddr = match family {
                    4 => "10.96.200.200:80".parse()?,
                    _ => "[fd00:10:96::c8c8]:80".parse()?,
                };
                refused(world, nobody).await?;
                refused(world, service(world, "default", "empty", family)?).await?;
            }
            Ok(())
        },
    );
}

#[test]
fn traffic_is_shown_in_columns_and_as_lines_of_json_while_it_is_watched() {
    scene(
        "traffic",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            let echo = service(world, "default", "echo", 4)?;
            Http::get(world, echo, "/").await?.text().await?;
            let ran = pmz(world, &["status", "--traffic"]).await?;
            ensure!(ran.code == Some(0), "{ran:?}");
            let mut lines = ran.stdout.lines();
            let header = lines.next().context("nothing is told")?;
            ensure!(header.starts_with("SERVICE "), "{header:?}");
            ensure!(
                lines.any(|line| line.starts_with("echo.default.svc ")),
                "{}",
                ran.stdout
            );
            let laptop = world.playground().laptop();
            let pmz = world.pmz();
            let pmz = pmz.get_args().last().context("no program")?;
            let watch = format!(
                "{} status --traffic --watch -o json | head -n 2",
                pmz.to_string_lossy()
            );
            let lines = script(laptop, &watch).await?;
            let reports: Vec<Value> = lines
                .lines()
                .map(serde_json::from_str)
                .collect::<Result<_, _>>()?;
            ensure!(reports.len() == 2, "{lines}");
            let at = |report: &Value| report["at_ms"].as_u64();
            ensure!(at(&reports[1]) > at(&reports[0]), "{lines}");
            Ok(())
        },
    );
}

#[test]
fn what_is_included_is_reached_through_the_cluster_and_what_is_excluded_is_left_alone() {
    scene(
        "included",
        || options(None),
        async |world| {
            // A machine that the cluster's pods reach, and the laptop does not.
            let node = world.playground().node();
            let addresses =
                "for a in 172.31.9.9 172.31.9.10 172.31.8.8; do ip address add $a/32 dev lo; done";
            script(node, addresses).await?;
            let _listener = node.in_netns(|| TcpListener::bind("172.31.9.9:80"))??;
            let laptop = world.playground().laptop();
            let route =
                async |to: &str| script(laptop, &format!("ip route get {to} || true")).await;
            let before = route("172.31.9.10").await?;
            let arguments = ["--include", "172.31.9.0/24", "--exclude", "172.31.9.10/32"];
            world.up(&arguments, false).await?;
            let included = "172.31.9.9:80".parse()?;
            connect(world, included).await?;
            ensure!(route("172.31.9.9").await?.contains("dev pmz0"));
            let entry = traffic_of(world, included).await?;
            ensure!(entry["flows"] == 1, "{entry}");
            for elsewhere in ["172.31.9.10", "172.31.8.8"] {
                let now = route(elsewhere).await?;
                ensure!(!now.contains("pmz0"), "{now}");
            }
            let now = route("172.31.9.10").await?;
            ensure!(now == before, "{before} has become {now}");
            Ok(())
        },
    );
}

#[test]
fn without_ebpf_plain_routes_carry_on_and_the_reason_is_told() {
    scene(
        "no eBPF",
        || options(None),
        async |world| {
            world.up(&["--ebpf", "off"], false).await?;
            let steering = &status(world).await?["steering"];
            ensure!(steering["how"] == "routes", "{steering}");
            let echo = service(world, "default", "echo", 4)?;
            Http::get(world, echo, "/").await?.text().await?;
            let ran = pmz(world, &["status", "--traffic"]).await?;
            ensure!(
                ran.code == Some(0) && ran.stdout.contains("--ebpf off"),
                "{ran:?}"
            );
            Ok(())
        },
    );
}

#[test]
fn where_a_vpn_has_the_services_prefix_they_get_other_addresses_and_both_are_reached() {
    scene(
        "collision",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            // Somebody else's network, with a machine in it.
            let vpn = "ip link add vpn0 type veth peer name vpn1; ip netns add office; \
                ip link set vpn1 netns office; ip address add 10.96.0.1/12 dev vpn0; ip link set vpn0 up; \
                ip -n office address add 10.96.0.10/12 dev vpn1; ip -n office link set vpn1 up; \
                ip -n office link set lo up";
            script(&laptop, vpn).await?;
            let played = collide(world).await;
            script(&laptop, "ip netns delete office").await?;
            played
        },
    );
}

async fn collide(world: &World) -> Result<()> {
    let laptop = world.playground().laptop();
    let before = script(laptop, "ip route show table all; ip rule").await?;
    let ran = pmz(world, &["up", "--overlap", "refuse"]).await?;
    ensure!(
        ran.code != Some(0) && ran.stderr.contains("vpn0"),
        "{ran:?}"
    );
    let after = script(laptop, "ip route show table all; ip rule").await?;
    ensure!(
        after == before,
        "a refusal changed something:\n{before}\n{after}"
    );

    world.up(&[], false).await?;
    let steering = status(world).await?["steering"].clone();
    ensure!(
        steering["remapped"]
            .as_array()
            .is_some_and(|all| !all.is_empty()),
        "{steering}"
    );
    let route = script(laptop, "ip route get 10.96.0.10").await?;
    ensure!(route.contains("dev vpn0"), "the VPN lost its own: {route}");
    // Nothing listens there, and its own kernel says so: who sent that is a neighbour now.
    refused(world, "10.96.0.10:80".parse()?).await?;
    let neighbours = script(laptop, "ip neigh show dev vpn0").await?;
    ensure!(neighbours.contains("10.96.0.10 "), "{neighbours}");

    let hosts = script(laptop, "getent ahostsv4 echo.default.svc").await?;
    let address = hosts.split_whitespace().next().context("no address")?;
    let virtual_address: Ipv4Addr = address.parse()?;
    ensure!(virtual_address.octets()[0] >= 240, "{hosts}");
    let echo = service(world, "default", "echo", 4)?;
    let used = SocketAddr::new(virtual_address.into(), echo.port());
    let body = Http::get(world, used, "/").await?.text().await?;
    ensure!(body.contains("echo"), "{body:?}");
    let name = script(laptop, &format!("getent hosts {address}")).await?;
    ensure!(name.contains("echo.default.svc"), "{name}");
    let entry = traffic_of(world, used).await?;
    ensure!(
        entry["name"] == "echo.default.svc" && entry["cluster_address"] == echo.ip().to_string(),
        "{entry}"
    );
    let empty = script(laptop, "getent ahostsv4 empty.default.svc").await?;
    let empty = empty.split_whitespace().next().context("no address")?;
    refused(world, SocketAddr::new(empty.parse()?, 80)).await?;
    // Nothing of it is anybody else's business: pods keep their own addresses.
    connect(world, pod(world, "db-1", 5432, 4)?).await?;
    Ok(())
}

pub(crate) async fn pmz(world: &World, arguments: &[&str]) -> Result<Ran> {
    let mut command = world.pmz();
    command.args(arguments);
    run(command).await
}

/// What is told of one address.
async fn traffic_of(world: &World, address: SocketAddr) -> Result<Value> {
    let ran = pmz(world, &["status", "--traffic", "-o", "json"]).await?;
    let report: Value = serde_json::from_str(&ran.stdout).with_context(|| format!("{ran:?}"))?;
    let entries = report["entries"].as_array().context("no entries")?;
    let entry = entries
        .iter()
        .find(|entry| entry["address"] == address.ip().to_string());
    entry
        .cloned()
        .with_context(|| format!("{address} is not in {report}"))
}

pub(crate) async fn refused(world: &World, nobody: SocketAddr) -> Result<()> {
    // Endpoints may have gone only now: eventually, not at once.
    let mut last = None;
    eventually("a refusal at once", AT_ONCE * 4, async || {
        let begun = Instant::now();
        let connecting = socket(world, nobody)?.connect(nobody);
        let Err(error) = timeout(AT_ONCE, connecting).await.context("no answer")? else {
            bail!("{nobody} accepts");
        };
        let refused = error.kind() == ErrorKind::ConnectionRefused;
        last = Some(format!("after {:?}: {error}", begun.elapsed()));
        Ok(refused.then_some(()))
    })
    .await
    .with_context(|| format!("{nobody}: {last:?}"))
}
