//! What the programs cost: `cargo test -p pmz-net --test steer speed -- --ignored --nocapture --test-threads 1`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pmz_net::steer::{PrefixKind, Steering, Target, TargetChange, TrialPacket};

use crate::common::skip::need_root;
use crate::packets::{ACK, tcp};
use crate::scene::{DEVICE, Side, Wire};
use crate::trial::{Bench, ip, steered};

const REAL: &str = "10.96.0.10";
const USED: &str = "240.0.0.7";
const TIME: Duration = Duration::from_millis(700);
const ROUNDS: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Programs {
    None,
    Steering,
    Remapping,
}

fn steering(machine: &Side, programs: Programs) -> Option<Steering> {
    if programs == Programs::None {
        return None;
    }
    let mut steering = machine.run(|| Steering::attach(DEVICE)).unwrap();
    let wanted = steered(&[
        ("10.96.0.0/12", PrefixKind::Services),
        ("240.0.0.0/16", PrefixKind::Services),
    ]);
    steering.set_prefixes(&wanted).unwrap();
    steering.set_complete(true).unwrap();
    let remapped = programs == Programs::Remapping;
    let target = Target {
        address: ip(if remapped { USED } else { REAL }),
        real: remapped.then(|| ip(REAL)),
        reject: false,
        service: true,
    };
    steering.apply(&[TargetChange::Put(target)]).unwrap();
    Some(steering)
}

/// Gbit/s of one TCP flow from the machine to the cluster, and the other way.
fn one_flow(programs: Programs, up: bool) -> f64 {
    let machine = Side::machine();
    let cluster = Side::new(&[REAL], &["10.8.0.0/24"]);
    let _steering = steering(&machine, programs);
    let _wire = Wire::between(&machine, &cluster, false, Some("192.0.2.1"));
    let address = |text| SocketAddr::new(ip(text), 80);
    let listener = cluster.run(|| TcpListener::bind(address(REAL))).unwrap();
    let used = if programs == Programs::Remapping {
        USED
    } else {
        REAL
    };
    let near = machine.run(|| TcpStream::connect(address(used))).unwrap();
    let (far, _) = listener.accept().unwrap();
    let (mut sender, mut receiver) = if up { (near, far) } else { (far, near) };
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0_u64;
        let begun = Instant::now();
        while let Ok(length @ 1..) = receiver.read(&mut buffer) {
            total += length as u64;
        }
        total as f64 * 8.0 / begun.elapsed().as_secs_f64() / 1e9
    });
    let data = vec![7; 1 << 18];
    let begun = Instant::now();
    while begun.elapsed() < TIME {
        sender.write_all(&data).unwrap();
    }
    drop(sender);
    reader.join().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn one_tcp_flow_between_two_tuns() {
    need_root!();
    let kinds = [Programs::None, Programs::Steering, Programs::Remapping];
    for up in [true, false] {
        let mut all = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            for (kind, values) in kinds.iter().zip(&mut all) {
                values.push(one_flow(*kind, up));
            }
        }
        for (kind, values) in kinds.iter().zip(all) {
            println!(
                "{} {kind:?}: {:.2} Gbit/s",
                if up { "up" } else { "down" },
                median(values)
            );
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn one_packet() {
    need_root!();
    let mut bench = Bench::cluster();
    bench.put(REAL, None, false);
    let out = tcp("10.8.0.2", REAL, ACK, &[7; 1000]);
    let back = tcp(REAL, "10.8.0.2", ACK, &[7; 1000]);
    let packet = |bytes| TrialPacket { bytes, gso: None };
    let steer = bench.trial().steer(packet(&out), 1_000_000).unwrap();
    let returning = bench.trial().returning(packet(&back), 1_000_000).unwrap();
    println!(
        "steer {:?}, return {:?}",
        steer.duration, returning.duration
    );
}
