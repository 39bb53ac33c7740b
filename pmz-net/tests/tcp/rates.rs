//! How much of a path a connection uses.

use pmz_net::tcp::Congestion;

use crate::network::{AppSetup, EndSetup, LinkSetup, Outcome, Scenario, run};

const MTU: u16 = 1500;

/// A download of so many bytes over a path of this rate (bits per second) and round trip, before which this
/// much time's worth of packets may queue.
struct Download {
    congestion: Congestion,
    rate: u64,
    round_trip_ms: u64,
    queue_ms: u64,
    /// Of a thousand packets.
    loss: u32,
    jitter_us: u64,
    bytes: u64,
}

impl Download {
    /// The share of the path's rate that it had, and how it went.
    fn run(&self, seed: u64) -> (f64, Outcome) {
        let bytes_per_second = self.rate / 8;
        let queue = bytes_per_second * self.queue_ms / 1000 / u64::from(MTU);
        let link = LinkSetup {
            loss: self.loss,
            jitter_us: self.jitter_us,
            delay_us: 500 * self.round_trip_ms,
            queue: 10_000,
            ..LinkSetup::default()
        };
        let down = LinkSetup {
            rate: bytes_per_second,
            queue: queue as usize,
            ..link.clone()
        };
        let scenario = Scenario {
            seed,
            v6: false,
            stream: false,
            ecn: false,
            no_stamps: false,
            no_sack: false,
            no_scaling: false,
            links: [link, down],
            ends: [self.end(0), self.end(self.bytes)],
            coalesce: false,
            limit_ms: 3_600_000,
        };
        let outcome = run(&scenario).unwrap();
        let ideal = self.bytes as f64 / bytes_per_second as f64;
        (ideal / outcome.read_at.as_secs_f64(), outcome)
    }

    fn end(&self, total: u64) -> EndSetup {
        EndSetup {
            app: AppSetup {
                total,
                write: 64 << 10,
                write_pause_us: 0,
                gate: None,
                linger_us: 0,
                read: 1 << 20,
                read_pause_us: 0,
                read_stop: None,
                direct: true,
                abort_at: None,
            },
            mtu: MTU,
            new_mtu: None,
            max_buffer: 8 << 20,
            memory: 64 << 20,
            congestion: self.congestion,
            keep_alive_s: 3600,
        }
    }
}

/// 20 Mbit/s, 200 ms there and back, and a queue of as much.
fn long_path(congestion: Congestion) -> Download {
    Download {
        congestion,
        rate: 20_000_000,
        round_trip_ms: 200,
        queue_ms: 200,
        loss: 0,
        jitter_us: 0,
        bytes: 20_000_000,
    }
}

#[test]
fn a_long_path_is_used_from_its_second_second_on() {
    for congestion in [Congestion::Bbr, Congestion::Cubic] {
        let (share, outcome) = long_path(congestion).run(1);
        assert!(share > 0.75, "{congestion}: {share} {outcome:?}");
        assert_eq!(outcome.counters[1].spurious, 0, "{congestion}");
    }
}

#[test]
fn random_loss_is_repaired_and_never_taken_for_spurious() {
    for seed in 1..4 {
        let download = Download {
            loss: 10,
            ..long_path(Congestion::Bbr)
        };
        let (share, outcome) = download.run(seed);
        assert!(share > 0.65, "{share} {outcome:?}");
        let counters = outcome.counters[1];
        assert_eq!(
            (counters.spurious, counters.timeouts),
            (0, 0),
            "{outcome:?}"
        );
        // What was lost by chance, and what the first seconds made the queue overflow.
        assert!(
            counters.resent < (download.bytes / 1448) / 10,
            "{outcome:?}"
        );
    }
}

#[test]
fn packets_that_overtake_each_other_are_rarely_sent_again() {
    let download = Download {
        jitter_us: 10_000,
        ..long_path(Congestion::Bbr)
    };
    let (share, outcome) = download.run(1);
    assert!(share > 0.7, "{share} {outcome:?}");
    let counters = outcome.counters[1];
    assert!(
        counters.resent < (download.bytes / 1448) / 15,
        "{outcome:?}"
    );
}

#[test]
fn loss_and_disorder_both_ways_cost_little() {
    let download = Download {
        loss: 20,
        jitter_us: 10_000,
        bytes: 30_000_000,
        ..long_path(Congestion::Bbr)
    };
    let (share, outcome) = download.run(1);
    assert!(share > 0.7, "{share} {outcome:?}");
    let counters = outcome.counters[1];
    assert_eq!(
        (counters.spurious, counters.timeouts),
        (0, 0),
        "{outcome:?}"
    );
    assert!(counters.resent < download.bytes / 1448 / 15, "{outcome:?}");
}
