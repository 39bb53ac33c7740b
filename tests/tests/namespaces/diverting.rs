//! Where a rule leads the cluster's addresses to another interface, and they are taken over there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::world::World;
use pmz_tests::{Http, eventually, options, ping, scene_for, script, status};
use serde_json::Value;
use tokio::io::AsyncReadExt;

use crate::deaths::KILL_PMZ;
use crate::steering::{pmz, refused};
use crate::{pod, service};

const SOON: Duration = Duration::from_secs(10);

/// A VPN that takes everything but the lan, by a rule that is asked before the main table, and whose device takes
/// answers only where it would send to.
const VPN: &str = "\
    ip link add vpn0 type veth peer name vpn1; ip netns add branch; ip link set vpn1 netns branch; \
    ip address add 10.50.0.2/24 dev vpn0; ip address add fd50::2/64 dev vpn0 nodad; ip link set vpn0 up; \
    ip -n branch address add 10.50.0.1/24 dev vpn1; ip -n branch address add fd50::1/64 dev vpn1 nodad; \
    ip -n branch link set vpn1 up; ip -n branch link set lo up; ip -n branch address add 10.96.200.77/32 dev lo; \
    ip route add default via 10.50.0.1 dev vpn0 table 77; ip -6 route add default via fd50::1 dev vpn0 table 77; \
    sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.vpn0.rp_filter=1";
const RULES: &str = "\
    ip rule add pref 90 to 10.99.0.0/24 lookup main; ip -6 rule add pref 90 to fd99::/64 lookup main; \
    ip rule add pref 100 lookup 77; ip -6 rule add pref 100 lookup 77";
const HELD: &str =
    "ip route show table all | grep -v vpn; ip rule; ip -6 rule; tc filter show dev vpn0 egress";

#[test]
fn where_a_rule_takes_everything_services_are_reached_at_their_own_addresses_all_the_same() {
    scene_for(
        "diverted",
        Duration::from_secs(120),
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            script(&laptop, VPN).await?;
            script(&laptop, RULES).await?;
            let played = divert(world).await;
            script(&laptop, "ip netns delete branch").await?;
            played
        },
    );
}

async fn divert(world: &World) -> Result<()> {
    let laptop = world.playground().laptop();
    ensure!(theirs(world).await?, "the VPN leads nowhere");
    let before = script(laptop, HELD).await?;
    let ran = pmz(world, &["up", "--steer", "route"]).await?;
    ensure!(
        ran.code != Some(0) && ran.stderr.contains("vpn0"),
        "{ran:?}"
    );
    ensure!(
        script(laptop, HELD).await? == before,
        "a refusal changed something"
    );
    // Nobody has to know of `--steer`: there is no other way.
    for arguments in [&["--steer", "tc"][..], &[]] {
        world.up(arguments, false).await?;
        reached(world).await?;
        let ran = pmz(world, &["status"]).await?;
        ensure!(ran.stdout.contains("tc at vpn0"), "{}", ran.stdout);
        let ran = pmz(world, &["down"]).await?;
        ensure!(ran.code == Some(0), "{ran:?}");
        let after = script(laptop, HELD).await?;
        ensure!(after == before, "left behind:\n{before}\n{after}");
    }
    world.up(&["--steer", "tc"], false).await?;
    vanish(world).await?;
    // The VPN's own machine of that address is not what answers, until pmz is gone.
    ensure!(!theirs(world).await?, "it went there");
    script(laptop, KILL_PMZ).await?;
    eventually("packets taking their own way", SOON, async || {
        Ok(theirs(world).await?.then_some(()))
    })
    .await?;
    eventually("nothing left", SOON, async || {
        let route = script(
            laptop,
            "ip link show type tun; tc filter show dev vpn0 egress",
        )
        .await?;
        Ok(route.trim().is_empty().then_some(()))
    })
    .await
}

/// Whether a machine behind the VPN hears of a connection to an address that it has, and no service: it refuses it
/// itself.
async fn theirs(world: &World) -> Result<bool> {
    let heard = r#"
        resets() { ip netns exec branch awk '/^Tcp:/ {n = $15} END {print n}' /proc/net/snmp; }
        before=$(resets)
        curl -s -m 1 http://10.96.200.77/ || true
        [ "$(resets)" -gt "$before" ] && echo yes || echo no
    "#;
    let heard = script(world.playground().laptop(), heard).await?;
    Ok(heard.trim() == "yes")
}

/// Both families, by name and by address, and what nobody has.
async fn reached(world: &World) -> Result<()> {
    let laptop = world.playground().laptop();
    let places = status(world).await?["steering"]["diverted"].clone();
    let place = places.get(0).context("nothing is diverted")?;
    ensure!(
        place["device"] == "vpn0" && place["missing"].is_null(),
        "{places}"
    );
    for family in [4, 6] {
        let echo = service(world, "default", "echo", family)?;
        let hosts = script(laptop, &format!("getent ahostsv{family} echo.default.svc")).await?;
        let address = hosts.split_whitespace().next().context("no address")?;
        ensure!(address == echo.ip().to_string(), "another address: {hosts}");
        let route = script(laptop, &format!("ip route get {address}")).await?;
        ensure!(route.contains("dev vpn0"), "the rule is gone: {route}");
        let body = Http::get(world, echo, "/").await?.text().await?;
        ensure!(body.contains("echo"), "{body:?}");
        // Fast and whole.
        let blob = service(world, "default", "blob", family)?;
        let mut download = Http::get(world, blob, "/10000000?seed=2").await?;
        let mut bytes = vec![0; 10_000_000];
        download.body.read_exact(&mut bytes).await?;
        let ran = pmz(world, &["status", "--traffic", "-o", "json"]).await?;
        ensure!(ran.stdout.contains(address), "not counted: {}", ran.stdout);
        ping(world, pod(world, "echo-0", 80, family)?.ip()).await?;
    }
    refused(world, "10.96.200.200:80".parse()?).await?;
    refused(world, service(world, "default", "empty", 6)?).await?;
    Ok(())
}

/// The VPN goes, and comes back.
async fn vanish(world: &World) -> Result<()> {
    let laptop = world.playground().laptop();
    let echo = service(world, "default", "echo", 4)?;
    script(laptop, "ip link delete vpn0").await?;
    eventually("the device is missed", SOON, async || {
        let places = status(world).await?["steering"]["diverted"].clone();
        let missing = places.get(0).map(|place| place["missing"].clone());
        Ok(missing.filter(Value::is_string))
    })
    .await?;
    // What the rule's table no longer takes, the main one leads into the tunnel.
    Http::get(world, echo, "/").await?.text().await?;
    script(laptop, "ip netns delete branch").await?;
    script(laptop, VPN).await?;
    eventually("it is taken over again", SOON, async || {
        let places = status(world).await?["steering"]["diverted"].clone();
        let place = places.get(0).filter(|place| place["missing"].is_null());
        Ok(place.cloned())
    })
    .await?;
    let route = script(laptop, &format!("ip route get {}", echo.ip())).await?;
    ensure!(route.contains("dev vpn0"), "{route}");
    Http::get(world, echo, "/").await?.text().await?;
    Ok(())
}
