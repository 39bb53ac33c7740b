//! What dies with -9, at either end.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::world::World;
use pmz_net::route::Netlink;
use pmz_tests::{
    Http, Log, abandoned_links, eventually, options, run, scene, scene_for, script, status,
};
use tokio::io::AsyncReadExt;

use crate::mistakes::stable;
use crate::service;

/// A script's beginning: `$pids` are helper and daemon. The patterns don't match the script itself.
macro_rules! find_pmz {
    () => {
        r#"
pids=
for p in /proc/[0-9]*; do
    case "$(tr '\0' ' ' < $p/cmdline 2>/dev/null)" in
        *" helper --f"[d]*|*" daemon --helper-f"[d]*) pids="$pids ${p#/proc/}";;
    esac
done
"#
    };
}
pub(crate) use find_pmz;

/// Kills both at once, as `kill -9` by hand would.
pub(crate) const KILL_PMZ: &str = concat!(
    find_pmz!(),
    "
# Both at the same time: the one that is left would say goodbye.
kill -STOP $pids
kill -9 $pids
echo $pids
"
);

#[test]
fn an_agent_killed_during_a_download_is_told_of_and_replaced_within_3_s() {
    scene(
        "agent killed",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            let blob = service(world, "default", "blob", 4)?;
            let mut download = Http::get(world, blob, "/1000000000000?seed=2").await?;
            let mut bytes = vec![0; 1 << 20];
            download.body.read_exact(&mut bytes).await?;

            let killed = Instant::now();
            world.agents()[0].kill().await?;
            let echo = service(world, "default", "echo", 4)?;
            eventually(
                "a connection after the kill",
                Duration::from_secs(10),
                async || {
                    let get = async {
                        Http::get(world, echo, "/?echo_body=back")
                            .await?
                            .text()
                            .await
                    };
                    let text = tokio::time::timeout(Duration::from_millis(300), get).await;
                    Ok(matches!(text, Ok(Ok(text)) if text == "\"back\"").then_some(()))
                },
            )
            .await?;
            let took = killed.elapsed();
            println!("a new connection {took:?} after the kill");
            let status = status(world).await?;
            ensure!(took < Duration::from_secs(3), "it took {took:?}: {status}");
            let told = status["reconnects"] != 0 || !status["last_fault"].is_null();
            ensure!(told, "nothing of it in the status: {status}");
            // What the dead agent held is gone. A program that only reads is told, too.
            let rest = async {
                loop {
                    match download.body.read(&mut bytes).await {
                        Ok(0) => anyhow::bail!("it ends as if it were whole"),
                        Ok(_) => {}
                        Err(_) => return Ok(()),
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(3), rest)
                .await
                .context("the download hangs")?
        },
    );
}

#[test]
fn a_client_killed_leaves_no_trace_here_and_is_forgotten_there() {
    let log = Log::new("client-killed");
    let options = || {
        let mut options = options(None)?;
        options.agent_environment = vec![("PMZ_PEER_TIMEOUT".into(), "2".into())];
        options.agent_log = Some(log.path());
        Ok(options)
    };
    scene("client killed", options, async |world| {
        let before = traces(world).await?;
        let resolv = script(world.playground().laptop(), "cat /etc/resolv.conf").await?;
        world.up(&[], false).await?;
        ensure!(traces(world).await? != before, "`pmz up` has done nothing");
        let pids = script(world.playground().laptop(), KILL_PMZ).await?;
        ensure!(pids.split_whitespace().count() == 2, "killed: {pids}");
        eventually("all gone", Duration::from_secs(3), async || {
            Ok((traces(world).await? == before).then_some(()))
        })
        .await
        .with_context(|| format!("left: {before:?}"))?;
        log.says(
            "the client was silent for too long",
            Duration::from_secs(15),
        )
        .await?;

        let mut down = world.pmz();
        down.arg("down");
        let down = run(down).await?;
        ensure!(down.code == Some(0), "{down:?}");
        let now = script(world.playground().laptop(), "cat /etc/resolv.conf").await?;
        ensure!(now == resolv, "{now}");
        world.up(&[], false).await?;
        let echo = service(world, "default", "echo", 6)?;
        let text = Http::get(world, echo, "/?echo_body=1")
            .await?
            .text()
            .await?;
        ensure!(text == "\"1\"", "{text}");
        Ok(())
    });
}

/// Moments within the time that `pmz up` takes at which everything is killed.
const MOMENTS: u32 = 100;

/// All that a pmz can have changed, as far as tools show it.
const DUMP: &str = r#"
ip -o link; ip -o address; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all
for device in $(ip -o link | sed 's/^[0-9]*: \([^:@]*\).*/\1/'); do
    # The device may be on its way out.
    (tc qdisc show dev $device; tc filter show dev $device ingress; tc filter show dev $device egress) 2>/dev/null || true
done
if command -v bpftool >/dev/null; then bpftool net; fi
"#;

#[test]
fn killed_at_any_moment_of_up_pmz_leaves_the_network_as_it_was() {
    scene_for(
        "a hundred deaths",
        Duration::from_secs(300),
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let before = stable(&script(&laptop, DUMP).await?);
            let begun = Instant::now();
            world.up(&[], false).await?;
            let takes = begun.elapsed();
            script(&laptop, KILL_PMZ).await?;
            for moment in 0..MOMENTS {
                let mut up = tokio::process::Command::from(world.pmz());
                up.arg("up").stdin(Stdio::null()).kill_on_drop(true);
                let mut up = up.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
                let moment = takes * moment / MOMENTS;
                // The moment itself is what is tried, and nothing that could be awaited.
                tokio::time::sleep(moment).await;
                up.kill().await?;
                let mut after = Vec::new();
                eventually("all as before", Duration::from_secs(5), async || {
                    script(&laptop, &format!("({KILL_PMZ}) 2>/dev/null || true")).await?;
                    after = stable(&script(&laptop, DUMP).await?);
                    Ok((after == before).then_some(()))
                })
                .await
                .with_context(|| format!("killed after {moment:?}; {before:#?}, now {after:#?}"))?;
                // Those at cgroups are in no namespace's dump.
                eventually("no link is left", Duration::from_secs(5), async || {
                    Ok(abandoned_links().is_empty().then_some(()))
                })
                .await
                .with_context(|| format!("killed after {moment:?}: {:?}", abandoned_links()))?;
            }
            world.up(&[], false).await
        },
    );
}

/// Links, routes and UDP sockets of the laptop.
pub(crate) async fn traces(world: &World) -> Result<BTreeSet<String>> {
    let laptop = world.playground().laptop();
    let netlink = laptop.in_netns(Netlink::open)??;
    let mut traces: BTreeSet<_> = netlink.link_names().await?.into_values().collect();
    for route in netlink.routes().await? {
        traces.insert(format!("{route:?}"));
    }
    let sockets = laptop.in_netns(|| -> std::io::Result<Vec<String>> {
        let mut lines = Vec::new();
        for family in ["udp", "udp6"] {
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{family}"))?;
            // Past the slot's number: local and remote address.
            let addresses = text.lines().skip(1).map(|line| {
                line.split_whitespace()
                    .skip(1)
                    .take(2)
                    .collect::<Vec<_>>()
                    .join(" ")
            });
            lines.extend(addresses.map(|line| format!("{family} {line}")));
        }
        Ok(lines)
    })??;
    traces.extend(sockets);
    Ok(traces)
}
