//! Names while the tunnel is away: the cluster's fail at once, all others are as ever.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::world::World;
use pmz_tests::lab::Programs;
use pmz_tests::{eventually, options, run, scene_for, script, status, udp, wait_for_state};
use tokio::time::timeout;

use crate::outside::{ADDRESS, Outside, query, server};
use crate::resolved::Resolved;
use crate::search::found;
use crate::steering::pmz;

const SOON: Duration = Duration::from_secs(10);
/// What a program may wait for being told that a name of the cluster can't be had.
const AT_ONCE: Duration = Duration::from_millis(50);
/// A path without an answer is dead after 15 s.
const FOUND_OUT: Duration = Duration::from_secs(25);
const WITHIN: Duration = Duration::from_secs(120);
const QUERIES: usize = 20;
const NOERROR: u8 = 0;
const SERVFAIL: u8 = 2;
const CUSTOM: &str = "www.dns.com";

/// The code that a server answers with, and the median of the times that this takes.
async fn asked(world: &World, server: IpAddr, name: &str) -> Result<(u8, Duration)> {
    let socket = udp(world, Ipv4Addr::UNSPECIFIED.into())?;
    let mut times = Vec::new();
    let mut code = None;
    for id in 0..QUERIES {
        let begun = Instant::now();
        let id = u16::try_from(id)?;
        socket.send_to(&query(id, name), (server, 53)).await?;
        let mut buffer = [0; 512];
        let length = timeout(SOON, socket.recv(&mut buffer)).await??;
        times.push(begun.elapsed());
        let answer = buffer.get(..length).context("no answer")?;
        ensure!(answer[..2] == id.to_be_bytes(), "{answer:?}");
        let said = answer[3] & 0xf;
        ensure!(
            *code.get_or_insert(said) == said,
            "{name}: {code:?}, {said}"
        );
    }
    times.sort();
    Ok((code.context("no code")?, times[QUERIES / 2]))
}

/// Leads a domain to a service, and takes the cluster's end of the tunnel away.
async fn take_away(world: &World) -> Result<()> {
    let add = [
        "dns",
        "add",
        "--domain",
        CUSTOM,
        "--service",
        "echo",
        "-n",
        "default",
    ];
    let added = pmz(world, &add).await?;
    ensure!(added.code == Some(0), "{added:?}");
    let agent = world.agents()[0].pod();
    world.playground().remove_pod("pmz", agent).await?;
    wait_for_state(world, "reconnecting", FOUND_OUT).await?;
    Ok(())
}

/// Another agent: all is well again.
async fn bring_back(world: &mut World) -> Result<()> {
    world.add_agent().await?;
    let laptop = world.playground().laptop().clone();
    eventually("names of the cluster again", SOON, async || {
        let again = found(&laptop, "echo.default.svc.cluster.local").await?;
        Ok((again == "10.96.0.10").then_some(()))
    })
    .await
}

#[test]
fn while_the_tunnel_is_away_names_of_the_cluster_fail_within_50_ms_and_all_others_are_as_ever() {
    scene_for(
        "names without the tunnel",
        WITHIN,
        || options(None),
        async |world| {
            let _outside = Outside::start(world.playground().node())?;
            let laptop = world.playground().laptop().clone();
            let resolv = format!("echo nameserver {} >/etc/resolv.conf", server());
            script(&laptop, &resolv).await?;
            for way in ["ebpf", "resolvconf"] {
                world.up(&["--dns", way], false).await?;
                // Whoever programs ask.
                let asks = match way {
                    "ebpf" => server(),
                    _ => {
                        let dns = status(world).await?["dns"].clone();
                        dns["server"].as_str().context("no server")?.parse()?
                    }
                };
                take_away(world).await?;
                for name in [
                    "echo.default.svc.cluster.local",
                    "nobody.default.svc",
                    CUSTOM,
                ] {
                    let (code, took) = asked(world, asks, name).await?;
                    println!("{way}, {name}: {took:?}");
                    ensure!(
                        code == SERVFAIL && took < AT_ONCE,
                        "{name}: {code}, {took:?}"
                    );
                }
                let (code, took) = asked(world, asks, "www.example.org").await?;
                println!("{way}, outside: {took:?}");
                ensure!(
                    code == NOERROR && took < AT_ONCE,
                    "outside: {code}, {took:?}"
                );
                ensure!(found(&laptop, "www.example.org").await? == ADDRESS);
                let failed = found(&laptop, "echo.default.svc.cluster.local").await?;
                ensure!(failed.is_empty(), "{failed}");
                bring_back(world).await?;
                pmz(world, &["down"]).await?;
            }
            Ok(())
        },
    );
}

#[test]
fn while_the_tunnel_is_away_systemd_resolved_says_so_soon_and_has_all_other_names() {
    let test = "systemd-resolved without the tunnel";
    let Some(programs) = Programs::of(test) else {
        return;
    };
    scene_for(
        test,
        WITHIN,
        || options(None),
        async |world| {
            let _resolved = Resolved::start(world, programs.clone()).await?;
            let laptop = world.playground().laptop().clone();
            world.up(&["--dns", "resolved"], false).await?;
            take_away(world).await?;
            for name in ["echo.default.svc.cluster.local", CUSTOM] {
                let mut getent = world.laptop("getent");
                getent.args(["ahostsv4", name]);
                let ran = run(getent).await?;
                println!("{name}: {:?}", ran.took);
                let soon = ran.took < Duration::from_secs(1);
                ensure!(ran.code == Some(2) && soon, "{name}: {ran:?}");
            }
            ensure!(found(&laptop, "www.example.org").await? == ADDRESS);
            bring_back(world).await
        },
    );
}
