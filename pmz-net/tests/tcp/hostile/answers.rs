//! What nonsense is answered.

use super::{THEIRS, Victim};
use crate::wire::{ACK, RST, SYN, Segment};

#[test]
fn nothing_asked_for_by_nonsense_is_answered_more_than_ten_times_a_second() {
    type Make = fn(&Victim, u32) -> Segment;
    let kinds: [(&str, Make); 6] = [
        ("resets", |v, n| Segment {
            flags: RST,
            seq: THEIRS.wrapping_add(2 + n),
            ..v.acknowledgement(1)
        }),
        ("SYNs", |v, n| Segment {
            flags: SYN,
            seq: THEIRS.wrapping_add(n * 77),
            ..v.acknowledgement(1)
        }),
        ("SYNs that acknowledge", |v, n| Segment {
            flags: SYN | ACK,
            seq: THEIRS.wrapping_add(n * 77),
            ..v.acknowledgement(1)
        }),
        ("acknowledgements of the future", |v, n| {
            v.acknowledgement(2 + n)
        }),
        ("data beyond the window", |v, n| Segment {
            seq: THEIRS.wrapping_add((8 << 20) + n),
            payload: vec![0; 10],
            ..v.acknowledgement(1)
        }),
        ("old keep-alives", |v, n| Segment {
            seq: THEIRS.wrapping_sub(n),
            ..v.acknowledgement(1)
        }),
    ];
    for (name, make) in kinds {
        let mut victim = Victim::new(|_, _| {});
        victim.sent.clear();
        for n in 0..2000 {
            victim.feed(make(&victim, n));
        }
        let answers = victim.sent.len();
        assert!(answers <= 10, "{name}: {answers} answers");
        victim.pass(1001);
        for n in 0..2000 {
            victim.feed(make(&victim, n));
        }
        let answers = victim.sent.len();
        assert!(answers <= 20, "{name}: {answers} answers");
        assert!(!victim.connection.is_reset(), "{name}");
        victim.goes_on();
    }
}

#[test]
fn whatever_comes_in_no_more_bytes_go_out_to_a_peer_that_asks_for_nothing() {
    let mut victim = Victim::new(|_, _| {});
    let (bytes_in, bytes_out) = (victim.bytes_in, victim.bytes_out);
    for n in 0..5000_u32 {
        let start = THEIRS.wrapping_add(1 + n.wrapping_mul(7919) % 60_000);
        victim.feed(Segment {
            seq: start,
            payload: vec![1; 60],
            ..victim.acknowledgement(1)
        });
    }
    let (bytes_in, bytes_out) = (victim.bytes_in - bytes_in, victim.bytes_out - bytes_out);
    assert!(
        bytes_out <= bytes_in,
        "{bytes_out} bytes out for {bytes_in}"
    );
}

#[test]
fn options_that_are_garbage_end_in_an_error_and_not_in_a_loop() {
    let mut victim = Victim::new(|_, _| {});
    for kind in 0..=255 {
        for len in [0, 1, 2, 3, 4, 10, 39, 40, 41, 255] {
            let mut raw_options = vec![kind, len];
            raw_options.resize(40, kind);
            victim.feed(Segment {
                raw_options,
                ..victim.acknowledgement(1)
            });
        }
    }
    victim.goes_on();
}
