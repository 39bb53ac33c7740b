//! Machines of the playground: they are on their own, and leave nothing.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pmz_cli::playground::machine::{Machine, MachineFile, MachineSpec};
use pmz_cli::playground::netns::NetNs;

fn machine(files: Vec<MachineFile>) -> Machine {
    let spec = MachineSpec {
        hostname: "tester".into(),
        hosts: "127.0.0.1 localhost tester\n".into(),
        resolv_conf: "nameserver 192.0.2.53\n".into(),
        sysctls: vec![("net/ipv4/ip_forward".into(), "1".into())],
        files,
    };
    Machine::start(support::program(), &spec).unwrap()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_machine_has_its_own_name_files_network_and_processes() {
    needs_root!("a_machine_has_its_own_name_files_network_and_processes");
    let secret = "/var/run/secrets/kubernetes.io/serviceaccount/token";
    let machine = machine(vec![MachineFile {
        path: secret.into(),
        content: b"token".to_vec(),
    }]);
    let before = std::fs::read("/etc/resolv.conf").ok();

    assert_eq!(output(machine.command("uname").arg("-n")), "tester\n");
    let files = [
        "/etc/hostname",
        "/etc/resolv.conf",
        "/proc/sys/net/ipv4/ip_forward",
        secret,
    ];
    assert_eq!(
        output(machine.command("cat").args(files)),
        "tester\nnameserver 192.0.2.53\n1\ntoken"
    );
    assert_eq!(output(machine.command("ls").arg("/sys/class/net")), "lo\n");
    let count = "set -- /proc/[0-9]*; echo $#";
    assert_eq!(
        output(machine.command("sh").args(["-c", count])),
        "2\n",
        "init and sh"
    );
    assert_ne!(*machine.netns(), NetNs::current().unwrap());
    assert_eq!(
        machine.in_netns(|| NetNs::current().unwrap()).unwrap(),
        *machine.netns()
    );

    machine
        .write_file("/etc/resolv.conf", b"nameserver 192.0.2.54\n")
        .unwrap();
    assert_eq!(
        output(machine.command("cat").arg("/etc/resolv.conf")),
        "nameserver 192.0.2.54\n"
    );
    assert_eq!(
        std::fs::read("/etc/resolv.conf").ok(),
        before,
        "this machine's own file"
    );
    assert!(!std::path::Path::new(secret).exists());
}

#[test]
fn files_outside_of_run_are_refused_by_init() {
    needs_root!("files_outside_of_run_are_refused_by_init");
    let path = std::env::temp_dir().join("pmz-machine-test");
    let file = MachineFile {
        path: path.clone(),
        content: vec![],
    };
    let spec = MachineSpec {
        hostname: "x".into(),
        files: vec![file],
        ..MachineSpec::default()
    };
    let error = Machine::start(support::program(), &spec).unwrap_err();
    assert!(format!("{error:#}").contains("not below /run"), "{error:#}");
    assert!(!path.exists());
}

#[test]
fn a_command_ends_as_the_process_inside_ended() {
    needs_root!("a_command_ends_as_the_process_inside_ended");
    let machine = machine(vec![]);
    let status = machine
        .command("sh")
        .args(["-c", "exit 7"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
    let status = machine
        .command("sh")
        .args(["-c", "kill -9 $$"])
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(9));
    let status = machine
        .command("/there/is/no/such/program")
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(127));
}

#[test]
fn a_signal_for_a_command_reaches_the_process_inside() {
    needs_root!("a_signal_for_a_command_reaches_the_process_inside");
    let machine = machine(vec![]);
    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = machine
        .command("sh")
        .args(["-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn what_runs_in_a_machine_ends_with_it() {
    needs_root!("what_runs_in_a_machine_ends_with_it");
    let machine = machine(vec![]);
    let mut child = machine
        .command("sh")
        .args(["-c", "echo ready; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    drop(machine);
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}
