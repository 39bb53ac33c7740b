//! Windows: what is told, what is obeyed, and how one that is closed opens again.

use super::trace;

const OPEN: &str = "0  < S 0:0 win 65535 mss 1000 sackok
                    0  > S. 0:0 ack 1
                    100 < . 1:1 ack 1 win 65535\n";

fn open(rest: &str) {
    trace(&format!("{OPEN}{rest}"));
}

#[test]
fn rfc_9293_3_8_6_nothing_goes_out_beyond_the_window() {
    open(
        "100 < . 1:1 ack 1 win 2500
         100 write 10000
         100-150 > . 1:2001 ack 1
         200 < . 1:1 ack 2001 win 2500
         200-250 > . 2001:4001 ack 1
         290 quiet",
    );
}

#[test]
fn rfc_9293_3_8_6_2_1_no_silly_segment_goes_out_while_others_are_in_flight() {
    open(
        "100 < . 1:1 ack 1 win 8200
         100 write 20000
         100-190 > . 1:8001 ack 1
         250 quiet",
    );
}

#[test]
fn rfc_9293_3_8_6_2_1_half_of_the_largest_window_is_worth_a_segment() {
    trace(
        "0  < S 0:0 win 1200 mss 1000
         0  > S. 0:0 ack 1
         10 < . 1:1 ack 1 win 1200
         10 write 5000
         10-20 > . 1:1001 ack 1
         20 < . 1:1 ack 1001 win 700
         20-30 > . 1001:1701 ack 1",
    );
}

#[test]
fn rfc_9293_3_8_6_1_a_closed_window_is_probed_with_a_timeout_that_doubles() {
    open(
        "100 < . 1:1 ack 1 win 0
         100 write 3000
         400 > . 0:0 ack 1
         1000 > . 0:0 ack 1
         2200 > . 0:0 ack 1
         2500 < . 1:1 ack 1 win 5000
         2500-2560 > P. 1:3001 ack 1",
    );
}

#[test]
fn rfc_9293_3_8_6_1_a_closed_window_is_probed_as_long_as_the_peer_answers() {
    let mut script = String::from(
        "100 < . 1:1 ack 1 win 0
         100 write 3000\n",
    );
    let mut at = 100;
    for n in 0..8 {
        at += 300 << n;
        script += &format!("{at} > . 0:0 ack 1\n");
        script += &format!("{} < . 1:1 ack 1 win 0\n", at + 100);
    }
    open(&script);
}

#[test]
fn rfc_9293_3_8_6_1_the_probe_of_a_window_is_answered() {
    trace(
        "0  buffer 16384
         0  < S 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1
         10 < . 1:1 ack 1 win 65535
         20 reader off
         20 < . 1:16385 ack 1 win 65535
         20 > . 1:1 ack 16385 win 0
         30 < . 16384:16384 ack 1 win 65535
         30 > . 1:1 ack 16385 win 0
         40 < . 16385:16386 ack 1 win 65535
         40 > . 1:1 ack 16385 win 0",
    );
}

#[test]
fn rfc_9293_3_8_6_2_2_a_window_opens_by_half_or_not_at_all() {
    trace(
        "0  buffer 16384
         0  < S 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1
         10 < . 1:1 ack 1 win 65535
         20 reader off
         20 < . 1:16001 ack 1 win 65535
         20 > . 1:1 ack 16001 win 384
         30 read 700
         35 quiet
         40 read 15000
         40 > . 1:1 ack 16001 win 16084",
    );
}

#[test]
fn rfc_9293_3_8_6_2_2_a_window_that_super_packets_have_closed_opens_again() {
    trace(
        "0  buffer 50000
         0  < S 0:0 win 65535 mss 1460
         0  > S. 0:0 ack 1
         10 < . 1:1 ack 1 win 65535
         20 reader off
         20 < . 1:49001 ack 1 win 65535
         20 > . 1:1 ack 49001 win 1000
         30 read 49000
         30 > . 1:1 ack 49001 win 50000",
    );
}

#[test]
fn rfc_9293_3_8_6_beyond_a_window_that_was_taken_back_only_the_first_segment_goes_out() {
    open(
        "100 write 4000
         100-150 > P. 1:4001 ack 1
         160 < . 1:1 ack 1 win 0
         300-360 > P. 3001:4001 ack 1
         600-700 > . 1:1001 ack 1
         1200-1300 > . 1:1001 ack 1
         1310 < . 1:1 ack 1001 win 8000
         1310-1400 > P. 1001:4001 ack 1
         1405 < . 1:1 ack 4001 win 8000",
    );
}

#[test]
fn rfc_9293_3_10_7_4_an_old_segment_does_not_take_the_window_back() {
    open(
        "110 < . 1001:3001 ack 1 win 30000
         110 > . 1:1 ack 1
         120 < . 1:1 ack 1 win 0
         130 write 2000
         130-200 > P. 1:2001 ack 1
         210 < . 3001:3001 ack 2001 win 30000",
    );
}

#[test]
fn a_window_beside_an_old_number_counts_if_its_acknowledgement_is_new() {
    open(
        "110 < . 1:1 ack 1 win 4000
         110 write 9000
         110-150 > . 1:4001 ack 1
         160 < . 2001:3001 ack 1001 win 3000
         160 > . 4001:4001 ack 1 sack 2001-3001
         170 < . 1:1 ack 4001 win 0
         240 quiet",
    );
}

#[test]
fn rfc_1122_4_2_3_6_a_silent_peer_is_asked_whether_it_is_still_there() {
    open(
        "60100 > . 0:0 ack 1
         60110 < . 1:1 ack 1 win 65535
         120110 > . 0:0 ack 1
         180110 > . 0:0 ack 1
         180140 < R 1:1
         180140 was-reset true",
    );
}

#[test]
fn rfc_1122_4_2_3_6_the_question_whether_one_is_there_is_answered() {
    open(
        "120 < . 0:0 ack 1 win 65535
         120 > . 1:1 ack 1",
    );
}
