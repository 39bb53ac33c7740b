//! Over any path and with any application: every byte arrives once and in order, nothing is sent that was not
//! allowed, and it comes to an end.

mod strategies;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::network::{Scenario, run};
use strategies::Kind;

/// Cases of each property where nothing else is said: a few seconds for all.
const CASES: u32 = 300;

fn holds_over(kind: Kind, check: impl Fn(&Scenario) -> Result<(), String>) {
    let cases = crate::number_from("PMZ_TCP_CASES").map_or(CASES, |cases| cases as u32);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 3000,
        rng_seed: RngSeed::Fixed(crate::number_from("PMZ_TCP_SEED").unwrap_or(5)),
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategies::scenario(kind), |scenario| {
        check(&scenario).map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

fn goes_well(scenario: &Scenario) -> Result<(), String> {
    run(scenario).map(|_| ())
}

#[test]
fn every_byte_arrives_over_a_path_that_does_its_worst() {
    holds_over(Kind::Rough, goes_well);
}

#[test]
fn every_byte_arrives_after_outages() {
    holds_over(Kind::Outages, goes_well);
}

#[test]
fn little_memory_and_small_windows_never_stop_a_connection() {
    holds_over(Kind::Small, goes_well);
}

#[test]
fn a_reset_ends_both_sides_wherever_it_comes() {
    holds_over(Kind::Aborted, goes_well);
}

#[test]
fn a_carrier_that_pushes_back_is_filled() {
    holds_over(Kind::Stream, goes_well);
}

#[test]
fn a_path_without_faults_is_never_waited_for() {
    holds_over(Kind::Clean, |scenario| {
        let outcome = run(scenario)?;
        let timeouts: u64 = outcome.counters.iter().map(|c| c.timeouts).sum();
        if timeouts > 0 {
            return Err(format!("{timeouts} timeouts where nothing was lost"));
        }
        let bound = strategies::clean_bound(scenario);
        match outcome.read_at <= bound {
            true => Ok(()),
            false => Err(format!("{:?} where {bound:?} are enough", outcome)),
        }
    });
}
