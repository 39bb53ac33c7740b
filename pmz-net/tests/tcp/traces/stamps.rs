//! Timestamps (RFC 7323).

use super::trace;

const OPEN: &str = "0  < S 0:0 win 65535 mss 1000 sackok ts 4294967290/0
                    0  > S. 0:0 ack 1 ts 0/4294967290
                    10 < . 1:1 ack 1 win 65535 ts 4294967291/0\n";

fn open(rest: &str) {
    trace(&format!("{OPEN}{rest}"));
}

#[test]
fn rfc_7323_3_2_once_agreed_on_each_segment_carries_them() {
    open(
        "20 write 500
         20 > P. 1:501 ack 1 ts 20/4294967291
         30 < P. 1:2001 ack 501 win 65535 ts 5/20
         30 > . 501:501 ack 2001 ts 30/5",
    );
}

#[test]
fn rfc_7323_4_3_a_segment_behind_a_gap_is_not_echoed() {
    open(
        "20 < . 1001:2001 ack 1 win 65535 ts 7/10
         20 > . 1:1 ack 1 ts 20/4294967291
         30 < . 1:1001 ack 1 win 65535 ts 9/10
         30 > . 1:1 ack 2001 ts 30/9",
    );
}

#[test]
fn rfc_7323_4_3_of_segments_acknowledged_together_the_first_is_echoed() {
    open(
        "20 < . 1:101 ack 1 win 65535 ts 7/10
         22 < . 101:201 ack 1 win 65535 ts 9/10
         30 > . 1:1 ack 201 ts 30/7",
    );
}

#[test]
fn rfc_7323_5_3_paws_an_older_timestamp_is_an_old_segment() {
    // The clock has wrapped between the two.
    open(
        "20 < P. 1:2001 ack 1 win 65535 ts 5/10
         20 > . 1:1 ack 2001
         30 reader off
         30 < P. 2001:3001 ack 1 win 65535 ts 4294967191/10
         30 > . 1:1 ack 2001 ts 30/5
         30 unread 0
         40 < P. 2001:3001 ack 1 win 65535 ts 5/10
         50 > . 1:1 ack 3001
         50 unread 1000",
    );
}

#[test]
fn a_segment_that_one_sent_again_has_overtaken_is_not_an_old_one() {
    open(
        "20 < P. 1:2001 ack 1 win 65535 ts 5/10
         20 > . 1:1 ack 2001
         30 < P. 2001:4001 ack 1 win 65535 ts 4294967292/10
         30 > . 1:1 ack 4001 ts 30/5",
    );
}

#[test]
fn rfc_7323_5_2_paws_does_not_hold_for_resets() {
    open(
        "20 < R 1:1 ts 4294960000/0
         20 was-reset true",
    );
}

#[test]
fn rfc_7323_4_1_a_timestamp_measures_what_was_sent_again() {
    // 500 ms by the echo, which makes the next timeout far longer than the first one of 210 ms.
    open(
        "20 write 100
         20 > P. 1:101 ack 1
         230 > P. 1:101 ack 1
         440 > P. 1:101 ack 1
         860 > P. 1:101 ack 1
         1360 < . 1:1 ack 101 win 65535 ts 4294967291/860
         1400 write 100
         1400 > P. 101:201 ack 1
         1660 quiet
         1700-2000 > P. 101:201 ack 1
         2010 < . 1:1 ack 201 win 65535 ts 4294967291/1400",
    );
}
