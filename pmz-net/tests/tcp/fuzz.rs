//! A program of bytes is read as operations: segments made of fields with interesting values, steps in time, calls of
//! the application. The fuzzer keeps those that bring the connection into a situation that was not seen before.
//!
//! `PMZ_FUZZ_RUNS` sets how many operations are fed, `PMZ_TCP_SEED` another beginning, `PMZ_FUZZ_PROGRAM` one
//! program, in hexadecimal digits, as a failure prints it. For a long run, optimised but with all checks:
//!
//! ```sh
//! PMZ_FUZZ_RUNS=100000000 cargo test -p pmz-net --test tcp \
//!     --config 'profile.dev.package.pmz-net.opt-level=3' fuzz
//! ```

mod machine;
mod program;

use std::collections::HashSet;

use crate::fuzzer::{self, Fuzzer};
use crate::number_from;
use machine::Machine;
use program::Program;

/// Operations where nothing else is said: some seconds.
const RUNS: u64 = 200_000;
/// Bytes of the longest program.
const LONGEST: usize = 1200;

#[test]
fn no_sequence_of_segments_times_and_calls_breaks_a_connection() {
    if let Some(bytes) = fuzzer::named() {
        play(&bytes, &mut HashSet::new());
        return;
    }
    let fuzzer = Fuzzer {
        runs: number_from("PMZ_FUZZ_RUNS").unwrap_or(RUNS),
        seed: number_from("PMZ_TCP_SEED").unwrap_or(1),
        longest: LONGEST,
        kept: Vec::new(),
    };
    let situations = fuzzer.run(play);
    assert!(situations > 500, "only {situations} situations");
}

fn play(bytes: &[u8], seen: &mut HashSet<u64>) -> u64 {
    let mut program = Program::new(bytes);
    let mut machine = Machine::new(&mut program);
    let mut operations = 0;
    while !program.is_over() {
        machine.step(&mut program);
        seen.insert(machine.situation());
        operations += 1;
    }
    machine.finish();
    operations.max(1)
}
