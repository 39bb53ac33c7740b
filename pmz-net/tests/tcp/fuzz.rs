//! A fuzzer that runs wherever the tests do. A program of bytes is read as operations: segments made of fields
//! with interesting values, steps in time, calls of the application. Programs that bring the connection into a
//! situation that was not seen before are kept and changed further.
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
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use machine::Machine;
use program::Program;

/// Operations where nothing else is said: some seconds.
const RUNS: u64 = 200_000;
/// Bytes of the longest program.
const LONGEST: usize = 1200;
/// Programs that are kept.
const KEPT: usize = 4000;

#[test]
fn no_sequence_of_segments_times_and_calls_breaks_a_connection() {
    if let Ok(text) = std::env::var("PMZ_FUZZ_PROGRAM") {
        let bytes = (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16));
        play(
            &bytes.collect::<Result<Vec<_>, _>>().unwrap(),
            &mut HashSet::new(),
        );
        return;
    }
    let runs = crate::number_from("PMZ_FUZZ_RUNS").unwrap_or(RUNS);
    let mut rng = StdRng::seed_from_u64(crate::number_from("PMZ_TCP_SEED").unwrap_or(1));
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut seen = HashSet::new();
    let (begin, mut done, mut told) = (Instant::now(), 0, 0);
    while done < runs {
        let bytes = next_program(&mut rng, &kept);
        let before = seen.len();
        done += failure(&bytes, &mut seen).unwrap_or_else(|message| {
            let bytes = smaller(&bytes, &message);
            panic!("PMZ_FUZZ_PROGRAM={}", hexadecimal(&bytes));
        });
        if seen.len() > before {
            if kept.len() < KEPT {
                kept.push(bytes);
            } else {
                let index = rng.random_range(0..KEPT);
                kept[index] = bytes;
            }
        }
        if done - told >= 5_000_000 {
            told = done;
            let rate = done as f64 / begin.elapsed().as_secs_f64();
            println!("{done} operations, {rate:.0}/s, {} situations", seen.len());
        }
    }
    println!(
        "{done} operations, {} situations, {:?}",
        seen.len(),
        begin.elapsed()
    );
    assert!(seen.len() > 500, "only {} situations", seen.len());
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

fn next_program(rng: &mut StdRng, kept: &[Vec<u8>]) -> Vec<u8> {
    if kept.is_empty() || rng.random_ratio(1, 10) {
        let len = rng.random_range(8..LONGEST);
        return (0..len).map(|_| rng.random()).collect();
    }
    let mut bytes = kept[rng.random_range(0..kept.len())].clone();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => {
                let until = rng.random_range(at..(at + 40).min(bytes.len()));
                bytes.drain(at..until);
            }
            3 => {
                let more: [u8; 12] = rng.random();
                bytes.splice(at..at, more);
            }
            4 => {
                let other = &kept[rng.random_range(0..kept.len())];
                let from = rng.random_range(0..other.len());
                bytes.truncate(at + 1);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let until = rng.random_range(at..(at + 60).min(bytes.len()));
                let again = bytes[at..until].to_vec();
                bytes.splice(at..at, again);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes.truncate(LONGEST);
    bytes
}

/// How a program fails: what its message begins with.
fn failure(bytes: &[u8], seen: &mut HashSet<u64>) -> Result<u64, String> {
    catch_unwind(AssertUnwindSafe(|| play(bytes, seen))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        text.unwrap_or_default().chars().take(12).collect()
    })
}

/// A shorter program that fails in the same way.
fn smaller(bytes: &[u8], message: &str) -> Vec<u8> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut bytes = bytes.to_vec();
    let mut step = bytes.len() / 2;
    while step > 0 {
        let mut at = 0;
        while at < bytes.len() {
            let mut less = bytes.clone();
            less.drain(at..(at + step).min(bytes.len()));
            if failure(&less, &mut HashSet::new()).is_err_and(|other| other == message) {
                bytes = less;
            } else {
                at += step;
            }
        }
        step /= 2;
    }
    std::panic::set_hook(hook);
    bytes
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
