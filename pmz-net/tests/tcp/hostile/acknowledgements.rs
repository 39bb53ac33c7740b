//! Acknowledgements that are lies.

use std::time::Instant;

use pmz_net::tcp::{Congestion, Path};

use super::{LONGEST, OURS, SIZE, Victim};
use crate::wire::Segment;

#[test]
fn blocks_of_what_was_never_sent_or_makes_no_sense_change_nothing() {
    let mut victim = Victim::new(|_, _| {});
    victim.write(100_000);
    victim.pass(100);
    let sent = victim.sent_up_to();
    let resent = victim.connection.take_counters().resent;
    let (una, end) = (OURS.wrapping_add(1), OURS.wrapping_add(sent));
    let far = end.wrapping_add(1 << 30);
    for block in [
        (end, una),
        (end, far),
        (una, far),
        (end.wrapping_add(1), end.wrapping_add(1000)),
        (una.wrapping_sub(1 << 30), una),
        (una.wrapping_sub(5000), end.wrapping_add(5000)),
        (una, una),
        (una, una.wrapping_add(1 << 31)),
        (una.wrapping_add(1 << 31), una),
        (0, u32::MAX),
    ] {
        for _ in 0..20 {
            victim.feed(Segment {
                sack: vec![block],
                ..victim.acknowledgement(1)
            });
        }
    }
    // A probe of the tail or two.
    assert!(victim.connection.take_counters().resent <= resent + 2);
    victim.goes_on();
}

#[test]
fn blocks_of_everything_but_the_first_byte_lose_only_the_first_segment() {
    let mut victim = Victim::new(|_, _| {});
    victim.write(100_000);
    victim.pass(60);
    let end = victim.next;
    for _ in 0..100 {
        victim.feed(Segment {
            sack: vec![(OURS.wrapping_add(2), end)],
            ..victim.acknowledgement(1)
        });
    }
    assert!(victim.connection.take_counters().resent <= 2);
    victim.goes_on();
}

#[test]
fn thousands_of_holes_cost_neither_time_nor_a_flood() {
    for congestion in [Congestion::Bbr, Congestion::Cubic] {
        let mut victim = Victim::new(|setup, syn| {
            setup.congestion = congestion;
            setup.mtu = 100;
            syn.mss = Some(1);
        });
        let told = |victim: &Victim, number: u32| Segment {
            window: u16::MAX,
            ..victim.acknowledgement(number)
        };
        // The window grows to thousands of segments.
        while victim.sent_up_to() < 3_000_000 {
            victim.write(1 << 20);
            victim.pass(10);
            victim.feed(told(&victim, victim.sent_up_to()));
            victim.sent.clear();
        }
        let first = victim.sent_up_to();
        victim.write(1 << 20);
        victim.pass(9);
        let size = victim.connection.segment_size() as u32;
        let segments = (victim.sent_up_to() - first) / size;
        assert!(segments > 1000, "{congestion}: {segments} segments");
        // Every second one has arrived at once, they say, in whatever order.
        let (bytes_in, bytes_out) = (victim.bytes_in, victim.bytes_out);
        for n in 0..segments / 2 {
            let place = n.wrapping_mul(7919) % (segments / 2);
            let start = OURS.wrapping_add(first + (2 * place + 1) * size);
            victim.feed(Segment {
                sack: vec![(start, start.wrapping_add(size))],
                ..told(&victim, first)
            });
        }
        let (bytes_in, bytes_out) = (victim.bytes_in - bytes_in, victim.bytes_out - bytes_out);
        assert!(
            bytes_out < 10 * bytes_in,
            "{congestion}: {bytes_out} for {bytes_in}"
        );
        victim.pass(3000);
        victim.goes_on();
    }
}

#[test]
fn a_timeout_that_is_taken_back_again_and_again_costs_no_time() {
    let mut victim = Victim::new(|setup, syn| {
        setup.path = Path::Stream;
        setup.mtu = 100;
        syn.mss = Some(1);
        syn.timestamp = Some(5);
    });
    let ack = |victim: &Victim, number: u32, echo: u32| Segment {
        stamps: Some((7, echo)),
        window: u16::MAX,
        ..victim.acknowledgement(number)
    };
    let first = victim.connection.poll_timeout(victim.now);
    assert!(first.is_some());
    let mut stamp = 0;
    for n in 0..30 {
        for _ in 0..20 {
            victim.write(1 << 18);
        }
        stamp = victim
            .sent
            .last()
            .and_then(|s| s.stamps)
            .map_or(stamp, |s| s.0);
        victim.pass(1000);
        // Echoes the first sending of what was sent again since.
        let before = Instant::now();
        victim.feed(ack(&victim, 1 + 10 * n + 10, stamp.wrapping_sub(5000)));
        assert!(before.elapsed() < LONGEST, "{:?}", before.elapsed());
        victim.sent.clear();
    }
    let spurious = victim.connection.take_counters().spurious;
    assert!(spurious > 0, "{spurious}");
}

#[test]
fn acknowledgements_in_pieces_open_the_window_no_further_than_one_for_all() {
    let in_flight = |pieces: u32| {
        let mut victim = Victim::new(|_, _| {});
        victim.write(200_000);
        victim.pass(60);
        let sent = victim.sent_up_to() - 1;
        assert_eq!(sent, 10 * SIZE);
        for piece in 1..=pieces {
            victim.feed(victim.acknowledgement(1 + sent * piece / pieces));
        }
        victim.pass(60);
        victim.sent_up_to() - 1 - sent
    };
    let (whole, pieces) = (in_flight(1), in_flight(1000));
    assert!(pieces <= whole + 2 * SIZE, "{pieces} and {whole}");
}

#[test]
fn acknowledgements_of_what_has_not_left_are_no_acknowledgements() {
    let mut victim = Victim::new(|_, _| {});
    victim.write(200_000);
    victim.pass(60);
    let sent = victim.sent_up_to();
    victim.sent.clear();
    for ahead in 1..1000 {
        victim.feed(victim.acknowledgement(sent + ahead * 100));
    }
    assert_eq!(victim.sent_up_to(), sent);
    assert!(victim.sent.len() <= 10, "{} answers", victim.sent.len());
    victim.goes_on();
}

#[test]
fn optimistic_acknowledgements_never_have_more_in_flight_than_the_window() {
    let mut victim = Victim::new(|_, _| {});
    for _ in 0..2000 {
        victim.write(1 << 20);
        // All that was sent is acknowledged at once, whatever has arrived.
        let number = victim.sent_up_to();
        victim.feed(Segment {
            window: 20,
            ..victim.acknowledgement(number)
        });
        let after = victim.sent_up_to() - number;
        assert!(after <= 20 << 8, "{after} in flight");
        victim.pass(1);
        victim.sent.clear();
    }
}

#[test]
fn a_window_of_one_byte_gets_single_bytes_and_no_flood() {
    let mut victim = Victim::new(|_, syn| {
        syn.window_len = 1;
        syn.window_scale = None;
    });
    victim.feed(Segment {
        window: 1,
        ..victim.acknowledgement(1)
    });
    victim.write(1000);
    for _ in 0..50 {
        victim.pass(40);
        let number = victim.sent_up_to();
        victim.feed(Segment {
            window: 1,
            ..victim.acknowledgement(number)
        });
    }
    let sent = victim.sent_up_to() - 1;
    assert!((40..=52).contains(&sent), "{sent} bytes");
}
