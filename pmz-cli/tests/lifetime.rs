//! A playground leaves nothing behind, and others find the way into it while it runs.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pmz_cli::playground::shell_command;
use support::playground;

/// A process that only runs a playground, with a process in one of its pods.
const CHILD: &str = "PMZ_TEST_PLAYGROUND_CHILD";

/// Not a test by itself: what the others start and kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_runs_a_playground() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let playground = playground(Some("delay=1ms")).await;
    let pod = playground.pod("echo-0").unwrap();
    let mut inside = pod
        .command("sh")
        .args(["-c", "echo up; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(inside.stdout.take().unwrap())
        .read_line(&mut String::new())
        .unwrap();
    println!("playground runs");
    // Killed here, from outside.
    inside.wait().unwrap();
}

fn start_child() -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_runs_a_playground", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.contains("playground runs")),
        "the child runs a playground"
    );
    child
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// Parent and state of a process (proc_pid_stat(5)).
fn stat(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((fields.next()?.parse().ok()?, state))
}

fn descendants(of: u32) -> Vec<u32> {
    let all: Vec<_> = processes()
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid)?.0)))
        .collect();
    let mut found = vec![of];
    let mut i = 0;
    while let Some(&parent) = found.get(i) {
        found.extend(
            all.iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        i += 1;
    }
    found.split_off(1)
}

/// All namespaces that a process is in, as the kernel names them.
fn namespaces(pid: u32) -> BTreeSet<String> {
    let kinds = ["net", "mnt", "pid", "uts", "ipc"];
    let links = kinds
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

#[test]
fn nothing_is_left_after_the_playground_is_killed() {
    needs_root!("nothing_is_left_after_the_playground_is_killed");
    let own = namespaces(std::process::id());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();

    let mut child = start_child();
    let descendants = descendants(child.id());
    let made: BTreeSet<_> = descendants
        .iter()
        .flat_map(|pid| namespaces(*pid))
        .filter(|ns| !own.contains(ns))
        .collect();
    // Laptop, node and eight pods, five namespaces each.
    assert!(made.len() >= 50, "{made:?}");
    let socket = format!("@pmz-playground/{}", child.id());
    assert!(
        fs::read_to_string("/proc/net/unix")
            .unwrap()
            .contains(&socket)
    );
    // Others make namespaces, too, and the kernel gives the numbers of ended ones to new ones at once: only
    // who was there before can have kept one.
    let before = processes();
    child.kill().unwrap();
    child.wait().unwrap();

    let alive = |pid: &u32| stat(*pid).is_some_and(|(_, state)| state != 'Z');
    let ended = within(Duration::from_secs(10), || !descendants.iter().any(alive));
    let left: Vec<_> = descendants.iter().filter(|pid| alive(pid)).collect();
    assert!(ended, "still there: {left:?}");
    // One that was born after the look at the descendants may be a moment behind them.
    let keeps = |pid: &&u32| !namespaces(**pid).is_disjoint(&made);
    let ended = within(Duration::from_secs(10), || {
        !before.iter().any(|pid| keeps(&pid))
    });
    let kept: Vec<_> = before.iter().filter(keeps).collect();
    assert!(ended, "namespaces kept by {kept:?}");
    assert!(
        !fs::read_to_string("/proc/net/unix")
            .unwrap()
            .contains(&socket)
    );
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
}

#[test]
fn a_shell_finds_the_running_playground_and_its_machines() {
    needs_root!("a_shell_finds_the_running_playground_and_its_machines");
    let mut child = start_child();
    let run = |machine: Option<&str>| {
        let uname = ["uname".into(), "-n".into()];
        let mut command = shell_command(support::program(), machine, &uname, Some(child.id()))?;
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        anyhow::Ok(String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(None).unwrap(), "laptop\n");
    assert_eq!(run(Some("node")).unwrap(), "node-0\n");
    assert_eq!(run(Some("echo-1")).unwrap(), "echo-1\n");
    assert_eq!(run(Some("shop-echo-0")).unwrap(), "shop-echo-0\n");
    let error = run(Some("nobody")).unwrap_err().to_string();
    assert!(
        error.contains("no machine nobody") && error.contains("laptop, node, blob-0"),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
