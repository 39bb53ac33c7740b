//! What users get wrong, and what they may do twice.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::world::{STRANGER_KUBECONFIG, World};
use pmz_tests::{Ran, options, run, scene, script};

use crate::deaths::traces;

const QUICK: Duration = Duration::from_secs(15);

/// Whether that is one paragraph on stderr with these words in it, soon, and a failure.
fn one_paragraph(ran: &Ran, code: i32, words: &[&str]) -> Result<()> {
    ensure!(ran.code == Some(code), "not exit code {code}: {ran:?}");
    ensure!(ran.stdout.is_empty(), "on stdout: {ran:?}");
    let lines: Vec<_> = ran
        .stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    // The steps that went well may stand before it.
    let errors = lines.iter().filter(|line| line.starts_with("error: "));
    let [error] = errors.collect::<Vec<_>>()[..] else {
        anyhow::bail!("not one error: {ran:?}");
    };
    ensure!(lines.last() == Some(error), "something follows: {ran:?}");
    for word in words {
        ensure!(error.contains(word), "{word:?} is not said: {ran:?}");
    }
    ensure!(ran.took < QUICK, "slow: {ran:?}");
    Ok(())
}

async fn up(world: &World, change: impl FnOnce(&mut Command)) -> Result<Ran> {
    let mut command = world.pmz();
    command.arg("up");
    change(&mut command);
    run(command).await
}

#[test]
fn what_is_missing_for_pmz_up_is_named_in_one_paragraph() {
    scene(
        "mistakes",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let before = traces(world).await?;
            let ran = up(world, |c| {
                c.env("KUBECONFIG", "/run/playground/nothing");
            })
            .await?;
            one_paragraph(&ran, 2, &["/run/playground/nothing", "KUBECONFIG"])
                .context("no kubeconfig")?;

            let ran = up(world, |c| {
                c.args(["--context", "production"]);
            })
            .await?;
            one_paragraph(&ran, 2, &["production", "playground"]).context("wrong context")?;

            let good =
                laptop.run_in(|| std::fs::read_to_string("/run/playground/kubeconfig"))??;
            let away = good.replace("https://10.99.0.11:6443", "https://10.99.0.11:9");
            ensure!(away != good, "{good}");
            laptop.write_file("/run/playground/away", away.as_bytes())?;
            let ran = up(world, |c| {
                c.env("KUBECONFIG", "/run/playground/away");
            })
            .await?;
            one_paragraph(&ran, 5, &["10.99.0.11:9"]).context("unreachable")?;

            let ran = up(world, |c| {
                c.env("KUBECONFIG", STRANGER_KUBECONFIG);
            })
            .await?;
            one_paragraph(&ran, 4, &["portforward"]).context("no permission")?;

            let agent = world.agents()[0].pod();
            world.playground().remove_pod("pmz", agent).await?;
            let ran = up(world, |_| {}).await?;
            one_paragraph(&ran, 6, &["namespace", "pmz agent deploy"]).context("no agent")?;
            ensure!(traces(world).await? == before, "a failure left something");
            Ok(())
        },
    );
}

#[test]
fn missing_rights_and_a_missing_tun_are_named_in_one_paragraph() {
    scene(
        "missing rights",
        || options(None),
        async |world| {
            // In a mount namespace of its own, over the machine's /dev.
            let mut inside = world
                .pmz()
                .get_args()
                .map(|a| a.to_owned())
                .collect::<Vec<_>>();
            let pmz = inside.pop().context("no program")?;
            let hide = r#"mount -t tmpfs none /dev/net && exec "$0" up"#;
            let mut command = world.laptop("unshare");
            command.args(["-m", "sh", "-ec", hide]).arg(&pmz);
            let ran = run(command).await?;
            one_paragraph(&ran, 1, &["/dev/net/tun"]).context("no TUN")?;

            // There is no sudo in there.
            let mut command = world.laptop("/usr/bin/setpriv");
            command.env("PATH", "/nothing");
            command
                .args([
                    "--reuid",
                    "65534",
                    "--regid",
                    "65534",
                    "--clear-groups",
                    "--no-new-privs",
                ])
                .args([pmz.as_os_str(), "up".as_ref()]);
            let ran = run(command).await?;
            one_paragraph(&ran, 4, &["sudo", "as root"]).context("not root")?;
            Ok(())
        },
    );
}

#[test]
fn up_and_down_may_be_said_twice_and_leave_the_laptop_as_it_was() {
    scene(
        "twice",
        || options(None),
        async |world| {
            let laptop = world.playground().laptop().clone();
            let look = "cat /etc/resolv.conf; stat -c '%A %U %G %N' /etc/resolv.conf; ip -o link; ip -o address; \
                    ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ls /run";
            let before = script(&laptop, look).await?;
            let say = async |what: &[&str]| {
                let mut command = world.pmz();
                command.args(what);
                run(command).await
            };
            ensure!(say(&["status"]).await?.code == Some(3), "status before");
            for _ in 0..2 {
                let ran = say(&["up"]).await?;
                ensure!(
                    ran.code == Some(0) && ran.stderr.contains("Connected"),
                    "{ran:?}"
                );
            }
            ensure!(say(&["status"]).await?.code == Some(0), "status while up");
            ensure!(
                script(&laptop, look).await? != before,
                "`pmz up` has done nothing"
            );
            for _ in 0..2 {
                let ran = say(&["down"]).await?;
                ensure!(ran.code == Some(0), "{ran:?}");
            }
            let ran = say(&["status", "-o", "json"]).await?;
            ensure!(
                ran.code == Some(3) && ran.stdout.contains("not-running"),
                "{ran:?}"
            );
            let after = script(&laptop, look).await?;
            ensure!(
                stable(&after) == stable(&before),
                "before:\n{before}\nafter:\n{after}"
            );
            Ok(())
        },
    );
}

/// Without what moves by itself: times and what the kernel counts down.
pub(crate) fn stable(dump: &str) -> Vec<String> {
    let mut lines: Vec<_> = dump.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if line.contains("/etc/resolv.conf") {
            // Mode and owner, without size and time.
            *line = line
                .split_whitespace()
                .take(4)
                .collect::<Vec<_>>()
                .join(" ");
        }
        if let Some(at) = line.find(" expires ") {
            line.truncate(at);
        }
    }
    // pmz's folder for its socket is made once and stays, empty.
    lines.retain(|line| line != "pmz");
    lines
}
