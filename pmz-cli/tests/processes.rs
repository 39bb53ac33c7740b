//! Commands, daemon and helper as real processes, in a machine of the playground's that has no cluster.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pmz_cli::playground::machine::{Machine, MachineFile, MachineSpec};
use pmz_net::route::Netlink;

const RESOLV: &str = "nameserver 192.0.2.53\n";
/// `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

fn machine() -> Machine {
    let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: dev\n\
        clusters: [{name: dev, cluster: {server: 'https://127.0.0.1:7443'}}]\n\
        users: [{name: dev, user: {token: abc}}]\n\
        contexts: [{name: dev, context: {cluster: dev, user: dev}}]\n";
    let spec = MachineSpec {
        hostname: "tester".into(),
        hosts: "127.0.0.1 localhost tester\n".into(),
        resolv_conf: RESOLV.into(),
        sysctls: Vec::new(),
        files: vec![MachineFile {
            path: "/run/kubeconfig".into(),
            content: kubeconfig.into(),
        }],
    };
    let machine = Machine::start(support::program(), &spec).unwrap();
    let loopback = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async { Netlink::open().unwrap().bring_up(1, 65_535).await.unwrap() });
    };
    machine.in_netns(loopback).unwrap();
    machine
}

/// An API server that takes connections and never answers: `pmz up` waits for it.
fn silent_server(machine: &Machine) -> TcpListener {
    machine
        .in_netns(|| TcpListener::bind("127.0.0.1:7443"))
        .unwrap()
        .unwrap()
}

fn pmz(machine: &Machine, args: &[&str]) -> Command {
    let mut command = machine.pmz();
    command
        .args(args)
        .env("KUBECONFIG", "/run/kubeconfig")
        .env("HOME", "/run/nowhere");
    command
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID")
        .stdin(Stdio::null());
    command
}

fn run(machine: &Machine, args: &[&str]) -> Output {
    pmz(machine, args).output().unwrap()
}

/// The exit code and the paragraph of a command that fails.
fn failure(output: &Output) -> (i32, String) {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(output.stdout.is_empty(), "talk on stdout: {output:?}");
    let paragraph = text.lines().last().unwrap_or_default().to_owned();
    assert!(paragraph.starts_with("error: "), "{text}");
    (output.status.code().unwrap(), paragraph)
}

fn shell(machine: &Machine, script: &str) -> String {
    let output = machine.command("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Ids, in the machine, of the processes whose command line has this verb.
fn processes(machine: &Machine, verb: &str) -> Vec<u32> {
    let script = format!(
        "for p in /proc/[0-9]*; do \
           case \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" in 'pmz {verb} '*|[!s]*'/pmz {verb} '*) echo ${{p#/proc/}};; esac; \
         done"
    );
    shell(machine, &script)
        .lines()
        .map(|line| line.parse().unwrap())
        .collect()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn status_is(machine: &Machine, state: &str) -> bool {
    let output = run(machine, &["status", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json["state"] == state
}

/// A `pmz up` that waits for the server.
fn waiting(machine: &Machine, command: &mut Command) -> Child {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the daemon does not connect", || {
        status_is(machine, "connecting")
    });
    child
}

fn nothing_is_left(machine: &Machine) {
    until("processes stay", || {
        processes(machine, "daemon").is_empty() && processes(machine, "helper").is_empty()
    });
    assert_eq!(shell(machine, "cat /etc/resolv.conf"), RESOLV.trim_end());
    assert_eq!(shell(machine, "ls /sys/class/net"), "lo");
    assert_eq!(
        shell(
            machine,
            "ls /run/pmz | grep -v -e '^daemon.log' -e '^lock$'"
        ),
        ""
    );
}

#[test]
fn without_a_daemon_status_says_so_and_down_has_nothing_to_do() {
    needs_root!("without_a_daemon_status_says_so_and_down_has_nothing_to_do");
    let machine = machine();
    let output = run(&machine, &["status"]);
    assert_eq!(
        failure(&output),
        (
            3,
            "error: pmz is not running. `pmz up` connects this machine to a cluster.".to_owned()
        )
    );
    assert!(status_is(&machine, "not-running"));
    for _ in 0..2 {
        let output = run(&machine, &["down"]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
        assert_eq!(output.stderr, b"pmz is not running.\n");
    }
}

#[test]
fn what_is_wrong_with_a_cluster_is_told_in_a_paragraph_and_leaves_nothing() {
    needs_root!("what_is_wrong_with_a_cluster_is_told_in_a_paragraph_and_leaves_nothing");
    let machine = machine();
    let none = pmz(&machine, &["up"])
        .env_remove("KUBECONFIG")
        .output()
        .unwrap();
    let (code, text) = failure(&none);
    assert_eq!(code, 2);
    assert!(
        text.contains("There is no kubeconfig: /run/nowhere/.kube/config not found."),
        "{text}"
    );

    let (code, text) = failure(&run(&machine, &["up", "--context", "prod"]));
    assert_eq!(code, 2);
    assert!(
        text.contains("no context \"prod\"") && text.contains("it has dev"),
        "{text}"
    );

    let (code, text) = failure(&run(&machine, &["up"]));
    assert_eq!(code, 5);
    assert!(
        text.contains("https://127.0.0.1:7443 can't be reached: Connection refused"),
        "{text}"
    );
    nothing_is_left(&machine);
}

#[test]
fn ctrl_c_while_connecting_leaves_nothing() {
    needs_root!("ctrl_c_while_connecting_leaves_nothing");
    let machine = machine();
    let _server = silent_server(&machine);
    let mut up = waiting(&machine, &mut pmz(&machine, &["up"]));
    let socket = shell(&machine, "stat -c '%a %u' /run/pmz /run/pmz/pmz.sock");
    assert_eq!(socket, "755 0\n600 0");
    let process = processes(&machine, "up")[0];
    shell(&machine, &format!("kill -INT {process}"));
    let status = up.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{status}");
    nothing_is_left(&machine);
}

#[test]
fn down_ends_a_daemon_that_is_still_connecting() {
    needs_root!("down_ends_a_daemon_that_is_still_connecting");
    let machine = machine();
    let _server = silent_server(&machine);
    let mut up = waiting(&machine, &mut pmz(&machine, &["up"]));
    let down = run(&machine, &["down"]);
    assert_eq!(
        (down.status.code(), down.stderr.as_slice()),
        (Some(0), &b"Disconnected.\n"[..])
    );
    nothing_is_left(&machine);
    assert_eq!(up.wait().unwrap().code(), Some(130));
}

#[test]
fn neither_process_outlives_the_other() {
    needs_root!("neither_process_outlives_the_other");
    let machine = machine();
    let _server = silent_server(&machine);
    for killed in ["daemon", "helper"] {
        let mut up = waiting(&machine, &mut pmz(&machine, &["up"]));
        let [process] = processes(&machine, killed)[..] else {
            panic!("{killed}")
        };
        shell(&machine, &format!("kill -9 {process}"));
        assert_eq!(up.wait().unwrap().code(), Some(1), "{killed}");
        until("the other process stays", || {
            processes(&machine, "daemon").is_empty() && processes(&machine, "helper").is_empty()
        });
    }
}

#[test]
fn behind_sudo_the_daemon_is_the_users_and_the_helper_roots() {
    needs_root!("behind_sudo_the_daemon_is_the_users_and_the_helper_roots");
    let machine = machine();
    let _server = silent_server(&machine);
    let mut up = pmz(&machine, &["up"]);
    let id = NOBODY.to_string();
    let mut up = waiting(&machine, up.env("SUDO_UID", &id).env("SUDO_GID", &id));
    let who = |verb: &str| {
        let [process] = processes(&machine, verb)[..] else {
            panic!("{verb}")
        };
        let fields = "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm|NoNewPrivs):'";
        shell(&machine, &format!("{fields} /proc/{process}/status")).replace('\t', " ")
    };
    let daemon = who("daemon");
    for line in [
        "Uid: 65534 65534 65534 65534",
        "Gid: 65534 65534 65534 65534",
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "NoNewPrivs: 1",
    ] {
        assert!(
            daemon.lines().any(|l| l == line),
            "{line} is missing in {daemon}"
        );
    }
    assert!(
        daemon.lines().any(|l| l.trim_end() == "Groups: 65534"),
        "{daemon}"
    );
    assert!(who("helper").contains("Uid: 0 0 0 0"));
    assert_eq!(
        shell(&machine, "stat -c '%a %u' /run/pmz/pmz.sock"),
        "600 65534"
    );
    assert_eq!(run(&machine, &["down"]).status.code(), Some(0));
    up.wait().unwrap();
    nothing_is_left(&machine);
}

#[test]
fn a_user_without_sudo_is_told_the_way_out() {
    needs_root!("a_user_without_sudo_is_told_the_way_out");
    let machine = machine();
    shell(&machine, "mkdir -m 1777 /run/tmp");
    let script = format!(
        "PATH=/run/nowhere KUBECONFIG=/run/kubeconfig exec {} up",
        support::program().display()
    );
    let mut command = as_nobody(&machine, &script);
    let (code, text) = failure(&command.output().unwrap());
    assert_eq!(code, 4);
    assert!(text.contains("there is no sudo on this machine"), "{text}");
    assert!(text.contains("Run `pmz up` as root"), "{text}");
}

/// Stands in for sudo, which a bare Debian lacks: the test, which is root, does what it is asked by a pair
/// of pipes.
const SUDO: &str = "#!/bin/sh\n\
    while [ \"$1\" != -- ]; do shift; done; shift\n\
    echo \"$@\" > /run/asked\n\
    read code < /run/answer\n\
    exit $code\n";

#[test]
fn a_user_with_sudo_gets_a_helper_that_knows_whose_it_is() {
    needs_root!("a_user_with_sudo_gets_a_helper_that_knows_whose_it_is");
    let machine = machine();
    let _server = silent_server(&machine);
    machine.write_file("/run/sudo", SUDO.as_bytes()).unwrap();
    shell(
        &machine,
        "mkdir -m 1777 /run/tmp && mkdir /run/bin && mv /run/sudo /run/bin && chmod 755 /run/bin/sudo \
         && mkfifo /run/asked /run/answer && chmod 666 /run/asked /run/answer",
    );
    let script = format!(
        "PATH=/run/bin:$PATH KUBECONFIG=/run/kubeconfig exec {} up",
        support::program().display()
    );
    let start = || {
        let mut command = as_nobody(&machine, &script);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };

    // sudo refuses.
    let up = start();
    let asked = shell(&machine, "cat /run/asked; echo 1 > /run/answer");
    assert!(asked.contains("helper --connect /run/tmp/pmz-"), "{asked}");
    let (code, text) = failure(&up.wait_with_output().unwrap());
    assert_eq!(code, 4);
    assert!(text.contains("sudo did not start pmz's helper"), "{text}");

    // The helper won't serve somebody else's socket.
    let up = start();
    let stranger = "asked=$(cat /run/asked); SUDO_UID=1 $asked 2>&1; echo $? > /run/answer";
    let said = shell(&machine, stranger);
    assert!(
        said.contains("the other end is user 65534's, not 1's"),
        "{said}"
    );
    assert_eq!(failure(&up.wait_with_output().unwrap()).0, 4);

    let mut up = start();
    let serve = "asked=$(cat /run/asked); SUDO_UID=65534 $asked; echo $? > /run/answer";
    shell(&machine, serve);
    until("the daemon does not connect", || {
        status_is(&machine, "connecting")
    });
    assert_eq!(
        shell(&machine, "stat -c '%a %u' /run/pmz/pmz.sock"),
        "600 65534"
    );
    assert_eq!(
        shell(&machine, "ls -d /run/tmp/* 2>/dev/null"),
        "",
        "the meeting place stays"
    );
    let status = format!("{} status", support::program().display());
    let own = as_nobody(&machine, &status).output().unwrap();
    assert_eq!(own.status.code(), Some(5), "{own:?}");
    let down = format!("{} down", support::program().display());
    assert_eq!(
        as_nobody(&machine, &down).output().unwrap().status.code(),
        Some(0)
    );
    up.wait().unwrap();
    until("the helper stays", || {
        !shell(&machine, "cat /proc/[0-9]*/cmdline").contains("helper")
    });
    nothing_is_left(&machine);
}

/// A shell of another user's; `chroot` of coreutils is what a bare Debian has for it.
fn as_nobody(machine: &Machine, script: &str) -> Command {
    let mut command = machine.command("chroot");
    command.args([
        "--userspec=65534:65534",
        "--groups=",
        "/",
        "/bin/sh",
        "-c",
        script,
    ]);
    command
        .env("HOME", "/run/nowhere")
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null());
    command.env_remove("SUDO_UID").env("TMPDIR", "/run/tmp");
    command
}
