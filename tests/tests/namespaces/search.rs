//! Names of one label: services of the namespaces that the user has pmz search.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::machine::Machine;
use pmz_cli::playground::model::ServiceType;
use pmz_cli::playground::world::World;
use pmz_tests::{eventually, options, run, scene, script, status};

use crate::outside::{ADDRESS, Outside, server};
use crate::service;
use crate::steering::pmz;

const SOON: Duration = Duration::from_secs(10);
const SHOPIFY: &str = "10.96.0.201";

/// The address that getaddrinfo(3) has first for a name; none where it has none.
pub(crate) async fn found(laptop: &Machine, name: &str) -> Result<String> {
    let mut command = laptop.command("getent");
    command.args(["ahostsv4", name]);
    let ran = run(command).await?;
    // getent(1): 2 is "not found".
    ensure!(matches!(ran.code, Some(0 | 2)), "{ran:?}");
    let first = ran.stdout.split_whitespace().next();
    Ok(first.unwrap_or_default().to_owned())
}

/// One more service, as echo's double at another address.
fn add_service(world: &World, namespace: &str, name: &str, address: &str) -> Result<()> {
    let model = world.playground().model();
    let echo = model.get().service("default", "echo").cloned();
    let mut service = echo.context("no echo")?;
    namespace.clone_into(&mut service.namespace);
    name.clone_into(&mut service.name);
    service.uid = format!("uid-of-{name}");
    service.kind = ServiceType::ClusterIp {
        cluster_ips: vec![address.parse()?],
    };
    model.update(|model| {
        if !model.namespaces.iter().any(|it| it == namespace) {
            model.namespaces.push(namespace.to_owned());
            model.namespaces.sort();
        }
        model.services.push(service);
    });
    Ok(())
}

/// `tool`, in the agent's namespace.
pub(crate) fn add_tool(world: &World) -> Result<()> {
    add_service(world, "pmz", "tool", "10.96.0.200")
}

/// A namespace `dev` with a service `shopify`, whose short name is a domain outside, too.
pub(crate) async fn short_names_yield(world: &World, outside: &Outside, way: &str) -> Result<()> {
    let laptop = world.playground().laptop().clone();
    world.up(&["--dns", way], false).await?;
    let is = async |address: &str| {
        eventually(&format!("shopify.dev at {address}"), SOON, async || {
            let now = found(&laptop, "shopify.dev").await?;
            Ok((now == address).then_some(()))
        })
        .await
    };
    is(SHOPIFY).await.context("unknown outside")?;
    outside.learn("shopify.dev");
    is(ADDRESS).await.context("known outside")?;
    let full = found(&laptop, "shopify.dev.svc").await?;
    ensure!(full == SHOPIFY, "{full}");
    let own = [
        "dns",
        "add",
        "--domain",
        "shopify.dev",
        "--service",
        "shopify",
        "-n",
        "dev",
    ];
    let added = pmz(world, &own).await?;
    ensure!(added.code == Some(0), "{added:?}");
    is(SHOPIFY).await.context("led by the user")?;
    let removed = pmz(world, &["dns", "remove", "--domain", "shopify.dev"]).await?;
    ensure!(removed.code == Some(0), "{removed:?}");
    is(ADDRESS).await.context("led by the user no longer")?;
    outside.forget("shopify.dev");
    pmz(world, &["down"]).await?;
    Ok(())
}

pub(crate) fn add_shopify(world: &World) -> Result<()> {
    add_service(world, "dev", "shopify", SHOPIFY)
}

/// With `--search shop`, and `--namespace pmz`, on the way that is taken.
pub(crate) async fn bare_names(world: &World, arguments: &[&str]) -> Result<()> {
    let laptop = world.playground().laptop().clone();
    let shop = service(world, "shop", "echo", 4)?.ip().to_string();
    let default = service(world, "default", "blob", 4)?.ip().to_string();
    let is = async |name: &str, address: &str| {
        let found = found(&laptop, name).await?;
        ensure!(found == address, "{name} is {found:?}, not {address:?}");
        anyhow::Ok(())
    };
    world.up(arguments, false).await?;
    is("echo", "").await?;
    pmz(world, &["down"]).await?;

    world
        .up(&[arguments, &["--search", "shop"]].concat(), false)
        .await?;
    let dns = status(world).await?["dns"].clone();
    ensure!(dns["search"][0] == "shop", "{dns}");
    is("echo", &shop).await?;
    is("blob", "").await?;
    is("blob.default", &default).await?;
    is("www.example.org", ADDRESS).await?;
    let localhost = script(&laptop, "getent ahosts localhost").await?;
    ensure!(!localhost.contains(&shop), "{localhost}");
    pmz(world, &["down"]).await?;

    // The agent's namespace, when it is named, and before others.
    let named = ["--namespace", "pmz", "--search", "default"];
    world.up(&[arguments, &named].concat(), false).await?;
    is("tool", "10.96.0.200").await?;
    is("blob", &default).await?;
    pmz(world, &["down"]).await?;
    Ok(())
}

#[test]
fn a_bare_name_is_a_service_of_the_namespace_that_is_searched_by_ebpf_and_by_resolv_conf() {
    scene(
        "bare names",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let outside = Outside::start(world.playground().node())?;
            let resolv = format!("echo nameserver {} >/etc/resolv.conf", server());
            script(&laptop, &resolv).await?;
            add_tool(world)?;
            for way in ["ebpf", "resolvconf"] {
                bare_names(world, &["--dns", way]).await.context(way)?;
            }

            // As it was typed, it is the outside's where that has it.
            outside.learn("echo");
            world
                .up(&["--dns", "ebpf", "--search", "shop"], false)
                .await?;
            let now = found(&laptop, "echo").await?;
            ensure!(now == ADDRESS, "{now}");
            outside.forget("echo");
            let shop = service(world, "shop", "echo", 4)?.ip().to_string();
            for name in ["echo", "echo."] {
                let now = found(&laptop, name).await?;
                ensure!(now == shop, "{name}: {now}");
            }
            // A domain of the user's goes before.
            let own = [
                "dns",
                "add",
                "--domain",
                "echo",
                "--service",
                "blob",
                "--force",
            ];
            let added = pmz(world, &own).await?;
            ensure!(added.code == Some(0), "{added:?}");
            let blob = service(world, "default", "blob", 4)?.ip().to_string();
            let now = found(&laptop, "echo").await?;
            ensure!(now == blob, "{now}");
            Ok(())
        },
    );
}

#[test]
fn a_domain_outside_is_not_swallowed_by_a_namespace_of_the_same_name_by_ebpf_and_by_resolv_conf() {
    scene(
        "shopify.dev",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let outside = Outside::start(world.playground().node())?;
            let resolv = format!("echo nameserver {} >/etc/resolv.conf", server());
            script(&laptop, &resolv).await?;
            add_shopify(world)?;
            for way in ["ebpf", "resolvconf"] {
                short_names_yield(world, &outside, way).await.context(way)?;
            }
            Ok(())
        },
    );
}

#[test]
fn namespaces_to_search_come_from_the_config_file_too_and_too_many_are_refused() {
    scene(
        "namespaces to search",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let many: Vec<&str> = ["a", "b", "c", "d"]
                .iter()
                .flat_map(|it| ["--search", it])
                .collect();
            let ran = pmz(world, &[&["up"], &many[..]].concat()).await?;
            ensure!(
                ran.code == Some(2) && ran.stderr.contains("name.namespace"),
                "{ran:?}"
            );
            let config = "/run/playground/config/pmz/config.toml";
            laptop.write_file(config, b"[dns]\nsearch = [\"shop\"]\n")?;
            world.up(&[], false).await?;
            let shop = service(world, "shop", "echo", 4)?.ip().to_string();
            let now = found(&laptop, "echo").await?;
            ensure!(now == shop, "{now}");
            Ok(())
        },
    );
}
