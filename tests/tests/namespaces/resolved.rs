//! Names by systemd-resolved: Debian's own, on a bus of the laptop's.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use pmz_cli::playground::addresses;
use pmz_cli::playground::world::World;
use pmz_tests::lab::Programs;
use pmz_tests::{eventually, options, scene, script, status};
use tokio::process::{Child, Command};

use crate::deaths::KILL_PMZ;
use crate::dns_capture::{OUTSIDE_NAMES, cluster_names};
use crate::outside::{ADDRESS, Outside, Transports};
use crate::search::{add_shopify, add_tool, bare_names, short_names_yield};
use crate::steering::pmz;

const SOON: Duration = Duration::from_secs(10);

/// What the package's scripts, and systemd, would have set up. /etc is the laptop's own from here on.
const SETTINGS: &str = r#"
mkdir -p /run/etc/upper /run/etc/work /run/dbus /run/systemd/resolve
cp /etc/hosts /etc/passwd /etc/group /run/etc
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
echo 'systemd-resolve:x:64990:64990::/:/usr/sbin/nologin' >>/run/etc/passwd
echo 'systemd-resolve:x:64990:' >>/run/etc/group
cp /run/etc/hosts /run/etc/passwd /run/etc/group /etc
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >/etc/nsswitch.conf
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
chown 64990:64990 /run/systemd/resolve
mkdir -p /etc/systemd/resolved.conf.d
printf '[Resolve]\nDNS=%s\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\n' "$1" >/etc/systemd/resolved.conf
cat >/run/dbus/bus.conf <<END
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <!-- The machine's own limit of descriptors may be lower than what it would ask for. -->
  <limit name="max_completed_connections">100</limit>
  <policy context="default">
    <allow user="*"/> <allow own="*"/>
    <allow send_destination="*"/> <allow receive_type="*"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
  </policy>
</busconfig>
END
"#;

/// By itself: it is another user's, and outlives who started it.
const KILL_RESOLVED: &str = r#"
for process in /proc/[0-9]*; do
    if [ "$(cat $process/comm)" = systemd-resolve ]; then kill -9 ${process#/proc/}; fi
done
"#;

/// systemd-resolved and its bus. They end with this.
pub(crate) struct Resolved<'a> {
    world: &'a World,
    programs: Programs,
    outside: Outside,
    _bus: Child,
    resolved: Child,
}

impl<'a> Resolved<'a> {
    /// In charge of the laptop's names; all servers that it knows are the node's.
    pub(crate) async fn start(world: &'a World, programs: Programs) -> Result<Self> {
        let outside = Outside::start(world.playground().node())?;
        let laptop = world.playground().laptop();
        let [server, _] = addresses::NODE;
        script(laptop, &format!("set -- {server}\n{SETTINGS}")).await?;
        let bus = [
            "--config-file=/run/dbus/bus.conf",
            "--nofork",
            "--nopidfile",
        ];
        let bus = Self::spawn(world, &programs, "bin/dbus-daemon", &bus)?;
        let there = "test -S /run/dbus/system_bus_socket";
        eventually("the bus", SOON, async || {
            Ok(script(laptop, there).await.ok())
        })
        .await?;
        let resolved = Self::spawn(world, &programs, "lib/systemd/systemd-resolved", &[])?;
        let this = Self {
            world,
            programs,
            outside,
            _bus: bus,
            resolved,
        };
        eventually("systemd-resolved", SOON, async || {
            let asked = this.world.playground().laptop();
            Ok(script(asked, "getent hosts www.example.org").await.ok())
        })
        .await?;
        Ok(this)
    }

    async fn kill(&mut self) -> Result<()> {
        script(self.world.playground().laptop(), KILL_RESOLVED).await?;
        self.resolved.wait().await?;
        Ok(())
    }

    /// Begins anew, with what the settings say now.
    async fn begin(&mut self) -> Result<()> {
        let program = "lib/systemd/systemd-resolved";
        self.resolved = Self::spawn(self.world, &self.programs, program, &[])?;
        eventually("systemd-resolved", SOON, async || {
            Ok(self.ctl(&["status", "--no-pager"]).await.ok())
        })
        .await?;
        Ok(())
    }

    fn spawn(
        world: &World,
        programs: &Programs,
        program: &str,
        arguments: &[&str],
    ) -> Result<Child> {
        let mut command = Command::from(Self::command(world, programs, program));
        command.args(arguments).stdin(Stdio::null());
        Ok(command.stderr(Stdio::null()).kill_on_drop(true).spawn()?)
    }

    fn command(world: &World, programs: &Programs, program: &str) -> std::process::Command {
        let mut command = world.laptop(&programs.path(program).to_string_lossy());
        command.env("LD_LIBRARY_PATH", programs.libraries(&["", "systemd"]));
        command
    }

    /// `resolvectl`, with those arguments.
    async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Self::command(self.world, &self.programs, "bin/resolvectl");
        command.args(arguments);
        let ran = pmz_tests::run(command).await?;
        ensure!(ran.code == Some(0), "resolvectl {arguments:?}: {ran:?}");
        Ok(ran.stdout)
    }
}

#[test]
fn systemd_resolved_asks_pmz_for_what_is_the_clusters_and_nothing_else() {
    let Some(programs) = Programs::of("DNS by systemd-resolved") else {
        return;
    };
    scene(
        "DNS by systemd-resolved",
        || options(None),
        async move |world| {
            let resolved = Resolved::start(world, programs.clone()).await?;
            let laptop = world.playground().laptop().clone();
            let before = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(before.contains(ADDRESS), "{before}");
            // It is the best way where it is in charge.
            world.up(&[], false).await?;
            let dns = status(world).await?["dns"].clone();
            ensure!(
                dns["how"] == "systemd-resolved" && dns["missing"].is_null(),
                "{dns}"
            );
            let link = resolved.ctl(&["status", "pmz0", "--no-pager"]).await?;
            for word in [
                "~cluster.local",
                "~96.10.in-addr.arpa",
                " svc",
                "-DefaultRoute",
                "-LLMNR",
                "-mDNS",
            ] {
                ensure!(link.contains(word), "{word}: {link}");
            }
            cluster_names(&laptop).await?;
            let name = script(&laptop, "getent hosts 10.96.0.10").await?;
            ensure!(name.contains("echo.default.svc"), "{name}");
            let outside = "getent ahosts www.example.org";
            let now = script(&laptop, outside).await?;
            ensure!(now.contains(ADDRESS), "{now}");

            let domain = ["--domain", "www.dns.com"];
            let add = [&["dns", "add"], &domain[..], &["--service", "echo"]].concat();
            let added = pmz(world, &add).await?;
            ensure!(added.code == Some(0), "{added:?}");
            eventually("the domain", SOON, async || {
                let found = script(&laptop, "getent hosts www.dns.com").await;
                Ok(found
                    .is_ok_and(|it| it.contains("fd00:10:96::a"))
                    .then_some(()))
            })
            .await?;
            let removed = pmz(world, &[&["dns", "remove"], &domain[..]].concat()).await?;
            ensure!(removed.code == Some(0), "{removed:?}");

            let down = pmz(world, &["down"]).await?;
            ensure!(down.code == Some(0), "{down:?}");
            let after = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(after == before, "{before}\n{after}");
            Ok(())
        },
    );
}

#[test]
fn systemd_resolved_is_as_before_after_a_kill() {
    let Some(programs) = Programs::of("systemd-resolved after a kill") else {
        return;
    };
    scene(
        "systemd-resolved after a kill",
        || options(None),
        async move |world| {
            let resolved = Resolved::start(world, programs.clone()).await?;
            let laptop = world.playground().laptop().clone();
            let names = script(&laptop, OUTSIDE_NAMES).await?;
            let before = resolved.ctl(&["status", "--no-pager"]).await?;
            world.up(&["--dns", "resolved"], false).await?;
            script(&laptop, KILL_PMZ).await?;
            eventually("all as before", SOON, async || {
                let now = resolved.ctl(&["status", "--no-pager"]).await?;
                Ok((now == before).then_some(()))
            })
            .await?;
            let after = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(after == names, "{names}\n{after}");
            let gone = "! getent hosts echo.default.svc";
            script(&laptop, gone).await?;
            Ok(())
        },
    );
}

#[test]
fn bare_names_are_found_by_a_search_domain_of_the_links() {
    let Some(programs) = Programs::of("bare names by systemd-resolved") else {
        return;
    };
    scene(
        "bare names by systemd-resolved",
        || options(None),
        async move |world| {
            let _resolved = Resolved::start(world, programs.clone()).await?;
            add_tool(world)?;
            bare_names(world, &["--dns", "resolved"]).await
        },
    );
}

#[test]
fn a_domain_outside_is_not_swallowed_by_a_namespace_of_the_same_name_by_systemd_resolved() {
    let Some(programs) = Programs::of("shopify.dev by systemd-resolved") else {
        return;
    };
    scene(
        "shopify.dev by systemd-resolved",
        || options(None),
        async move |world| {
            let resolved = Resolved::start(world, programs.clone()).await?;
            add_shopify(world)?;
            short_names_yield(world, &resolved.outside, "resolved").await
        },
    );
}

#[test]
fn systemd_resolved_forgets_the_link_where_names_do_not_come_out_and_the_next_way_is_taken() {
    let Some(programs) = Programs::of("systemd-resolved is left") else {
        return;
    };
    scene(
        "systemd-resolved is left",
        || options(None),
        async move |world| {
            let mut resolved = Resolved::start(world, programs.clone()).await?;
            let laptop = world.playground().laptop().clone();
            // It is told of names and never asked: somebody else is where its stub was.
            let settings = "echo DNSStubListener=no >>/etc/systemd/resolved.conf
                rm /etc/resolv.conf
                echo nameserver 127.0.0.53 >/etc/resolv.conf";
            script(&laptop, settings).await?;
            resolved.kill().await?;
            resolved.begin().await?;
            let stub = "127.0.0.53:53".parse()?;
            let _stub = Outside::at(&laptop, &[stub], Transports::Both)?;
            let names = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(names.contains("nameserver 127.0.0.53"), "{names}");
            ensure!(names.contains(ADDRESS), "{names}");

            world.up(&[], false).await?;
            let dns = status(world).await?["dns"].clone();
            let missing = dns["missing"].as_str().unwrap_or_default();
            let why = "systemd-resolved: kubernetes.default.svc.cluster.local. does not resolve";
            ensure!(dns["how"] == "ebpf" && missing.starts_with(why), "{dns}");
            let link = resolved.ctl(&["status", "pmz0", "--no-pager"]).await?;
            for word in ["cluster.local", "DNS Servers"] {
                ensure!(!link.contains(word), "{word}: {link}");
            }
            cluster_names(&laptop).await?;
            pmz(world, &["down"]).await?;
            let after = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(after == names, "{names}\n{after}");
            Ok(())
        },
    );
}

#[test]
fn a_domain_that_was_added_while_systemd_resolved_was_away_is_led_once_it_is_back() {
    let Some(programs) = Programs::of("a domain without systemd-resolved") else {
        return;
    };
    scene(
        "a domain without systemd-resolved",
        || options(None),
        async move |world| {
            let mut resolved = Resolved::start(world, programs.clone()).await?;
            let laptop = world.playground().laptop().clone();
            world.up(&["--dns", "resolved"], false).await?;
            resolved.kill().await?;
            let add = ["dns", "add", "--domain", "www.dns.com", "--service", "echo"];
            let added = pmz(world, &add).await?;
            ensure!(added.code == Some(0), "{added:?}");
            let refused = "grep 'does not follow a change of domains' /run/pmz/daemon.log";
            eventually("a refusal", SOON, async || {
                Ok(script(&laptop, refused).await.ok())
            })
            .await?;
            resolved.begin().await?;
            eventually("the domain", SOON, async || {
                let found = script(&laptop, "getent hosts www.dns.com").await;
                let found = found.is_ok_and(|it| it.contains("fd00:10:96::a"));
                Ok(found.then_some(()))
            })
            .await?;
            cluster_names(&laptop).await
        },
    );
}
