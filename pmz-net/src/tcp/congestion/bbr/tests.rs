//! BBR on a simulated bottleneck.

mod unit;

use super::super::testing::{Network, Path, Policer, SEGMENT, jain};
use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// 200 Mbit/s, 40 ms, a queue of as much.
fn usual_path() -> Path {
    Path::new(200, ms(40), ms(40))
}

fn one_flow(path: Path) -> Network<Bbr> {
    let mut network = Network::new(path, 1);
    network.add(Bbr::new(SEGMENT, 7));
    network
}

#[test]
fn a_path_is_filled_whatever_is_lost_by_chance() {
    for (megabits, round_trip, queue) in [(200, 40, 40), (20, 200, 200), (1_000, 1, 5)] {
        for loss in [0.0, 0.001, 0.01, 0.02] {
            let mut path = Path::new(megabits, ms(round_trip), ms(queue));
            path.loss = loss;
            let mut network = one_flow(path);
            network.run(s(3));
            let used = network.utilisation(s(9));
            eprintln!("{megabits} Mbit/s, {round_trip} ms, loss {loss}: {used:.3}");
            assert!(
                used > 0.9,
                "{megabits} Mbit/s, {round_trip} ms, loss {loss}: {used}"
            );
            assert_eq!(network.flows[0].timeouts, 0);
        }
    }
}

#[test]
fn one_flow_leaves_the_queue_short() {
    let path = usual_path();
    let product = path.product();
    let mut network = one_flow(path);
    network.run(s(2));
    network.delivered_in(s(20));
    let (average, largest) = network.queue();
    eprintln!(
        "queue: average {:.2}, largest {:.2} of the product",
        average as f64 / product as f64,
        largest as f64 / product as f64
    );
    assert!(average < product / 5, "{average}");
    assert!(largest < product * 11 / 10, "{largest}");
    assert_eq!(network.overflows(), 0);
}

#[test]
fn eight_flows_share_a_bottleneck() {
    let path = usual_path();
    let product = path.product();
    let mut network = Network::new(path, 1);
    for seed in 0..8 {
        network.add(Bbr::new(SEGMENT, seed));
        network.run(ms(100));
    }
    network.run(s(15));
    let shares = network.delivered_in(s(40));
    let used = shares.iter().sum::<u64>() as f64 / (25e6 * 40.0);
    eprintln!(
        "Jain {:.3}, used {used:.3}, queue {:?} of {product}",
        jain(&shares),
        network.queue()
    );
    assert!(jain(&shares) > 0.9, "{shares:?}");
    assert!(used > 0.9, "{used}");
}

#[test]
fn the_rate_behind_a_policer_is_found_and_kept_to() {
    for bucket in [64 << 10, 250 << 10, 1 << 20] {
        let mut path = usual_path();
        path.policer = Some(Policer {
            rate: 2_500_000,
            bucket,
        });
        let mut network = one_flow(path);
        network.run(s(3));
        let lost = network.flows[0].lost;
        let got = network.delivered_in(s(20))[0];
        let flow = &network.flows[0];
        let lost = (flow.lost - lost) as f64 / got as f64;
        let used = got as f64 / 2_500_000.0 / 20.0;
        eprintln!("bucket {bucket}: {used:.3}, lost {lost:.3}");
        assert!(used > 0.9, "bucket {bucket}: {used}");
        assert!(lost < 0.1, "bucket {bucket}: {lost}");
    }
}

#[test]
fn the_shortest_round_trip_follows_the_path_down_at_once_and_up_after_its_window() {
    let mut network = one_flow(usual_path());
    network.run(s(2));
    let shortest = |network: &Network<Bbr>| network.flows[0].controller.shortest_rtt.get().unwrap();
    assert!(shortest(&network) < ms(42), "{:?}", shortest(&network));
    network.path().round_trip = ms(20);
    network.run(ms(200));
    assert!(shortest(&network) < ms(22), "{:?}", shortest(&network));
    network.path().round_trip = ms(60);
    network.run(s(12));
    assert!(
        (ms(60)..ms(63)).contains(&shortest(&network)),
        "{:?}",
        shortest(&network)
    );
    let used = network.utilisation(s(5));
    assert!(used > 0.9, "{used}");
}

#[test]
fn the_estimate_follows_the_path_up_and_down() {
    let mut network = one_flow(usual_path());
    network.run(s(3));
    for (megabits, settles) in [(50, s(3)), (200, s(4)), (20, s(4))] {
        network.path().rate = megabits * 125_000;
        network.run(settles);
        let used = network.utilisation(s(4));
        eprintln!("{megabits} Mbit/s: {used:.3}");
        assert!(used > 0.85, "{megabits} Mbit/s: {used}");
    }
}

#[test]
fn what_the_application_does_not_send_does_not_lower_the_estimate() {
    let mut network = one_flow(usual_path());
    network.run(s(2));
    let estimate = network.flows[0].controller.estimate();
    network.flows[0].available = Some(0);
    for _ in 0..100 {
        network.run(ms(50));
        network.write(0, 20 * SEGMENT);
    }
    assert_eq!(network.flows[0].controller.estimate(), estimate);
    // 3 Mbit/s for 5 s, and at once all of it again.
    network.flows[0].available = None;
    network.wake();
    let used = network.utilisation(ms(500));
    assert!(used > 0.8, "{used}");
}

#[test]
fn acknowledgements_in_batches_do_not_stop_the_flow() {
    for batch in [10, 30, 50] {
        let mut path = usual_path();
        path.batch = Some(ms(batch));
        let mut network = one_flow(path);
        network.run(s(3));
        let used = network.utilisation(s(7));
        eprintln!("batches of {batch} ms: {used:.3}");
        assert!(used > 0.9, "batches of {batch} ms: {used}");
    }
}

#[test]
fn after_an_outage_the_rate_is_back_within_a_second() {
    let mut network = one_flow(usual_path());
    network.run(s(3));
    network.path().loss = 1.0;
    network.run(s(3));
    network.path().loss = 0.0;
    assert!(network.flows[0].timeouts > 0);
    // The next retransmission may be as far away as the outage lasted.
    let mut waited = Duration::ZERO;
    let before = network.flows[0].delivered;
    while network.flows[0].delivered == before {
        network.run(ms(10));
        waited += ms(10);
        assert!(waited < s(5));
    }
    network.run(s(1));
    let used = network.utilisation(s(2));
    assert!(used > 0.9, "{used}");
}

#[test]
fn bursts_of_loss_do_not_stop_the_flow() {
    let mut network = one_flow(usual_path());
    network.run(s(3));
    let mut delivered = 0;
    for _ in 0..10 {
        network.path().loss = 1.0;
        // 50 packets at 200 Mbit/s.
        network.run(Duration::from_micros(2_900));
        network.path().loss = 0.0;
        delivered += network.delivered_in(ms(997))[0];
    }
    let used = delivered as f64 / 25e6 / 9.97;
    eprintln!("with bursts of 50 lost: {used:.3}");
    assert!(used > 0.9, "{used}");
}

#[test]
fn marks_shorten_the_queue_and_cost_no_throughput() {
    let run = |marks: bool| {
        let mut path = usual_path();
        let product = path.product();
        path.mark_above = marks.then_some(product / 10);
        let mut network = Network::new(path, 1);
        for seed in 0..4 {
            network.add(Bbr::new(SEGMENT, seed));
            network.run(ms(100));
        }
        network.run(s(12));
        let used = network.utilisation(s(30));
        let queue = network.queue().0 as f64 / product as f64;
        eprintln!("marks {marks}: used {used:.3}, queue {queue:.2}");
        (used, queue)
    };
    let (used, queue) = run(true);
    let (used_without, queue_without) = run(false);
    assert!(queue < queue_without / 2.0, "{queue} and {queue_without}");
    assert!(used > used_without - 0.03, "{used} and {used_without}");
}
