//! That nothing is left behind.

use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};
use pmz_net::steer::{Attachment, PROGRAMS, SteerError, Steering};

use crate::common::holder::{hold, while_held};
use crate::common::skip::{need_root, skipped};
use crate::gone::wait_until_gone;
use crate::scene::{DEVICE, Side};

/// Names of the programs at the device by tcx.
fn at_device(side: &Side) -> Vec<String> {
    side.run(|| {
        let mut names = Vec::new();
        for place in [TcAttachType::Egress, TcAttachType::Ingress] {
            let (_, programs) = SchedClassifier::query_tcx(DEVICE, place).unwrap();
            names.extend(
                programs
                    .iter()
                    .filter_map(|program| program.name_as_str().map(str::to_owned)),
            );
        }
        names
    })
}

/// What `tc filter` shows of ours.
fn filters(side: &Side) -> usize {
    side.run(|| {
        let mut found = 0;
        for place in ["egress", "ingress"] {
            let shown = Command::new("tc")
                .args(["filter", "show", "dev", DEVICE, place])
                .output()
                .unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            found += PROGRAMS.iter().filter(|name| text.contains(*name)).count();
        }
        found
    })
}

#[test]
fn dropping_it_takes_the_programs_away() {
    need_root!();
    let machine = Side::machine();
    let steering = machine.run(|| Steering::attach(DEVICE)).unwrap();
    if steering.how() == Attachment::Tcx {
        assert_eq!(at_device(&machine), PROGRAMS);
        drop(steering);
        wait_until_gone(|| at_device(&machine).is_empty());
    }
}

#[test]
fn filters_of_a_former_run_are_replaced_and_dropping_takes_ours_away() {
    need_root!();
    if Command::new("tc").arg("-V").output().is_err() {
        skipped("there is no tc");
        return;
    }
    let machine = Side::machine();
    let attach = || {
        machine
            .run(|| Steering::attach_as(DEVICE, Attachment::Clsact))
            .unwrap()
    };
    // A process that is killed leaves its filters.
    std::mem::forget(attach());
    assert_eq!(filters(&machine), 2);
    let steering = attach();
    assert_eq!(steering.how(), Attachment::Clsact);
    assert_eq!(filters(&machine), 2);
    machine.run(move || drop(steering));
    assert_eq!(filters(&machine), 0);
}

#[test]
#[ignore = "the process that the next test kills"]
fn hold_until_killed() {
    hold(|| Steering::attach(DEVICE).unwrap());
}

#[test]
fn a_process_that_is_killed_leaves_no_program_at_the_device() {
    need_root!();
    let machine = Side::machine();
    let probe = machine.run(|| Steering::attach(DEVICE)).unwrap();
    if probe.how() == Attachment::Clsact {
        skipped("this kernel has no tcx, and filters go with the device");
        return;
    }
    drop(probe);
    wait_until_gone(|| at_device(&machine).is_empty());
    let look = || at_device(&machine);
    let held = while_held(machine.namespace(), "traces::hold_until_killed", look);
    assert_eq!(held, PROGRAMS);
    assert!(at_device(&machine).is_empty());
}

#[test]
fn a_device_that_is_not_there_is_named() {
    need_root!();
    let error = Steering::attach("pmz-none").unwrap_err();
    assert!(
        matches!(&error, SteerError::NoDevice(name) if name == "pmz-none"),
        "{error}"
    );
}
