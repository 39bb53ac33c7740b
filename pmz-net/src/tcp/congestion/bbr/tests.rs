use super::super::testing::{Network, Path, Policer, SEGMENT, jain};
use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn one_flow(path: Path) -> Network<Bbr> {
    let mut network = Network::new(path, 1);
    network.add(Bbr::new(SEGMENT, 7));
    network
}

#[test]
fn dbg() {
    for (mb, rt, q) in [(200, 40, 40), (20, 200, 200), (1_000, 1, 5)] {
        for loss in [0.0, 0.001, 0.01, 0.02] {
            let mut path = Path::new(mb, ms(rt), ms(q));
            path.loss = loss;
            let product = path.product();
            let mut network = one_flow(path);
            network.run(s(2));
            let first = network.flows[0].delivered;
            let lost = network.flows[0].lost;
            let used = network.utilisation(s(9));
            let bbr = &network.flows[0].controller;
            println!(
                "{mb} {rt} {q} {loss}: first {:.2} lost {} used {used:.3} queue {:.2} {:.2} {:?} timeouts {}",
                first as f64 / (mb * 250_000) as f64,
                lost / SEGMENT,
                network.queue().0 as f64 / product as f64,
                network.queue().1 as f64 / product as f64,
                bbr.mode,
                network.flows[0].timeouts
            );
        }
    }
    for (name, bucket) in [("64k", 64 << 10), ("250k", 250 << 10), ("1M", 1 << 20)] {
        let mut path = Path::new(200, ms(40), ms(40));
        path.policer = Some(Policer {
            rate: 2_500_000,
            bucket,
        });
        let mut network = one_flow(path);
        network.run(s(2));
        let lost = network.flows[0].lost;
        let got = network.delivered_in(s(18))[0];
        let flow = &network.flows[0];
        println!(
            "policer {name}: {:.3} lost {} then {:.3} rate {:?}",
            got as f64 / 2_500_000.0 / 18.0,
            lost / SEGMENT,
            (flow.lost - lost) as f64 / got as f64,
            flow.controller.policer.rate()
        );
    }
    {
        let mut path = Path::new(200, ms(40), ms(40));
        path.queue = 10 * SEGMENT;
        let mut network = one_flow(path);
        network.run(s(2));
        let used = network.utilisation(s(9));
        println!(
            "10 packets: {used:.3} lost {}",
            network.flows[0].lost as f64 / network.flows[0].delivered as f64
        );
    }
}

#[test]
fn dbg2() {
    let mut path = Path::new(200, ms(40), ms(40));
    path.loss = 0.02;
    let mut network = one_flow(path);
    for i in 0..60 {
        network.run(ms(20));
        let f = &network.flows[0];
        let b = &f.controller;
        println!("{} ms {:?} {:?} bw {:.1} Mbit pace {:.1} win {} full {:?} round {} rtt {:?}", i * 20, b.mode, f.phase, b.bandwidth.max() as f64 / 125e3, b.pacing_rate as f64 / 125e3, b.window / SEGMENT, b.full_pipe, b.rounds.count, b.shortest_rtt.get());
    }
}
