//! That nothing is left behind.

use pmz_net::guard::{Guard, GuardError};
use pmz_net::steer::SteerError;

use crate::common::holder::{hold, while_held};
use crate::common::skip::need_root;
use crate::frames::PORT;
use crate::gone::wait_until_gone;
use crate::net::{ETH, Lab, Machine};

/// Whether an XDP program is at the interface: there is room for one.
fn is_occupied(machine: &Machine) -> bool {
    match machine.run(|| Guard::at_interface(ETH, PORT)) {
        Ok(_) => false,
        Err(GuardError::Occupied { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn dropping_it_takes_the_program_away() {
    need_root!();
    let lab = Lab::new();
    let guard = lab.agent.run(|| Guard::at_interface(ETH, PORT)).unwrap();
    assert!(is_occupied(&lab.agent));
    drop(guard);
    wait_until_gone(|| !is_occupied(&lab.agent));
}

#[test]
#[ignore = "the process that the next test kills"]
fn hold_until_killed() {
    hold(|| Guard::at_interface(ETH, PORT).unwrap());
}

#[test]
fn a_process_that_is_killed_leaves_no_program_at_the_interface() {
    need_root!();
    let lab = Lab::new();
    let look = || is_occupied(&lab.agent);
    assert!(while_held(&lab.agent, "traces::hold_until_killed", look));
    assert!(!is_occupied(&lab.agent));
}

#[test]
fn an_interface_that_vanishes_or_is_not_there_is_no_harm() {
    need_root!();
    let lab = Lab::new();
    let guard = lab.agent.run(|| Guard::at_interface(ETH, PORT)).unwrap();
    lab.agent.with_links(|handle| async move {
        let index = nix::net::if_::if_nametoindex(ETH).unwrap();
        handle.link().del(index).execute().await.unwrap();
    });
    guard.report().unwrap();
    drop(guard);
    let error = lab
        .agent
        .run(|| Guard::at_interface(ETH, PORT))
        .unwrap_err();
    assert!(
        matches!(&error, GuardError::Ebpf(SteerError::NoDevice(name)) if name == ETH),
        "{error}"
    );
}
