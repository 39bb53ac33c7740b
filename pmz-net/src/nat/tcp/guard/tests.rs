use smoltcp::wire::TcpSeqNumber;

use super::*;

const ISN: u32 = u32::MAX - 2;
const OURS: u32 = 5000;

struct Sample {
    seq: u32,
    ack: u32,
    flags: &'static str,
    window: u16,
}

fn header(sample: &Sample) -> [u8; 20] {
    let mut bytes = [0; 20];
    let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
    tcp.set_header_len(20);
    tcp.set_seq_number(TcpSeqNumber(sample.seq.cast_signed()));
    tcp.set_ack_number(TcpSeqNumber(sample.ack.cast_signed()));
    tcp.set_window_len(sample.window);
    tcp.set_syn(sample.flags.contains('S'));
    tcp.set_ack(sample.flags.contains('A'));
    tcp.set_fin(sample.flags.contains('F'));
    tcp.set_rst(sample.flags.contains('R'));
    bytes
}

fn sent(guard: &mut Guard, seq: u32, flags: &'static str, window: u16, payload: usize) {
    let ack = guard.rcv_nxt;
    let bytes = header(&Sample {
        seq,
        ack,
        flags,
        window,
    });
    guard.sent(&TcpPacket::new_unchecked(&bytes), payload);
}

fn admit(
    guard: &Guard,
    seq: u32,
    ack: u32,
    flags: &'static str,
    payload: usize,
) -> Result<Admission, BadSegment> {
    let bytes = header(&Sample {
        seq,
        ack,
        flags,
        window: 100,
    });
    guard.admit(&TcpPacket::new_unchecked(&bytes[..]), payload)
}

/// Handshake done, a window of 1000 << 2 promised, 100 bytes sent.
fn open() -> (Guard, u32) {
    let mut guard = Guard::new(ISN, 2);
    sent(&mut guard, OURS, "SA", 4000, 0);
    guard.acknowledged(OURS + 1);
    sent(&mut guard, OURS + 1, "A", 1000, 100);
    (guard, ISN.wrapping_add(1))
}

fn feed(trim: usize, ack: u32) -> Result<Admission, BadSegment> {
    Ok(Admission::Feed { trim, ack })
}

#[test]
fn nothing_is_taken_before_this_end_has_spoken() {
    let guard = Guard::new(ISN, 2);
    let seq = ISN.wrapping_add(1);
    assert_eq!(admit(&guard, seq, 0, "A", 0), Err(BadSegment));
    assert_eq!(admit(&guard, seq, 0, "R", 0), Err(BadSegment));
}

#[test]
fn the_syn_acks_window_is_not_scaled() {
    let mut guard = Guard::new(ISN, 2);
    sent(&mut guard, OURS, "SA", 1000, 0);
    let seq = ISN.wrapping_add(1);
    assert_eq!(admit(&guard, seq, OURS + 1, "A", 1000), feed(0, OURS + 1));
    assert_eq!(admit(&guard, seq, OURS + 1, "A", 1300), feed(300, OURS + 1));
    let beyond = seq.wrapping_add(1000);
    assert_eq!(admit(&guard, beyond, OURS + 1, "A", 1), Err(BadSegment));
}

#[test]
fn what_is_beyond_the_window_is_cut_off() {
    let (guard, seq) = open();
    assert_eq!(admit(&guard, seq, OURS + 1, "A", 4000), feed(0, OURS + 1));
    assert_eq!(admit(&guard, seq, OURS + 1, "AF", 4001), feed(1, OURS + 1));
    // A probe of a closed window goes through whole: it wants an answer.
    let edge = seq.wrapping_add(4000);
    assert_eq!(admit(&guard, edge, OURS + 1, "A", 1), feed(0, OURS + 1));
}

#[test]
fn an_acknowledgement_of_what_was_not_sent_is_refused() {
    let (guard, seq) = open();
    assert_eq!(admit(&guard, seq, OURS + 101, "A", 0), feed(0, OURS + 101));
    assert_eq!(admit(&guard, seq, OURS + 102, "A", 0), Err(BadSegment));
    let far = OURS.wrapping_sub(1 << 31);
    assert_eq!(admit(&guard, seq, far, "A", 10), Err(BadSegment));
}

#[test]
fn an_old_acknowledgement_does_not_cost_the_data() {
    let (mut guard, seq) = open();
    guard.acknowledged(OURS + 101);
    assert!(guard.all_acknowledged());
    assert_eq!(admit(&guard, seq, OURS + 50, "A", 10), feed(0, OURS + 101));
    assert_eq!(admit(&guard, seq, OURS + 50, "A", 0), Ok(Admission::Ignore));
}

#[test]
fn sequence_numbers_from_nowhere_are_refused() {
    let (guard, seq) = open();
    for far in [1 << 31, (1 << 30) + 1, u32::MAX / 2 + 5] {
        let seq = seq.wrapping_add(far);
        assert_eq!(admit(&guard, seq, OURS + 1, "A", 0), Err(BadSegment));
        assert_eq!(admit(&guard, seq, OURS + 1, "R", 0), Err(BadSegment));
    }
}

#[test]
fn a_second_syn_and_a_segment_without_acknowledgement_are_refused() {
    let (guard, seq) = open();
    assert_eq!(admit(&guard, seq, OURS + 1, "S", 0), Err(BadSegment));
    assert_eq!(admit(&guard, seq, OURS + 1, "SA", 0), Err(BadSegment));
    assert_eq!(admit(&guard, seq, OURS + 1, "F", 0), Err(BadSegment));
    assert_eq!(admit(&guard, seq, OURS + 1, "R", 5), Err(BadSegment));
}

#[test]
fn nothing_is_taken_behind_the_clients_fin() {
    let (mut guard, seq) = open();
    guard.finished(seq.wrapping_add(11));
    assert_eq!(admit(&guard, seq, OURS + 1, "AF", 10), feed(0, OURS + 1));
    let behind = seq.wrapping_add(11);
    assert_eq!(admit(&guard, behind, OURS + 1, "A", 1), Err(BadSegment));
    assert_eq!(admit(&guard, behind, OURS + 1, "A", 0), feed(0, OURS + 1));
}
