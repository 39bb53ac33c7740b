//! Explicit congestion notification (RFC 3168).

use super::{cubic, trace};

const OPEN: &str = "0  < SEW 0:0 win 65535 mss 1000 sackok
                    0  > S.E 0:0 ack 1
                    40 < . 1:1 ack 1 win 65535\n";

#[test]
fn rfc_3168_6_1_1_it_is_agreed_to_if_it_was_asked_for() {
    trace(&format!(
        "{OPEN}
         50 write 1000
         50 > P. 1:1001 ack 1 ect"
    ));
    trace(
        "0  < SE 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1
         40 < . 1:1 ack 1 win 65535
         50 write 1000
         50 > P. 1:1001 ack 1 noect",
    );
}

#[test]
fn rfc_3168_6_1_5_neither_what_is_sent_again_nor_an_acknowledgement_may_be_marked() {
    trace(&format!(
        "{OPEN}
         50 write 1000
         50 > P. 1:1001 ack 1 ect
         100-400 > P. 1:1001 ack 1 noect
         500 < P. 1:2001 ack 1001 win 65535 ect
         500 > . 1001:1001 ack 2001 noect"
    ));
}

#[test]
fn rfc_3168_6_1_3_a_mark_is_reported_until_the_sender_has_reduced() {
    trace(&format!(
        "{OPEN}
         50 < . 1:1001 ack 1 win 65535 ce
         50 > .E 1:1 ack 1001
         60 < . 1001:3001 ack 1 win 65535 ect
         60 > .E 1:1 ack 3001
         70 < .W 3001:5001 ack 1 win 65535 ect
         70 > . 1:1 ack 5001"
    ));
}

#[test]
fn rfc_3168_6_1_3_a_mark_on_the_segment_that_says_reduced_is_reported_anew() {
    trace(&format!(
        "{OPEN}
         50 < . 1:1001 ack 1 win 65535 ce
         50 > .E 1:1 ack 1001
         60 < .W 1001:3001 ack 1 win 65535 ce
         60 > .E 1:1 ack 3001"
    ));
}

#[test]
fn rfc_3168_6_1_2_a_reported_mark_halves_the_window_once_a_round_trip_and_it_says_so() {
    // Ten segments and what slow start adds; Cubic goes down to 0.7 of it.
    cubic(&format!(
        "{OPEN}
         50 write 60000
         50-90 > . 1:10001 ack 1
         91 < .E 1:1 ack 10001 win 65535
         91-131 > .W 10001:11001 ack 1
         91-131 > . 11001:17001 ack 1
         135 quiet"
    ));
}
