//! That nothing is left behind.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use pmz_net::guard::{Guard, GuardError};
use pmz_net::steer::SteerError;

use crate::frames::PORT;
use crate::net::{ETH, Lab, Machine};
use crate::skip::need_root;

/// Set for a child that is to attach the guard and to wait for its end.
const HOLD: &str = "PMZ_TEST_GUARD_HOLD";
const READY: &str = "attached";

/// Whether an XDP program is at the interface: there is room for one.
fn is_occupied(machine: &Machine) -> bool {
    match machine.run(|| Guard::attach(ETH, PORT)) {
        Ok(_) => false,
        Err(GuardError::Occupied { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn dropping_it_takes_the_program_away() {
    need_root!();
    let lab = Lab::new();
    let guard = lab.agent.run(|| Guard::attach(ETH, PORT)).unwrap();
    assert!(is_occupied(&lab.agent));
    drop(guard);
    assert!(!is_occupied(&lab.agent));
}

#[test]
#[ignore = "the process that the next test kills"]
fn hold_until_killed() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let _guard = Guard::attach(ETH, PORT).unwrap();
    println!("{READY}");
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn a_process_that_is_killed_leaves_no_program_at_the_interface() {
    need_root!();
    let lab = Lab::new();
    let mut child = lab.agent.run(|| {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "traces::hold_until_killed",
                "--nocapture",
                "--ignored",
            ])
            .env(HOLD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.contains(READY));
    let held = is_occupied(&lab.agent);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ready, "the child did not attach");
    assert!(held);
    assert!(!is_occupied(&lab.agent));
}

#[test]
fn an_interface_that_vanishes_or_is_not_there_is_no_harm() {
    need_root!();
    let lab = Lab::new();
    let guard = lab.agent.run(|| Guard::attach(ETH, PORT)).unwrap();
    lab.agent.with_links(|handle| async move {
        let index = nix::net::if_::if_nametoindex(ETH).unwrap();
        handle.link().del(index).execute().await.unwrap();
    });
    guard.report().unwrap();
    drop(guard);
    let error = lab.agent.run(|| Guard::attach(ETH, PORT)).unwrap_err();
    assert!(
        matches!(&error, GuardError::Ebpf(SteerError::NoDevice(name)) if name == ETH),
        "{error}"
    );
}
