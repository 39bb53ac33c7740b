//! What the programs cost the kernel's verifier.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aya::programs::loaded_programs;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use pmz_net::steer::{DIVERTING, PROGRAMS, Trial};
use tokio::signal::unix::{SignalKind, signal};

use crate::common::skip::need_root;

/// The limit is a million (BPF_COMPLEXITY_LIMIT_INSNS). Older verifiers see fewer states as equal and need
/// more, and it is time that `pmz up` waits for.
const LIMIT: u32 = 60_000;

#[test]
fn the_verifier_is_done_with_the_programs_soon() {
    need_root!();
    let _held = Trial::load().unwrap();
    for program in loaded_programs() {
        // Others' may have gone since they were listed.
        let Ok(program) = program else { continue };
        let ours = |name: &&str| PROGRAMS.contains(name) || *name == DIVERTING;
        let Some(name) = program.name_as_str().filter(ours) else {
            continue;
        };
        // Linux 5.16 tells.
        if let Some(count) = program.verified_instruction_count() {
            println!(
                "{name}: {count} instructions verified, {:?} long",
                program.size_translated()
            );
            assert!(count < LIMIT, "{name}: {count}");
        }
    }
}

/// As a daemon gets them when processes end that it has started, only more of them.
#[tokio::test]
async fn the_verifier_is_not_disturbed_by_signals() {
    need_root!();
    let _heard = signal(SignalKind::child()).unwrap();
    let verifying = pthread_self();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pthread_kill(verifying, Signal::SIGCHLD).unwrap();
                thread::yield_now();
            }
        });
        let loaded = Trial::load();
        done.store(true, Ordering::Relaxed);
        loaded.unwrap();
    });
}
