//! Finding losses by time (RFC 8985), and repairing them (RFC 6937).

use super::{cubic, trace};

const OPEN: &str = "0  < S 0:0 win 65535 mss 1000 sackok
                    0  > S. 0:0 ack 1
                    40 < . 1:1 ack 1 win 65535\n";

/// Ten segments go out between 50 and 90 ms, the first ones at 50.
const TEN: &str = "50 write 10000
                   50-90 > P. 1:10001 ack 1\n";

#[test]
fn rfc_8985_6_2_three_segments_behind_it_show_that_one_is_lost() {
    trace(&format!(
        "{OPEN}{TEN}
         91 < . 1:1 ack 1 win 65535 sack 1001-2001
         91 quiet
         91.2 < . 1:1 ack 1 win 65535 sack 1001-3001
         91.2 quiet
         91.4 < . 1:1 ack 1 win 65535 sack 1001-4001
         91.4 > . 1:1001 ack 1
         131 < . 1:1 ack 10001 win 65535"
    ));
}

#[test]
fn rfc_8985_6_2_one_segment_behind_it_shows_that_after_a_quarter_of_the_round_trip() {
    trace(&format!(
        "{OPEN}
         50 write 2000
         50-52 > P. 1:2001 ack 1
         91 < . 1:1 ack 1 win 65535 sack 1001-2001
         95 quiet
         98-103 > . 1:1001 ack 1
         140 < . 1:1 ack 2001 win 65535"
    ));
}

#[test]
fn rfc_8985_6_2_a_repetition_that_is_lost_is_found_by_what_was_sent_after_it() {
    trace(&format!(
        "{OPEN}{TEN}
         91 < . 1:1 ack 1 win 65535 sack 1001-5001
         91 > . 1:1001 ack 1
         92 write 5000
         92-130 < . 1:1 ack 1 win 65535 sack 1001-10001
         92-135 > P. 10001:15001 ack 1
         140 < . 1:1 ack 1 win 65535 sack 1001-13001
         140-155 > . 1:1001 ack 1
         190 < . 1:1 ack 15001 win 65535"
    ));
}

#[test]
fn rfc_8985_6_2_after_reordering_was_seen_three_segments_are_no_sign_any_more() {
    trace(&format!(
        "{OPEN}{TEN}
         91 < . 1:1 ack 1 win 65535 sack 1001-2001
         92 < . 1:1 ack 2001 win 65535
         93 < . 1:1 ack 2001 win 65535 sack 3001-7001
         94 quiet
         95-104 > . 2001:3001 ack 1
         140 < . 1:1 ack 10001 win 65535"
    ));
}

#[test]
fn rfc_8985_7_2_the_tail_is_probed_after_two_round_trips() {
    trace(&format!(
        "{OPEN}
         50 write 2000
         50-52 > P. 1:2001 ack 1
         125-135 > P. 1001:2001 ack 1
         130 counted tail-probes 1
         170 < . 1:1 ack 1 win 65535 sack 1001-2001
         170-190 > . 1:1001 ack 1
         230 < . 1:1 ack 2001 win 65535"
    ));
}

#[test]
fn rfc_8985_7_2_a_single_segment_is_probed_no_later_than_its_timeout() {
    // The timeout would cost the window, the probe does not.
    trace(&format!(
        "{OPEN}
         50 write 100
         50 > P. 1:101 ack 1
         285-295 > P. 1:101 ack 1
         300 counted tail-probes 1
         300 counted timeouts 0
         335 < . 1:1 ack 101 win 65535"
    ));
}

#[test]
fn rfc_8985_7_2_on_a_long_path_the_tail_is_still_probed_before_it_is_given_up() {
    trace(
        "0   < S 0:0 win 65535 mss 1000 sackok
         0   > S. 0:0 ack 1
         400 < . 1:1 ack 1 win 65535
         410 write 3000
         410-500 > P. 1:3001 ack 1
         1000-1300 > P. 2001:3001 ack 1
         1300 counted tail-probes 1
         1300 counted timeouts 0
         1400 < . 1:1 ack 3001 win 65535",
    );
}

#[test]
fn rfc_8985_7_3_the_timeout_begins_anew_with_the_probe() {
    trace(&format!(
        "{OPEN}
         50 write 2000
         50-52 > P. 1:2001 ack 1
         125-135 > P. 1001:2001 ack 1
         360 quiet
         365-375 > . 1:1001 ack 1
         420 < . 1:1 ack 2001 win 65535"
    ));
}

#[test]
fn rfc_8985_7_3_a_probe_is_new_data_where_there_is_some() {
    trace(&format!(
        "{OPEN}
         50 < . 1:1 ack 1 win 2900
         50 write 5000
         50-60 > . 1:2001 ack 1
         60 < . 1:1 ack 1 win 3000
         60-62 > . 2001:3001 ack 1
         62 < . 1:1 ack 1 win 65535
         62-70 > P. 3001:5001 ack 1
         110 < . 1:1 ack 5001 win 65535"
    ));
}

#[test]
fn rfc_8985_7_4_a_probe_that_repaired_a_loss_is_an_event_of_congestion() {
    // The probe's acknowledgement tells no duplicate, so what it repeated had been lost.
    cubic(&format!(
        "{OPEN}{TEN}
         80-150 < . 1:1 ack 9001 win 65535
         150-450 > P. 9001:10001 ack 1
         450 counted tail-probes 1
         490 < . 1:1 ack 10001 win 65535
         500 write 60000
         500-560 > . 10001:23001 ack 1
         561 quiet"
    ));
}

#[test]
fn rfc_2018_8_what_a_receiver_takes_back_is_sent_again() {
    trace(&format!(
        "{OPEN}
         50 write 3000
         50-55 > P. 1:3001 ack 1
         91 < . 1:1 ack 1 win 65535 sack 1001-3001
         91-105 > . 1:1001 ack 1
         140 < . 1:1 ack 1001 win 65535
         285-295 > . 1001:2001 ack 1
         330 < . 1:1 ack 2001 win 65535
         330-340 > P. 2001:3001 ack 1
         380 < . 1:1 ack 3001 win 65535"
    ));
}

#[test]
fn rfc_6937_3_while_a_loss_is_repaired_what_goes_out_follows_what_arrives() {
    // Ten in flight, one lost: of the eight that arrive behind it, 0.7 each may be answered.
    cubic(&format!(
        "{OPEN}
         50 write 30000
         50-90 > . 1:10001 ack 1
         91 < . 1:1 ack 1 win 65535 sack 1001-4001
         91-95 > . 1:1001 ack 1
         96 < . 1:1 ack 1 win 65535 sack 1001-7001
         96-110 > . 10001:13001 ack 1
         111 < . 1:1 ack 1 win 65535 sack 1001-10001
         111-130 > . 13001:16001 ack 1
         131 quiet"
    ));
}

#[test]
fn rfc_3708_a_loss_that_was_none_is_taken_back() {
    cubic(&format!(
        "{OPEN}{TEN}
         91 < . 1:1 ack 1 win 65535 sack 1001-4001
         91 > . 1:1001 ack 1
         92 < . 1:1 ack 4001 win 65535
         132 < . 1:1 ack 4001 win 65535 sack 1-1001
         132 counted spurious 1
         133 < . 1:1 ack 10001 win 65535"
    ));
}

#[test]
fn rfc_5681_4_1_after_a_pause_the_first_flight_is_no_larger_than_the_first_of_all() {
    cubic(&format!(
        "{OPEN}
         50 write 10000
         50-90 > P. 1:10001 ack 1
         91 < . 1:1 ack 10001 win 65535
         91 write 20000
         91-131 > P. 10001:30001 ack 1
         132 < . 1:1 ack 30001 win 65535
         5000 write 40000
         5000-5038 > . 30001:40001 ack 1
         5039 quiet"
    ));
}

#[test]
fn rfc_8985_7_2_without_blocks_the_tail_is_not_probed() {
    // Nothing would tell whether the probe was for nothing: each would look like a loss.
    trace(
        "0  < S 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1
         40 < . 1:1 ack 1 win 65535
         50 write 2000
         50-52 > P. 1:2001 ack 1
         280 quiet
         290-293 > . 1:1001 ack 1
         330 < . 1:1 ack 2001 win 65535",
    );
}

#[test]
fn rfc_5681_3_2_without_blocks_three_duplicate_acknowledgements_show_a_loss() {
    for play in [trace, cubic] {
        play(
            "0  < S 0:0 win 65535 mss 1000
             0  > S. 0:0 ack 1
             40 < . 1:1 ack 1 win 65535
             50 write 10000
             50-90 > P. 1:10001 ack 1
             91 < . 1:1 ack 1 win 65535
             91 < . 1:1 ack 1 win 65535
             91 quiet
             91 < . 1:1 ack 1 win 65535
             91 > . 1:1001 ack 1
             92 < . 1:1 ack 1 win 65535
             131 < . 1:1 ack 10001 win 65535
             131 counted timeouts 0",
        );
    }
}

#[test]
fn rfc_6582_3_2_a_partial_acknowledgement_shows_the_next_loss() {
    for play in [trace, cubic] {
        play(
            "0  < S 0:0 win 65535 mss 1000
             0  > S. 0:0 ack 1
             40 < . 1:1 ack 1 win 65535
             50 write 10000
             50-90 > P. 1:10001 ack 1
             91 < . 1:1 ack 1 win 65535
             91 < . 1:1 ack 1 win 65535
             91 < . 1:1 ack 1 win 65535
             91 > . 1:1001 ack 1
             131 < . 1:1 ack 4001 win 65535
             131-132 > . 4001:5001 ack 1
             172 < . 1:1 ack 10001 win 65535
             172 counted timeouts 0",
        );
    }
}

#[test]
fn rfc_5681_2_a_window_update_is_no_duplicate_acknowledgement() {
    trace(
        "0  < S 0:0 win 65535 mss 1000
         0  > S. 0:0 ack 1
         40 < . 1:1 ack 1 win 65535
         50 write 10000
         50-90 > P. 1:10001 ack 1
         91 < . 1:1 ack 1 win 60000
         91 < . 1:1 ack 1 win 60001
         91 < . 1:1 ack 1 win 60002
         91 < . 1:1 ack 1 win 60003
         100 quiet
         110 < . 1:1 ack 10001 win 65535",
    );
}
