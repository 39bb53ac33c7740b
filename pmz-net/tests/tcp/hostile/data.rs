//! Data that lies all over the window.

use std::time::Duration;

use pmz_net::tcp::Path;

use super::{OURS, THEIRS, Victim};
use crate::wire::{ACK, FIN, Segment};

#[test]
fn overlapping_segments_give_each_byte_once() {
    let mut victim = Victim::new(|_, _| {});
    let total = 50_000_u32;
    let mut place = 0_u32;
    for n in 0..4000_u32 {
        place = (place + 7919) % total;
        let len = (n % 50 * 40 + 1).min(total - place);
        victim.feed(Segment {
            seq: THEIRS.wrapping_add(1 + place),
            payload: vec![n as u8; len as usize],
            ..victim.acknowledgement(1)
        });
    }
    victim.feed(Segment {
        flags: ACK | FIN,
        payload: vec![0; total as usize],
        ..victim.acknowledgement(1)
    });
    assert_eq!(victim.got, u64::from(total));
    assert!(victim.connection.is_receive_finished());
    assert_eq!(victim.stock.used(), 0);
}

#[test]
fn single_bytes_all_over_the_window_hold_no_more_memory_than_the_window() {
    let mut victim = Victim::new(|_, _| {});
    for n in 0..100_000_u32 {
        victim.feed(Segment {
            seq: THEIRS.wrapping_add(2 + n.wrapping_mul(7919) % 130_000),
            payload: vec![1],
            ..victim.acknowledgement(1)
        });
    }
    let used = victim.stock.used();
    assert!(used <= 4 * (64 << 10), "{used} bytes");
    victim.goes_on();
}

#[test]
fn several_fins_are_one_and_nothing_comes_behind_it() {
    let mut victim = Victim::new(|_, _| {});
    let with_fin = |victim: &Victim, at: u32, len: usize| Segment {
        flags: ACK | FIN,
        seq: THEIRS.wrapping_add(1 + at),
        payload: vec![0; len],
        ..victim.acknowledgement(1)
    };
    victim.feed(with_fin(&victim, 2000, 0));
    victim.feed(with_fin(&victim, 1000, 0));
    victim.feed(with_fin(&victim, 5000, 100));
    victim.feed(Segment {
        payload: vec![0; 9000],
        ..victim.acknowledgement(1)
    });
    assert_eq!(victim.got, 2000);
    assert!(victim.connection.is_receive_finished());
    victim.goes_on();
}

#[test]
fn the_sequence_numbers_turn_around_in_both_directions() {
    const CHUNK: usize = 60_000;
    let mut victim = Victim::new(|setup, _| {
        setup.path = Path::Stream;
        setup.max_buffer = 1 << 20;
    });
    let (mut there, mut back) = (0_u64, 0_u64);
    let mut packet = Segment {
        payload: vec![9; CHUNK],
        ..victim.acknowledgement(1)
    }
    .packet(victim.addresses[1], victim.addresses[0]);
    while there < (1 << 32) + (1 << 20) {
        packet[24..28].copy_from_slice(&THEIRS.wrapping_add(1 + there as u32).to_be_bytes());
        packet[28..32].copy_from_slice(&OURS.wrapping_add(1 + back as u32).to_be_bytes());
        let now = victim.now;
        let mut got = 0;
        let taken = victim
            .connection
            .handle_segment(now, &packet, &mut |bytes| {
                got += bytes.len();
                bytes.len()
            });
        assert!(taken.is_ok() && got == CHUNK, "{got} at {there}");
        there += CHUNK as u64;
        let n = victim.connection.room().len().min(CHUNK);
        victim.connection.commit(n);
        while let Some(written) = victim.connection.poll_transmit(now, &mut victim.out) {
            back += written.payload_len as u64;
        }
        victim.now += Duration::from_millis(1);
    }
    assert!(back > 1 << 32, "{back}");
}
