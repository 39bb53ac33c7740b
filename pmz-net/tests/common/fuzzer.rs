//! A fuzzer that runs wherever the tests do. Bytes that bring what is tested into a situation that was not seen before
//! are kept and changed further.

use std::collections::HashSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Inputs that are kept.
const KEPT: usize = 4000;
/// Operations after which it is said how many there were.
const TOLD: u64 = 5_000_000;

/// What is fed.
pub(crate) struct Fuzzer {
    /// Operations to be done, at least.
    pub(crate) runs: u64,
    /// Another beginning of chance.
    pub(crate) seed: u64,
    /// Bytes of the longest input.
    pub(crate) longest: usize,
    /// Inputs to begin with.
    pub(crate) kept: Vec<Vec<u8>>,
}

impl Fuzzer {
    /// Feeds one input after the other to `play`, which notes the situations that it leads to and gives the number of
    /// its operations, and panics where something is wrong. Gives the number of situations.
    ///
    /// # Panics
    /// Where `play` does, with a short input that brings it to that, as `PMZ_FUZZ_PROGRAM`.
    pub(crate) fn run(mut self, play: impl Fn(&[u8], &mut HashSet<u64>) -> u64) -> usize {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut seen = HashSet::new();
        let mut kept = std::mem::take(&mut self.kept);
        for bytes in &kept {
            self.feed(&play, bytes, &mut seen);
        }
        let (begin, mut done, mut told) = (Instant::now(), 0, 0);
        while done < self.runs {
            let bytes = next_input(&mut rng, &kept, self.longest);
            let before = seen.len();
            done += self.feed(&play, &bytes, &mut seen);
            if seen.len() > before {
                if kept.len() < KEPT {
                    kept.push(bytes);
                } else {
                    let index = rng.random_range(0..KEPT);
                    kept[index] = bytes;
                }
            }
            if done - told >= TOLD {
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
        seen.len()
    }

    fn feed(
        &self,
        play: &impl Fn(&[u8], &mut HashSet<u64>) -> u64,
        bytes: &[u8],
        seen: &mut HashSet<u64>,
    ) -> u64 {
        failure(play, bytes, seen).unwrap_or_else(|message| {
            let bytes = smaller(play, bytes, &message);
            panic!("PMZ_FUZZ_PROGRAM={}", hexadecimal(&bytes));
        })
    }
}

/// The one input that `PMZ_FUZZ_PROGRAM` names, where it does.
pub(crate) fn named() -> Option<Vec<u8>> {
    let text = std::env::var("PMZ_FUZZ_PROGRAM").ok()?;
    let bytes = (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16));
    Some(bytes.collect::<Result<_, _>>().unwrap())
}

/// A number from the environment.
pub(crate) fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn next_input(rng: &mut StdRng, kept: &[Vec<u8>], longest: usize) -> Vec<u8> {
    if kept.is_empty() || rng.random_ratio(1, 10) {
        let len = rng.random_range(8..longest);
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
    bytes.truncate(longest);
    bytes
}

/// How an input fails: what its message begins with.
fn failure(
    play: &impl Fn(&[u8], &mut HashSet<u64>) -> u64,
    bytes: &[u8],
    seen: &mut HashSet<u64>,
) -> Result<u64, String> {
    catch_unwind(AssertUnwindSafe(|| play(bytes, seen))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        text.unwrap_or_default().chars().take(12).collect()
    })
}

/// A shorter input that fails in the same way.
fn smaller(
    play: &impl Fn(&[u8], &mut HashSet<u64>) -> u64,
    bytes: &[u8],
    message: &str,
) -> Vec<u8> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut bytes = bytes.to_vec();
    let mut step = bytes.len() / 2;
    while step > 0 {
        let mut at = 0;
        while at < bytes.len() {
            let mut less = bytes.clone();
            less.drain(at..(at + step).min(bytes.len()));
            if failure(play, &less, &mut HashSet::new()).is_err_and(|other| other == message) {
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
