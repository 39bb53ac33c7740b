//! Resets, SYNs and acknowledgements of somebody who guesses (RFC 5961).

use super::trace;

const OPEN: &str = "0  < S 0:0 win 65535 mss 1000 sackok
                    0  > S. 0:0 ack 1
                    10 < . 1:1 ack 1 win 65535\n";

fn open(rest: &str) {
    trace(&format!("{OPEN}{rest}"));
}

#[test]
fn rfc_5961_3_2_a_reset_at_the_next_number_resets() {
    open(
        "20 < R 1:1
         20 was-reset true
         20 state Closed",
    );
}

#[test]
fn rfc_5961_3_2_a_reset_in_the_window_is_challenged() {
    open(
        "20 < R 2:2
         20 > . 1:1 ack 1
         30 < R 50000:50000
         30 > . 1:1 ack 1
         30 was-reset false
         30 state Established",
    );
}

#[test]
fn rfc_5961_3_2_a_reset_outside_of_the_window_is_nothing() {
    open(
        "20 < R 0:0
         20 < R 80000:80000
         20 quiet
         20 state Established",
    );
}

#[test]
fn rfc_5961_4_2_a_syn_on_an_open_connection_is_challenged() {
    open(
        "20 < S 5000:5000 win 1000
         20 > . 1:1 ack 1
         30 < S 1:1 win 1000
         30 > . 1:1 ack 1
         40 < S. 900000:900000 ack 1 win 1000
         40 > . 1:1 ack 1
         40 state Established",
    );
}

#[test]
fn rfc_5961_5_2_an_acknowledgement_of_what_was_never_sent_is_challenged() {
    open(
        "20 reader off
         20 < P. 1:101 ack 2 win 65535
         20 > . 1:1 ack 1
         20 unread 0",
    );
}

#[test]
fn rfc_5961_5_2_a_very_old_acknowledgement_brings_no_data_in() {
    open(
        "20 reader off
         20 < P. 1:101 ack 4294800000 win 65535
         20 > . 1:1 ack 1
         20 unread 0",
    );
}

#[test]
fn rfc_5961_7_no_more_than_ten_challenges_go_out_in_a_second() {
    let mut script = String::new();
    for n in 0..50 {
        script += &format!("20 < R {}:{}\n", n + 2, n + 2);
        if n < 10 {
            script += "20 > . 1:1 ack 1\n";
        }
    }
    script += "30 quiet
               1100 < R 2:2
               1100 > . 1:1 ack 1";
    open(&script);
}

#[test]
fn rfc_9293_3_10_7_4_a_segment_beyond_the_window_is_answered_and_not_taken() {
    open(
        "20 reader off
         20 < . 70000:71000 ack 1 win 65535
         20 > . 1:1 ack 1 nosack
         20 unread 0",
    );
}

#[test]
fn rfc_9293_3_10_7_4_what_lies_beyond_the_window_is_cut_off() {
    trace(
        "0  buffer 16384
         0  < S 0:0 win 65535 mss 1000 sackok
         0  > S. 0:0 ack 1 win 16384
         10 < . 1:1 ack 1 win 65535
         20 reader off
         20 < . 1:20001 ack 1 win 65535
         20 > . 1:1 ack 16385 win 0
         20 unread 16384",
    );
}

#[test]
fn rfc_9293_3_10_7_4_a_segment_without_an_acknowledgement_is_nothing() {
    open(
        "20 reader off
         20 < P 1:101 win 65535
         25 quiet
         25 unread 0",
    );
}

#[test]
fn rfc_9293_3_10_5_an_abort_resets_the_other_end() {
    open(
        "20 abort
         20 > R. 1:1 ack 1
         20 state Closed",
    );
}
