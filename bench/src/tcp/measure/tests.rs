use pmz_net::nat::TcpStack;

use super::*;

/// Measures a cell of these where there are the rights to.
fn measured(test: &str, course: Course) -> Option<Vec<Sample>> {
    if !nix::unistd::geteuid().is_root() {
        pmz_tests::skipped(test, "making namespaces needs root");
        return None;
    }
    let cell = Cell {
        name: test.into(),
        congestion: Congestion::Bbr,
        course,
        goals: Vec::new(),
    };
    let run = Run {
        round: 1,
        duration: Duration::from_millis(500),
        connects_for: Duration::from_millis(200),
        setting: Setting {
            mtu: 1500,
            ipv6: false,
            stack: TcpStack::Own,
        },
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let samples = runtime.block_on(cell.measure(&run));
    Some(samples.unwrap())
}

fn link(spec: &'static str) -> Link {
    Link {
        spec,
        warm_up: Duration::from_millis(300),
        at_least: Duration::ZERO,
    }
}

#[test]
fn a_flow_of_either_side_fills_a_small_link_and_not_more() {
    let test = "a_flow_of_either_side_fills_a_small_link_and_not_more";
    for way in [Way::Up, Way::Down] {
        let course = Course::Flow(way, link("delay=1ms,rate=20mbit,queue=200ms"));
        let Some(samples) = measured(test, course) else {
            return;
        };
        let sides: Vec<Side> = samples.iter().map(|sample| sample.side).collect();
        assert_eq!(sides, [Side::Ours, Side::Kernel]);
        for sample in samples {
            let rate = sample.values[&Quantity::Rate];
            assert!((5e6..21e6).contains(&rate), "{sample:?}");
            assert!(sample.link.is_some() && sample.client.len() == 1);
            assert_eq!(
                sample.server.len(),
                usize::from(sample.side == Side::Kernel)
            );
        }
    }
}

#[test]
fn what_an_outage_cost_is_measured_from_its_end() {
    let test = "what_an_outage_cost_is_measured_from_its_end";
    let link = Link {
        at_least: Duration::from_secs(3),
        ..link("delay=1ms,rate=20mbit,queue=200ms")
    };
    let course = Course::Outage(Way::Up, link, Duration::from_millis(300));
    let Some(samples) = measured(test, course) else {
        return;
    };
    for sample in samples {
        let recovery = sample.values[&Quantity::Recovery];
        assert!(recovery > 0.0 && recovery < 3.0, "{sample:?}");
        assert!(
            sample.link.is_some_and(|ways| ways[0].lost > 0),
            "{sample:?}"
        );
    }
}

#[test]
fn shares_are_of_flows_that_run_at_once() {
    let test = "shares_are_of_flows_that_run_at_once";
    let course = Course::Shares(Way::Up, link("delay=1ms,rate=40mbit,queue=100ms"), 2);
    let Some(samples) = measured(test, course) else {
        return;
    };
    let of = |quantity| samples.iter().map(move |sample| sample.values[&quantity]);
    let together: f64 = of(Quantity::Rate).sum();
    assert!((10e6..42e6).contains(&together), "{samples:?}");
    let product: f64 = of(Quantity::Share).product();
    assert!((product - 1.0).abs() < 1e-9, "{samples:?}");
    assert!(samples.iter().all(|sample| sample.flows_bps.len() == 2));
}

#[test]
fn connections_and_round_trips_need_no_link() {
    let test = "connections_and_round_trips_need_no_link";
    for (course, quantity) in [
        (Course::Connects(10), Quantity::Connects),
        (Course::RoundTrips, Quantity::RoundTripP50),
        (Course::Clean(Way::Down, 2), Quantity::Rate),
    ] {
        let Some(samples) = measured(test, course) else {
            return;
        };
        assert!(samples[0].values[&quantity] > 0.0, "{samples:?}");
        let failures = samples[0].values.get(&Quantity::Failures);
        assert!(failures.is_none_or(|failures| *failures == 0.0));
    }
}
