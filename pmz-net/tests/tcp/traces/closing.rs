//! Closing a connection (RFC 9293, 3.6).

use super::trace;

const OPEN: &str = "0  < S 0:0 win 65535 mss 1000 sackok
                    0  > S. 0:0 ack 1
                    10 < . 1:1 ack 1 win 65535\n";

fn open(rest: &str) {
    trace(&format!("{OPEN}{rest}"));
}

#[test]
fn rfc_9293_3_6_closing_first() {
    open(
        "20 close
         20 > F. 1:1 ack 1
         20 state FinWait1
         30 < . 1:1 ack 2 win 65535
         30 state FinWait2
         40 < F. 1:1 ack 2 win 65535
         40 > . 2:2 ack 2
         40 state TimeWait",
    );
}

#[test]
fn rfc_9293_3_6_closing_second() {
    open(
        "20 < F. 1:1 ack 1 win 65535
         20 > . 1:1 ack 2
         20 state CloseWait
         30 close
         30 > F. 1:1 ack 2
         30 state LastAck
         40 < . 2:2 ack 2 win 65535
         40 state Closed
         40 was-reset false",
    );
}

#[test]
fn rfc_9293_3_6_simultaneous_close() {
    open(
        "20 close
         20 > F. 1:1 ack 1
         25 < F. 1:1 ack 1 win 65535
         25 > . 2:2 ack 2
         25 state Closing
         30 < . 2:2 ack 2 win 65535
         30 state TimeWait",
    );
}

#[test]
fn rfc_9293_3_6_a_fin_with_the_acknowledgement_of_ours_goes_straight_to_time_wait() {
    open(
        "20 close
         20 > F. 1:1 ack 1
         30 < F. 1:1 ack 2 win 65535
         30 > . 2:2 ack 2
         30 state TimeWait",
    );
}

#[test]
fn rfc_9293_3_6_after_a_half_close_data_still_comes_in() {
    open(
        "20 close
         20 > F. 1:1 ack 1
         30 reader off
         30 < . 1:1001 ack 2 win 65535
         30 < . 1001:2001 ack 2 win 65535
         30 > . 2:2 ack 2001
         30 unread 2000
         40 < F. 2001:2001 ack 2 win 65535
         40 > . 2:2 ack 2002
         40 state TimeWait
         40 read 2000",
    );
}

#[test]
fn rfc_9293_3_6_after_the_peers_half_close_data_still_goes_out() {
    open(
        "20 < F. 1:1 ack 1 win 65535
         20 > . 1:1 ack 2
         30 write 1500
         30-40 > P. 1:1501 ack 2
         40 < . 2:2 ack 1501 win 65535
         60 close
         60 > F. 1501:1501 ack 2
         70 < . 2:2 ack 1502 win 65535
         70 state Closed",
    );
}

#[test]
fn rfc_9293_3_10_4_a_close_waits_for_what_was_written() {
    open(
        "20 write 1500 close
         20-30 > FP. 1:1501 ack 1
         25 state FinWait1
         30 < . 1:1 ack 1502 win 65535
         30 state FinWait2",
    );
}

#[test]
fn rfc_9293_3_10_7_4_a_fin_behind_a_gap_waits_for_the_gap() {
    open(
        "20 < F. 1001:1001 ack 1 win 65535
         20 > . 1:1 ack 1
         20 state Established
         30 < . 1:1001 ack 1 win 65535
         30 > . 1:1 ack 1002
         30 state CloseWait",
    );
}

#[test]
fn rfc_9293_3_10_7_4_a_fin_that_comes_with_data_that_came_before_counts() {
    // Linux joins what it repeats: "abc" and then the FIN become one segment.
    open(
        "20 < P. 1:1001 ack 1 win 65535
         30 > . 1:1 ack 1001
         250 < FP. 1:1001 ack 1 win 65535
         250 > . 1:1 ack 1002
         250 state CloseWait",
    );
}

#[test]
fn rfc_9293_3_10_7_4_in_time_wait_a_fin_is_acknowledged_again() {
    open(
        "20 close
         20 > F. 1:1 ack 1
         30 < F. 1:1 ack 2 win 65535
         30 > . 2:2 ack 2
         300 < F. 1:1 ack 2 win 65535
         300 > . 2:2 ack 2
         300 state TimeWait",
    );
}

#[test]
fn rfc_1337_a_reset_in_time_wait_takes_nothing_from_the_reader() {
    open(
        "20 close
         20 > F. 1:1 ack 1
         30 reader off
         30 < FP. 1:1001 ack 2 win 65535
         30 > . 2:2 ack 1002
         40 < R 1002:1002
         40 was-reset false
         40 unread 1000",
    );
}

#[test]
fn a_window_update_after_the_peers_fin_is_owed_to_nobody() {
    trace(
        "0  buffer 16384
         0  < S 0:0 win 65535 mss 1000 sackok
         0  > S. 0:0 ack 1
         10 < . 1:1 ack 1 win 65535
         20 reader off
         20 < FP. 1:16384 ack 1 win 65535
         20 > . 1:1 ack 16385
         30 read 16383
         40 quiet",
    );
}

#[test]
fn rfc_6298_5_a_lost_fin_is_sent_again() {
    open(
        "20 close
         20 > F. 1:1 ack 1
         220-300 > F. 1:1 ack 1
         320 < . 1:1 ack 2 win 65535
         320 state FinWait2",
    );
}
