//! Domains that the user leads to services, as programs on the laptop resolve them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::model::ServiceType;
use pmz_cli::playground::world::World;
use pmz_tests::{Ran, eventually, options, run, scene, script};

use crate::service;

/// A change reaches names after the agent's watch, and resolvers keep nothing here.
const SOON: Duration = Duration::from_secs(10);
const DOMAIN: &str = "www.dns.com";
const ADD: [&str; 8] = [
    "dns",
    "add",
    "--domain",
    DOMAIN,
    "--service",
    "echo",
    "--namespace",
    "default",
];

async fn pmz(world: &World, what: &[&str]) -> Result<Ran> {
    let mut command = world.pmz();
    command.args(what);
    run(command).await
}

/// As [`pmz`], where it succeeds.
async fn done(world: &World, what: &[&str]) -> Result<Ran> {
    let ran = pmz(world, what).await?;
    ensure!(ran.code == Some(0), "{what:?}: {ran:?}");
    Ok(ran)
}

/// The IPv4 addresses that getaddrinfo(3) has for a name on the laptop; none where it has none.
async fn addresses(world: &World, name: &str) -> Result<Vec<IpAddr>> {
    let mut command = world.laptop("getent");
    command.args(["ahostsv4", name]);
    let ran = run(command).await?;
    // getent(1): 2 is "not found".
    ensure!(matches!(ran.code, Some(0 | 2)), "{ran:?}");
    let lines = ran.stdout.lines().filter(|line| line.contains("STREAM"));
    let first = lines.filter_map(|line| line.split_whitespace().next());
    first.map(|it| Ok(it.parse()?)).collect()
}

async fn wait_for(world: &World, name: &str, wanted: &[IpAddr]) -> Result<()> {
    let what = format!("{name} at {wanted:?}");
    eventually(&what, SOON, async || {
        Ok((addresses(world, name).await? == wanted).then_some(()))
    })
    .await
}

/// What echo answers under that name, by the playground's own little HTTP client, which resolves as any program.
async fn echoed(world: &World, host: &str) -> Result<String> {
    let url = format!("http://{host}/?echo_body=amazing");
    let ran = done(world, &["playground-errand", "get", &url]).await?;
    Ok(ran.stdout.trim().to_owned())
}

#[test]
fn an_added_domain_leads_to_its_service_until_it_is_removed_and_survives_restarts() {
    scene(
        "domains",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            let echo = service(world, "default", "echo", 4)?.ip();
            ensure!(addresses(world, DOMAIN).await?.is_empty(), "before");

            let ran = done(world, &ADD).await?;
            for words in ["www.dns.com leads to echo.default.svc", &echo.to_string()] {
                ensure!(ran.stderr.contains(words), "{ran:?}");
            }
            ensure!(addresses(world, DOMAIN).await? == [echo], "added");
            ensure!(echoed(world, DOMAIN).await? == "\"amazing\"");
            let wild = [
                "dns",
                "add",
                "--domain",
                "*.shop.test",
                "--service",
                "echo",
                "-n",
                "shop",
            ];
            done(world, &wild).await?;
            let shop = service(world, "shop", "echo", 4)?.ip();
            ensure!(
                addresses(world, "a.b.shop.test").await? == [shop],
                "wildcard"
            );
            ensure!(addresses(world, "shop.test").await?.is_empty(), "its apex");

            let again = done(world, &ADD).await?;
            ensure!(again.stderr.contains("unchanged"), "{again:?}");
            let list = done(world, &["dns", "list"]).await?.stdout;
            let first: Vec<&str> = list
                .lines()
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            ensure!(
                first[0] == "*.shop.test" && first[1] == shop.to_string(),
                "{list}"
            );
            let line = list
                .lines()
                .find(|line| line.starts_with("echo.default.svc "));
            ensure!(
                line.context("no echo")?.contains(&echo.to_string()),
                "{list}"
            );

            done(world, &["down"]).await?;
            ensure!(addresses(world, DOMAIN).await?.is_empty(), "down");
            let list = done(world, &["dns", "list", "-o", "name"]).await?;
            ensure!(list.stdout == "*.shop.test\nwww.dns.com\n", "{list:?}");
            ensure!(list.stderr.contains("pmz is not running"), "{list:?}");
            let gone = done(world, &["dns", "remove", "--domain", "*.shop.test"]).await?;
            ensure!(gone.stderr.contains("pmz is not running"), "{gone:?}");
            world.up(&[], false).await?;
            ensure!(addresses(world, DOMAIN).await? == [echo], "up again");
            ensure!(
                addresses(world, "a.shop.test").await?.is_empty(),
                "removed while down"
            );

            done(world, &["dns", "remove", "--domain", DOMAIN]).await?;
            ensure!(addresses(world, DOMAIN).await?.is_empty(), "removed");
            let ran = pmz(world, &["dns", "remove", "--domain", DOMAIN]).await?;
            ensure!(
                ran.code == Some(2) && ran.stderr.contains("error: "),
                "{ran:?}"
            );
            Ok(())
        },
    );
}

#[test]
fn a_domain_follows_its_service_to_another_address_and_waits_for_one_that_is_gone() {
    scene(
        "domains that follow",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            done(world, &ADD).await?;
            let model = world.playground().model().clone();
            let before = model
                .get()
                .service("default", "echo")
                .cloned()
                .context("echo")?;
            let mut moved = before.clone();
            let elsewhere: IpAddr = "10.96.77.77".parse()?;
            moved.kind = ServiceType::ClusterIp {
                cluster_ips: vec![elsewhere],
            };
            let set = |service: Option<_>| {
                model.update(|model| {
                    model.services.retain(|it| {
                        (it.namespace.as_str(), it.name.as_str()) != ("default", "echo")
                    });
                    model.services.extend(service);
                });
            };
            set(Some(moved));
            wait_for(world, DOMAIN, &[elsewhere]).await?;
            ensure!(echoed(world, DOMAIN).await? == "\"amazing\"");
            set(None);
            wait_for(world, DOMAIN, &[]).await?;
            let list = done(world, &["dns", "list"]).await?.stdout;
            let line = list.lines().next().unwrap_or_default();
            ensure!(
                line.starts_with(DOMAIN) && line.contains("no service"),
                "{list}"
            );
            let cluster_ip = before.cluster_ips()[0];
            set(Some(before));
            wait_for(world, DOMAIN, &[cluster_ip]).await?;
            Ok(())
        },
    );
}

#[test]
fn a_domain_leads_to_the_virtual_address_where_the_clusters_collide() {
    scene(
        "domains at virtual addresses",
        || options(None),
        async |world| {
            world
                .up(&["--ebpf", "require", "--overlap", "remap"], false)
                .await?;
            let echo = service(world, "default", "echo", 4)?.ip();
            let ran = done(world, &ADD).await?;
            let found = addresses(world, DOMAIN).await?;
            let [address] = found.as_slice() else {
                anyhow::bail!("{found:?}");
            };
            ensure!(*address != echo, "{address} is the cluster's own");
            ensure!(ran.stderr.contains(&address.to_string()), "{ran:?}");
            ensure!(echoed(world, DOMAIN).await? == "\"amazing\"");
            ensure!(
                addresses(world, "echo.default.svc").await? == found,
                "its own name"
            );
            let list = done(world, &["dns", "list", "-o", "json"]).await?.stdout;
            let list: serde_json::Value = serde_json::from_str(&list)?;
            let lead = &list["domains"][0]["lead"];
            ensure!(lead["addresses"][0] == address.to_string(), "{lead}");
            ensure!(lead["cluster_addresses"][0] == echo.to_string(), "{lead}");
            Ok(())
        },
    );
}

#[test]
fn what_makes_no_sense_for_a_domain_is_refused_in_one_paragraph() {
    scene(
        "domains refused",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            for (domain, service, code, words) in [
                ("http://a.test/", "echo", 2, "URL"),
                ("bücher.test", "echo", 2, "punycode"),
                ("a.default.svc", "echo", 2, "the cluster's own"),
                ("*.com", "echo", 2, "--force"),
                ("a.test", "gone", 2, "no service"),
                ("a.test", "no/name", 2, "kubectl get services"),
            ] {
                let what = [
                    "dns",
                    "add",
                    "--domain",
                    domain,
                    "--service",
                    service,
                    "-n",
                    "default",
                ];
                let ran = pmz(world, &what).await?;
                ensure!(ran.code == Some(code) && ran.stdout.is_empty(), "{ran:?}");
                let one = ran.stderr.starts_with("error: ") && ran.stderr.lines().count() == 1;
                ensure!(one && ran.stderr.contains(words), "{ran:?}");
            }
            // Of the kubeconfig's context, whose namespace is `default`.
            done(
                world,
                &["dns", "add", "--domain", "a.test", "--service", "svc/echo"],
            )
            .await?;
            let other = ["dns", "add", "--domain", "a.test", "--service", "blob"];
            let ran = pmz(world, &other).await?;
            ensure!(
                ran.code == Some(1) && ran.stderr.contains("already"),
                "{ran:?}"
            );
            done(world, &[&other[..], &["--force"]].concat()).await?;
            let blob = crate::service(world, "default", "blob", 4)?.ip();
            ensure!(addresses(world, "a.test").await? == [blob], "replaced");
            Ok(())
        },
    );
}

#[test]
fn behind_sudo_daemon_and_command_keep_domains_as_the_caller() {
    scene(
        "domains behind sudo",
        || options(None),
        async |world| {
            let behind_sudo = async |what: &[&str]| {
                let mut command = world.pmz();
                command
                    .args(what)
                    .env("SUDO_UID", "65534")
                    .env("SUDO_GID", "65534");
                let ran = run(command).await?;
                ensure!(ran.code == Some(0), "{what:?}: {ran:?}");
                Ok::<_, anyhow::Error>(ran)
            };
            behind_sudo(&ADD).await?;
            behind_sudo(&["up"]).await?;
            let echo = service(world, "default", "echo", 4)?.ip();
            ensure!(addresses(world, DOMAIN).await? == [echo], "kept before");
            behind_sudo(&["dns", "add", "--domain", "a.test", "--service", "echo"]).await?;
            ensure!(
                addresses(world, "a.test").await? == [echo],
                "added by the daemon"
            );
            let owners = script(
                world.playground().laptop(),
                "stat -c %u /run/playground/config/pmz/*",
            )
            .await?;
            ensure!(owners == "65534\n", "{owners}");
            Ok(())
        },
    );
}
