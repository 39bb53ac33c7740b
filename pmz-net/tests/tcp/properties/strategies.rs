//! What scenarios are made of.

use std::time::Duration;

use pmz_net::tcp::Congestion;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::network::{AppSetup, EndSetup, Gate, LinkSetup, Scenario};

/// What a property is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rough,
    Outages,
    Small,
    Aborted,
    Stream,
    Clean,
}

pub(super) fn scenario(kind: Kind) -> impl Strategy<Value = Scenario> {
    let flags = (any::<u64>(), any::<[bool; 4]>(), any::<[bool; 2]>());
    let links = [link(kind), link(kind)];
    let ends = [end(kind), end(kind)];
    (flags, links, ends, gates()).prop_map(move |((seed, bits, rare), links, mut ends, gates)| {
        if let Some((asked, answered, times)) = gates {
            request_and_response(&mut ends, asked, answered, times);
        }
        for end in &mut ends {
            hurry(&mut end.app);
        }
        if kind == Kind::Aborted && ends.iter().all(|end| end.app.abort_at.is_none()) {
            ends[0].app.abort_at = Some(0);
        }
        Scenario {
            seed,
            v6: bits[0],
            stream: kind == Kind::Stream,
            ecn: bits[1] && kind != Kind::Clean,
            // Without blocks, stamps are left: else Karn's rule (RFC 6298, 5.7) keeps a timeout of a minute until
            // all that was lost has arrived, which is right, and may take an hour.
            no_stamps: bits[2] && !(bits[3] && rare[0]),
            no_sack: bits[3] && rare[0],
            no_scaling: rare[0] && rare[1],
            links,
            ends,
            coalesce: rare[1],
            limit_ms: 1_500_000,
        }
    })
}

/// A client that asks, waits for the answer and asks again.
fn gates() -> impl Strategy<Value = Option<(u64, u64, u64)>> {
    prop::option::weighted(0.2, (1..3000_u64, 1..20_000_u64, 1..20_u64))
}

fn request_and_response(ends: &mut [EndSetup; 2], asked: u64, answered: u64, times: u64) {
    ends[0].app.total = asked * times;
    ends[1].app.total = answered * times;
    ends[0].app.gate = Some(Gate {
        first: asked,
        each: answered,
        allows: asked,
    });
    ends[1].app.gate = Some(Gate {
        first: 0,
        each: asked,
        allows: answered,
    });
}

/// A minute of pauses is enough.
fn hurry(app: &mut AppSetup) {
    let writes = app.total / app.write as u64 + 1;
    app.write_pause_us = app.write_pause_us.min(60_000_000 / writes);
    let reads = 300_000 / app.read as u64 + 1;
    app.read_pause_us = app.read_pause_us.min(60_000_000 / reads);
}

fn link(kind: Kind) -> BoxedStrategy<LinkSetup> {
    let delay_us = prop_oneof![Just(20), 0..1000_u64, 0..100_000_u64];
    if matches!(kind, Kind::Stream | Kind::Clean) {
        let rate = prop_oneof![Just(0), 200_000..100_000_000_u64];
        let queue = match kind {
            Kind::Stream => 1..100_usize,
            _ => 4000..4001_usize,
        };
        return (delay_us, rate, queue)
            .prop_map(|(delay_us, rate, queue)| LinkSetup {
                delay_us,
                rate,
                queue,
                ..LinkSetup::default()
            })
            .boxed();
    }
    let chances = (
        prop_oneof![3 => Just(0), 2 => 0..30_u32, 1 => 0..200_u32],
        prop_oneof![Just(0), 0..200_u32],
        prop_oneof![Just(0), 0..30_u32],
        prop_oneof![3 => Just((0, 0)), 1 => (0..10_u32, 1..50_u32)],
    );
    let times = (delay_us, prop_oneof![Just(0), 0..5_000_u64, 0..50_000_u64]);
    let capacity = (
        prop_oneof![Just(0), 50_000..1_000_000_u64, 50_000..100_000_000_u64],
        prop_oneof![2..20_usize, 2..1000_usize],
        prop::option::of(0..30_usize),
    );
    let outages = match kind {
        Kind::Outages => vec((0..3000_u64, 1..10_000_u64), 1..4).boxed(),
        _ => Just(Vec::new()).boxed(),
    };
    (chances, times, capacity, outages)
        .prop_map(|(chances, times, capacity, outages)| LinkSetup {
            loss: chances.0,
            duplicates: chances.1,
            corrupted: chances.2,
            bursts: chances.3.0,
            burst_len: chances.3.1,
            delay_us: times.0,
            jitter_us: times.1,
            rate: capacity.0,
            queue: capacity.1,
            mark_at: capacity.2,
            outages: outages
                .iter()
                .map(|(from, len)| (*from, from + len))
                .collect(),
        })
        .boxed()
}

fn end(kind: Kind) -> BoxedStrategy<EndSetup> {
    let memory = match kind {
        Kind::Small => (256_usize << 10..800 << 10).boxed(),
        _ => Just(64 << 20).boxed(),
    };
    let max_buffer = match kind {
        Kind::Small => prop_oneof![4000..70_000_u64, 4000..300_000_u64].boxed(),
        _ => prop_oneof![Just(8 << 20), 1_000..8_000_000_u64].boxed(),
    };
    let mtu = prop_oneof![Just(1500), Just(1280), 300..9000_u16];
    let new_mtu = prop::option::weighted(0.2, (0..1000_u64, 300..9000_u16));
    let cubic = any::<bool>();
    (app(kind), mtu, new_mtu, max_buffer, memory, cubic)
        .prop_map(|(app, mtu, new_mtu, max_buffer, memory, cubic)| EndSetup {
            app,
            mtu,
            new_mtu,
            max_buffer,
            memory,
            congestion: if cubic {
                Congestion::Cubic
            } else {
                Congestion::Bbr
            },
            keep_alive_s: 30,
        })
        .boxed()
}

fn app(kind: Kind) -> BoxedStrategy<AppSetup> {
    let total = prop_oneof![Just(0), 1..100_u64, 1..20_000_u64, 1..300_000_u64];
    let write = prop_oneof![
        3 => (Just(1 << 20), Just(0)),
        1 => (1..100_usize, 0..100_u64),
        1 => (1..10_000_usize, 0..50_000_u64),
    ];
    let read = prop_oneof![
        3 => (Just(1 << 20), Just(0)),
        1 => (100..3000_usize, 0..1000_u64),
        1 => (1000..100_000_usize, 0..50_000_u64),
    ];
    let stop = match kind {
        Kind::Clean => Just(None).boxed(),
        _ => prop::option::weighted(0.2, (0..100_000_u64, 1..20_000_u64)).boxed(),
    };
    let abort = match kind {
        Kind::Aborted => prop::option::of(prop_oneof![Just(0), 0..20_000_u64]).boxed(),
        _ => Just(None).boxed(),
    };
    let linger = prop_oneof![Just(0), 0..2_000_000_u64];
    (total, write, read, stop, abort, linger, any::<bool>())
        .prop_map(
            |(total, write, read, read_stop, abort_at, linger_us, direct)| AppSetup {
                total,
                write: write.0,
                write_pause_us: write.1,
                gate: None,
                linger_us,
                read: read.0,
                read_pause_us: read.1,
                read_stop,
                direct,
                abort_at,
            },
        )
        .boxed()
}

/// Time that suffices where nothing goes wrong: twice what the links, the applications and slow start take,
/// and some.
pub(super) fn clean_bound(scenario: &Scenario) -> Duration {
    let delays: u64 = scenario.links.iter().map(|link| link.delay_us).sum();
    let rtt = delays + 1000;
    let mut micros = 10 * rtt;
    for (from, end) in scenario.ends.iter().enumerate() {
        let other = &scenario.ends[1 - from];
        let app = &end.app;
        let total = app.total + 1;
        let mss = u64::from(
            end.mtu
                .min(other.mtu)
                .min(end.new_mtu.map_or(9000, |new| new.1)),
        ) - 80;
        // Small writes are small packets.
        let packets = total / mss.min(app.write as u64).max(1) + 1;
        let rate = scenario.links[from].rate;
        let wire = (total + 90 * packets) * 1_000_000 / rate.max(200_000) * u64::from(rate > 0);
        let writes = total.div_ceil(app.write as u64) * app.write_pause_us;
        let reads = total.div_ceil(other.app.read as u64) * other.app.read_pause_us;
        let window = other.max_buffer.clamp(16 << 10, 60 << 10);
        let flights = (total / window + 14) * rtt;
        let turns = app.gate.map_or(0, |gate| total / gate.allows.max(1)) * (4 * rtt + 10_000);
        micros += wire + writes + reads + flights + turns;
    }
    Duration::from_micros(2 * micros + 100_000)
}
