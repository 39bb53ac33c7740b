//! What `pmz up` proves of names before it says that it is connected, and what it does where the proof fails.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::machine::Machine;
use pmz_cli::playground::world::World;
use pmz_tests::{eventually, options, scene, script, status};

use crate::deaths::traces;
use crate::dns_capture::cluster_names;
use crate::outside::{ADDRESS, Outside, Transports, server};
use crate::steering::pmz;

// Not when it was written: it may be written anew as it was.
const RESOLV_CONF: &str = "cat /etc/resolv.conf; stat -c '%A %U %G %N' /etc/resolv.conf";
/// Links that catch queries, of all processes here (proc_pid_fdinfo(5)).
const CATCHING: &str = "grep -ls cgroup_id /proc/[0-9]*/fdinfo/* || true";
const PORT: u16 = 53;
const SOON: Duration = Duration::from_secs(5);
/// What `pmz up` may take on a busy machine, and how long it waits for an outside name.
const QUICK: Duration = Duration::from_secs(10);

/// Gives the laptop another /etc/nsswitch.conf.
async fn look_up_by(laptop: &Machine, hosts: &str) -> Result<()> {
    let by = format!(
        "printf 'passwd: files\\ngroup: files\\nhosts: {hosts}\\n' >/run/nsswitch.conf
         mount --bind /run/nsswitch.conf /etc/nsswitch.conf"
    );
    script(laptop, &by).await?;
    Ok(())
}

async fn ask(laptop: &Machine, resolv_conf: &str) -> Result<()> {
    script(laptop, &format!("printf '{resolv_conf}' >/etc/resolv.conf")).await?;
    Ok(())
}

/// `pmz up` fails with these words, and everything is as it was.
async fn refuses(world: &World, arguments: &[&str], words: &[&str]) -> Result<()> {
    let laptop = world.playground().laptop();
    let before = (traces(world).await?, script(laptop, RESOLV_CONF).await?);
    let ran = pmz(world, &[&["up"], arguments].concat()).await?;
    ensure!(ran.code == Some(1), "{ran:?}");
    let errors = ran.stderr.lines().filter(|it| it.starts_with("error: "));
    let errors: Vec<&str> = errors.collect();
    for word in words {
        ensure!(errors.concat().contains(word), "{word}: {ran:?}");
    }
    // A look-up that nobody waits for any more is ended, and is gone soon.
    let mut after = before.clone();
    let as_before = eventually("all as before", SOON, async || {
        after = (traces(world).await?, script(laptop, RESOLV_CONF).await?);
        Ok((after == before).then_some(()))
    });
    let as_before = as_before.await;
    as_before.with_context(|| format!("{before:?}\n{after:?}"))?;
    let catching = script(laptop, CATCHING).await?;
    ensure!(catching.is_empty(), "{catching}");
    Ok(())
}

#[test]
fn where_no_program_can_find_a_name_of_the_cluster_up_says_why_and_leaves_names_as_they_were() {
    scene(
        "names by files alone",
        || options(None),
        async |world| {
            let _outside = Outside::start(world.playground().node())?;
            let laptop = world.playground().laptop().clone();
            ask(&laptop, &format!("nameserver {}\\n", server())).await?;
            look_up_by(&laptop, "files").await?;
            let why = "kubernetes.default.svc.cluster.local. does not resolve on this machine";
            let next = "/etc/nsswitch.conf";
            refuses(
                world,
                &["--dns", "ebpf"],
                &["eBPF", why, next, "--dns auto"],
            )
            .await?;
            refuses(
                world,
                &["--dns", "resolvconf"],
                &["resolv.conf", why, next, "--dns auto"],
            )
            .await?;
            refuses(world, &[], &["eBPF: ", "; resolv.conf: ", why, next]).await?;
            // Nobody is to find anything.
            world.up(&["--dns", "off"], false).await
        },
    );
}

/// An address on the lan that takes its interface to be reached.
async fn link_local(machine: &Machine) -> Result<SocketAddrV6> {
    let show = "ip -o -6 address show dev eth0 scope link; cat /sys/class/net/eth0/ifindex";
    let shown = script(machine, show).await?;
    let mut words = shown.split_whitespace();
    let address = words.find_map(|it| it.split_once('/')?.0.parse::<Ipv6Addr>().ok());
    let index = shown.lines().last().context("no index")?.parse()?;
    let address = address.context("no link-local address")?;
    Ok(SocketAddrV6::new(address, PORT, 0, index))
}

#[test]
fn a_way_on_which_names_do_not_come_out_is_left_for_the_next_one_and_status_says_why() {
    scene(
        "another way for names",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let node = world.playground().node();
            let only = link_local(node).await?;
            let _outside = Outside::at(node, &[only.into()], Transports::Both)?;
            // Queries to a server with such an address are left alone.
            ask(&laptop, &format!("nameserver {}%%eth0\\n", only.ip())).await?;
            let before = script(&laptop, RESOLV_CONF).await?;
            let outside = "getent ahostsv4 www.example.org";
            ensure!(script(&laptop, outside).await?.contains(ADDRESS));
            let why = "does not resolve on this machine";
            refuses(world, &["--dns", "ebpf"], &["eBPF", why]).await?;

            world.up(&[], false).await?;
            let dns = status(world).await?["dns"].clone();
            let missing = dns["missing"].as_str().unwrap_or_default();
            ensure!(
                dns["how"] == "resolv.conf"
                    && missing.starts_with("eBPF: ")
                    && missing.contains(why),
                "{dns}"
            );
            let catching = script(&laptop, CATCHING).await?;
            ensure!(catching.is_empty(), "{catching}");
            cluster_names(&laptop).await?;
            ensure!(script(&laptop, outside).await?.contains(ADDRESS));
            pmz(world, &["down"]).await?;
            ensure!(script(&laptop, RESOLV_CONF).await? == before);
            Ok(())
        },
    );
}

#[test]
fn a_way_that_costs_an_outside_name_is_not_taken() {
    scene(
        "outside names by TCP alone",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let at = [SocketAddr::new(server(), PORT)];
            let _outside = Outside::at(world.playground().node(), &at, Transports::Tcp)?;
            // Programs ask by TCP; a server in the place of theirs asks as it wants.
            let by_tcp = format!("nameserver {}\\noptions use-vc\\n", server());
            ask(&laptop, &by_tcp).await?;
            let outside = "getent ahostsv4 www.example.org";
            ensure!(script(&laptop, outside).await?.contains(ADDRESS));
            refuses(
                world,
                &["--dns", "resolvconf"],
                &["the outside name a.root-servers.net. has no address any more"],
            )
            .await?;
            world.up(&[], false).await?;
            let dns = status(world).await?["dns"].clone();
            ensure!(dns["how"] == "ebpf" && dns["missing"].is_null(), "{dns}");
            ensure!(!script(&laptop, CATCHING).await?.is_empty(), "no link");
            ensure!(script(&laptop, outside).await?.contains(ADDRESS));
            cluster_names(&laptop).await
        },
    );
}

#[test]
fn where_outside_names_have_never_worked_up_connects_all_the_same_and_soon() {
    scene(
        "no outside names",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            for dns in ["ebpf", "resolvconf"] {
                // Nobody is there; nobody answers; there is no such name.
                let node = world.playground().node();
                let at = [SocketAddr::new(server(), PORT)];
                for outside in [None, Some(Transports::Silent), Some(Transports::Both)] {
                    let outside = outside.map(|by| Outside::at(node, &at, by)).transpose()?;
                    if let Some(outside) = &outside {
                        outside.forget("root-servers.net");
                    }
                    ask(&laptop, &format!("nameserver {}\\n", server())).await?;
                    let ran = pmz(world, &["up", "--dns", dns]).await?;
                    ensure!(ran.code == Some(0) && ran.took < QUICK, "{ran:?}");
                    println!("{dns}, {}: {:?}", outside.is_some(), ran.took);
                    cluster_names_alone(&laptop).await?;
                    pmz(world, &["down"]).await?;
                }
            }
            Ok(())
        },
    );
}

async fn cluster_names_alone(laptop: &Machine) -> Result<()> {
    let found = script(laptop, "getent ahostsv4 echo.default.svc.cluster.local").await?;
    let address: IpAddr = "10.96.0.10".parse()?;
    ensure!(found.contains(&format!("{address} ")), "{found}");
    Ok(())
}
