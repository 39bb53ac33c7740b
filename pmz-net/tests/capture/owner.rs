//! Other processes: programs that ask, and one that holds the programs and is killed.

use std::os::fd::AsFd;
use std::process::{Command, ExitStatus};

use pmz_net::capture::{Capture, Slots};

use crate::cgroup;
use crate::common::holder::{hold, while_held};
use crate::common::skip::need_root;
use crate::machine::Machine;

/// Leaves the test where there is no Python.
macro_rules! need_python {
    () => {
        if std::process::Command::new("python3")
            .arg("--version")
            .output()
            .is_err()
        {
            crate::common::skip::skipped("there is no python3 here");
            return;
        }
    };
}
pub(crate) use need_python;

/// Runs a script in another process on that machine.
pub(crate) fn python(machine: &Machine, script: &str) -> std::io::Result<ExitStatus> {
    machine.run(|| Command::new("python3").args(["-c", script]).status())
}

/// A name server that says where it was asked.
fn own_server(machine: &Machine, at: &'static str) {
    let socket = machine.udp(at);
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"the real one", from);
        }
    });
}

const SERVER: (&str, u16) = ("192.0.2.1", 53);

/// What another process hears that asks: this one serves names, and is left alone.
fn asked(machine: &Machine) -> String {
    let script = format!(
        r#"
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
s.sendto(b"question", {SERVER:?})
try:
    answer, by = s.recvfrom(64)
    print(answer.decode(), "by", by[0], end="")
except TimeoutError:
    print("nothing", end="")
"#
    );
    let output = machine.run(|| Command::new("python3").args(["-c", &script]).output());
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[test]
#[ignore = "the process that another test kills"]
fn holds_the_programs() {
    hold(|| Capture::attach(cgroup::own().as_fd(), Slots::new(None)).unwrap());
}

#[test]
fn when_the_owner_is_killed_the_next_query_goes_to_the_original_server() {
    need_root!();
    need_python!();
    // The owner is started below it, and so is who asks.
    cgroup::own();
    let machine = Machine::new();
    own_server(&machine, "192.0.2.1:53");
    let answer = "the real one by 192.0.2.1";
    assert_eq!(asked(&machine), answer);
    let test = "owner::holds_the_programs";
    // Nobody serves what is caught.
    let heard = while_held(machine.namespace(), test, || asked(&machine));
    assert_eq!(heard, "nothing");
    assert_eq!(asked(&machine), answer);
}
