//! The retransmission timer, and how a timeout for nothing is noticed.

use super::{cubic, trace};

const OPEN: &str = "0  < S 0:0 win 65535 mss 1000 sackok
                    0  > S. 0:0 ack 1
                    40 < . 1:1 ack 1 win 65535\n";
const PLAIN: &str = "0  < S 0:0 win 65535 mss 1000
                     0  > S. 0:0 ack 1
                     40 < . 1:1 ack 1 win 65535\n";
const STAMPED: &str = "0  < S 0:0 win 65535 mss 1000 ts 1/0
                       0  > S. 0:0 ack 1
                       40 < . 1:1 ack 1 win 65535 ts 2/0\n";

#[test]
fn rfc_6298_5_4_the_first_segment_is_sent_again_and_5_5_the_timeout_doubles() {
    trace(&format!(
        "{PLAIN}
         50 write 100
         50 > P. 1:101 ack 1
         290 > P. 1:101 ack 1
         770 > P. 1:101 ack 1
         1730 > P. 1:101 ack 1
         3650 > P. 1:101 ack 1
         3650 counted timeouts 4
         4000 < . 1:1 ack 101 win 65535"
    ));
}

#[test]
fn rfc_6298_5_4_the_first_segment_goes_out_again_whatever_else_is_in_flight() {
    // The second segment, small and young, must not hold up the first.
    cubic(&format!(
        "{OPEN}
         50 write 1000
         50 > P. 1:1001 ack 1
         290 > P. 1:1001 ack 1
         525 write 10
         525 > P. 1001:1011 ack 1
         530 > . 1:1001 ack 1
         570 < . 1:1 ack 1011 win 65535"
    ));
}

#[test]
fn rfc_6298_5_3_an_acknowledgement_starts_the_timer_again() {
    trace(&format!(
        "{PLAIN}
         50 write 100
         50 > P. 1:101 ack 1
         200 write 100
         200 > P. 101:201 ack 1
         270 < . 1:1 ack 101 win 65535
         490 quiet
         500-510 > P. 101:201 ack 1"
    ));
}

#[test]
fn rfc_6298_3_no_round_trip_is_taken_of_what_was_sent_twice() {
    // The timeout stays doubled until there is one that counts; it is that of the first, not of 340 ms.
    trace(&format!(
        "{PLAIN}
         50 write 100
         50 > P. 1:101 ack 1
         290 > P. 1:101 ack 1
         390 < . 1:1 ack 101 win 65535
         400 write 100
         400 > P. 101:201 ack 1
         880 > P. 101:201 ack 1
         900 < . 1:1 ack 201 win 65535"
    ));
}

#[test]
fn rfc_6298_no_round_trip_is_taken_of_what_waited_behind_a_gap() {
    trace(&format!(
        "{PLAIN}
         50 write 4000
         50-60 > P. 1:4001 ack 1
         290-292 > . 1:1001 ack 1
         330 < . 1:1 ack 4001 win 65535
         500 write 100
         500 > P. 4001:4101 ack 1
         980 > P. 4001:4101 ack 1
         990 < . 1:1 ack 4101 win 65535"
    ));
}

#[test]
fn rfc_5682_2_1_a_timeout_for_nothing_is_found_out_by_new_data() {
    // No timestamps and no blocks: the acknowledgements of what had only been late must do.
    cubic(&format!(
        "{PLAIN}
         50 write 4000
         50-90 > P. 1:4001 ack 1
         250-400 > . 1:1001 ack 1
         400 write 4000
         410 < . 1:1 ack 1001 win 65535
         410-440 > . 4001:6001 ack 1
         450 < . 1:1 ack 2001 win 65535
         450 counted spurious 1
         450-500 > P. 6001:8001 ack 1
         550 < . 1:1 ack 8001 win 65535"
    ));
}

#[test]
fn rfc_5682_2_1_a_timeout_for_a_loss_is_none_for_nothing() {
    cubic(&format!(
        "{PLAIN}
         50 write 4000
         50-90 > P. 1:4001 ack 1
         250-400 > . 1:1001 ack 1
         400 < . 1:1 ack 1001 win 65535
         400-420 > . 1001:3001 ack 1
         440 < . 1:1 ack 4001 win 65535
         440 counted spurious 0"
    ));
}

#[test]
fn rfc_3522_3_2_an_echo_from_before_the_repetition_shows_that_it_was_for_nothing() {
    trace(&format!(
        "{STAMPED}
         50 write 100
         50 > P. 1:101 ack 1 ts 50/2
         290 > P. 1:101 ack 1 ts 290/2
         300 < . 1:1 ack 101 win 65535 ts 3/50
         300 counted spurious 1"
    ));
    trace(&format!(
        "{STAMPED}
         50 write 100
         50 > P. 1:101 ack 1 ts 50/2
         290 > P. 1:101 ack 1 ts 290/2
         330 < . 1:1 ack 101 win 65535 ts 3/290
         330 counted spurious 0"
    ));
}
