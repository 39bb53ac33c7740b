//! Opening a connection.

use super::trace;

#[test]
fn rfc_9293_3_5_a_passive_open_is_established_by_an_acknowledgement() {
    trace(
        "0  < S 0:0 win 65535 mss 1000 sackok scale 7
         0  > S. 0:0 ack 1 mss 1460 sackok scale 0 nots
         0  state SynReceived
         10 < . 1:1 ack 1 win 500
         10 state Established",
    );
}

#[test]
fn rfc_9293_3_5_an_active_open_is_established_by_a_syn_that_acknowledges() {
    trace(
        "0  connect
         0  > S 0:0 mss 1460 sackok scale 0 ts 0/0
         20 < S. 0:0 ack 1 win 65535 mss 1000 sackok scale 7 ts 77/0
         20 > . 1:1 ack 1 ts 20/77
         20 state Established",
    );
}

#[test]
fn rfc_9293_3_5_simultaneous_open_is_established_on_both_sides() {
    trace(
        "0  connect
         0  > S 0:0
         5  < S 0:0 win 65535 mss 1000 sackok
         5  > S. 0:0 ack 1
         5  state SynReceived
         10 < S. 0:0 ack 1 win 65535 mss 1000 sackok
         10 state Established
         10 write 100
         10 > P. 1:101 ack 1",
    );
}

#[test]
fn rfc_9293_3_10_7_3_only_an_acknowledged_reset_refuses_a_connection() {
    trace(
        "0  connect
         0  > S 0:0
         5  < R 0:0
         5  state SynSent
         6  < R. 0:0 ack 7
         6  state SynSent
         7  < R. 0:0 ack 1
         7  state Closed
         7  was-reset true",
    );
}

#[test]
fn rfc_9293_3_10_7_3_a_syn_that_acknowledges_something_else_is_ignored() {
    trace(
        "0  connect
         0  > S 0:0
         5  < S. 0:0 ack 2 win 1000
         5  state SynSent
         6  < S. 0:0 ack 0 win 1000
         6  state SynSent",
    );
}

#[test]
fn rfc_6298_5_a_syn_is_sent_again_with_a_timeout_that_doubles() {
    trace(
        "0    connect
         0    > S 0:0
         1000 > S 0:0
         3000 > S 0:0
         7000 > S 0:0",
    );
}

#[test]
fn rfc_6298_5_a_syn_acknowledgement_is_sent_again_too() {
    trace(
        "0    < S 0:0 win 65535
         0    > S. 0:0 ack 1
         1000 > S. 0:0 ack 1
         3000 > S. 0:0 ack 1
         3500 < . 1:1 ack 1 win 65535
         3500 state Established",
    );
}

#[test]
fn rfc_9293_3_8_1_a_repeated_syn_is_answered_again() {
    trace(
        "0    < S 0:0 win 65535
         0    > S. 0:0 ack 1
         500  < S 0:0 win 65535
         500  > S. 0:0 ack 1",
    );
}

#[test]
fn rfc_9293_3_10_7_4_data_may_come_with_the_last_acknowledgement_of_the_handshake() {
    trace(
        "0  < S 0:0 win 65535
         0  > S. 0:0 ack 1
         5  reader off
         5  < P. 1:101 ack 1 win 65535
         5  unread 100
         15 > . 1:1 ack 101",
    );
}

#[test]
fn rfc_7323_2_2_windows_are_scaled_only_if_both_syns_say_so() {
    trace(
        "0  buffer 8388608
         0  < S 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1 win 65535 noscale
         10 < . 1:1 ack 1 win 65535
         20 < . 1:3001 ack 1 win 65535
         20 > . 1:1 ack 3001 win 65535",
    );
}

#[test]
fn rfc_7323_2_2_the_window_of_a_syn_is_never_scaled() {
    // The SYN's 2000 bytes are not 256,000.
    trace(
        "0  < S 0:0 win 2000 mss 1000 scale 7
         0  > S. 0:0 ack 1
         10 < . 1:1 ack 1 win 16
         10 write 10000
         10-20 > . 1:2001 ack 1
         29 quiet",
    );
}

#[test]
fn rfc_7323_2_3_a_shift_above_14_counts_as_14() {
    trace(
        "0  < S 0:0 win 2000 mss 1000 scale 255
         0  > S. 0:0 ack 1
         90 < . 1:1 ack 1 win 1
         90 write 20000
         90-180 > . 1:10001 ack 1
         180 < . 1:1 ack 10001 win 1
         180-270 > P. 10001:20001 ack 1",
    );
}

#[test]
fn rfc_9293_3_7_1_without_an_mss_option_segments_of_536_bytes_are_sent() {
    trace(
        "0  < S 0:0 win 65535
         0  > S. 0:0 ack 1
         10 < . 1:1 ack 1 win 65535
         10 write 1000
         10-20 > . 1:537 ack 1
         10-20 > P. 537:1001 ack 1",
    );
}

#[test]
fn an_mss_of_nothing_or_of_single_bytes_does_not_make_segments_of_them() {
    for mss in [0, 1] {
        let size = if mss == 0 { 536 } else { 48 };
        trace(&format!(
            "0  < S 0:0 win 65535 mss {mss}
             0  > S. 0:0 ack 1
             90 < . 1:1 ack 1 win 65535
             90 write {}
             90-170 > . 1:{} ack 1
             90-170 > P. {}:{} ack 1",
            size + 10,
            size + 1,
            size + 1,
            size + 11,
        ));
    }
}

#[test]
fn rfc_6928_2_ten_segments_go_out_at_first() {
    trace(
        "0  < S 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1
         40 < . 1:1 ack 1 win 65535
         40 write 30000
         40-80 > . 1:10001 ack 1
         85 quiet",
    );
}

#[test]
fn rfc_2018_2_no_blocks_without_the_permission() {
    trace(
        "0  < S 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1 nosackok
         10 < . 1:1 ack 1 win 65535
         20 < . 1001:2001 ack 1 win 65535
         20 > . 1:1 ack 1 nosack",
    );
}
