//! What pmz is to reach beside others on the same machine.

use pmz_tests::{BORINGTUN, WIREGUARD_GO};

use super::Row;
use super::idle::{COST_ALONE, COST_BESIDE};
use super::load::{DATAGRAMS, FLOWS};
use crate::agent::Carrier;
use crate::goal::{Bound, Figure, Goal};
use crate::load::{ONE_FLOW_DOWN, ONE_FLOW_UP, ROUND_TRIP_P50, ROUND_TRIP_P99};

const UDP: Row = Row::Pmz(Carrier::Udp);
const STREAM: Row = Row::Pmz(Carrier::Stream);
const AGENT_UDP: Row = Row::Agent(Carrier::Udp);
const GO: Row = Row::Wireguard(WIREGUARD_GO);
const WAYS: [&str; 2] = [ONE_FLOW_UP, ONE_FLOW_DOWN];

/// All of them, in the table's order.
pub(super) fn all() -> Vec<Goal> {
    let mut goals = Vec::new();
    for what in WAYS {
        goals.push(least("UDP against wireguard-go", what, UDP, GO, 2.0));
        let boringtun = Row::Wireguard(BORINGTUN);
        goals.push(least(
            "UDP against boringtun-cli",
            what,
            UDP,
            boringtun,
            4.0,
        ));
        goals.push(least(
            "UDP, agent and NAT, against wireguard-go's bare tunnel",
            what,
            AGENT_UDP,
            GO,
            1.0,
        ));
        goals.push(least("streams against UDP", what, STREAM, UDP, 1.5));
    }
    for row in [UDP, STREAM, AGENT_UDP] {
        goals.extend(parallel(row));
    }
    goals.push(least("UDP against wireguard-go", DATAGRAMS, UDP, GO, 2.0));
    for what in [ROUND_TRIP_P50, ROUND_TRIP_P99] {
        // Both have veth's round trip in them, so that what is added is no more where the whole isn't.
        goals.push(Goal::ratio(
            format!("{what}: UDP against wireguard-go"),
            of(UDP, what),
            of(GO, what),
            Bound::RatioAtMost(1.0),
        ));
    }
    for (alone, beside) in COST_ALONE.into_iter().zip(COST_BESIDE) {
        goals.push(Goal::ratio(
            format!("{beside}: against none"),
            of(Row::Nat, beside),
            of(Row::Nat, alone),
            Bound::RatioAtMost(1.1),
        ));
    }
    goals
}

/// 8 and 64 flows are to be as fast as one.
fn parallel(row: Row) -> impl Iterator<Item = Goal> {
    let [up, down] = WAYS;
    let more = FLOWS.into_iter().filter(|(count, ..)| *count > 1);
    more.map(move |(_, what, way)| {
        let one = match way {
            crate::load::Way::Up => up,
            crate::load::Way::Down => down,
        };
        Goal::ratio(
            format!("{what}: {} against its one flow", row.name()),
            of(row, what),
            of(row, one),
            Bound::RatioAtLeast(1.0),
        )
    })
}

fn least(text: &str, what: &'static str, ours: Row, against: Row, bound: f64) -> Goal {
    Goal::ratio(
        format!("{what}: {text}"),
        of(ours, what),
        of(against, what),
        Bound::RatioAtLeast(bound),
    )
}

fn of(row: Row, what: &'static str) -> Figure {
    Figure::new(row.name(), what)
}
