//! What the receiving half says, and when.

use super::trace;

const OPEN: &str = "0  < S 0:0 win 65535 mss 1000 sackok
                    0  > S. 0:0 ack 1
                    10 < . 1:1 ack 1 win 65535\n";

fn open(rest: &str) {
    trace(&format!("{OPEN}{rest}"));
}

#[test]
fn rfc_9293_3_8_6_3_every_second_full_segment_is_acknowledged_at_once() {
    open(
        "20 < . 1:1001 ack 1 win 65535
         20 quiet
         21 < . 1001:2001 ack 1 win 65535
         21 > . 1:1 ack 2001",
    );
}

#[test]
fn rfc_9293_3_8_6_3_a_single_segment_is_acknowledged_within_half_a_second() {
    open(
        "20 < . 1:101 ack 1 win 65535
         20.5-520 > . 1:1 ack 101",
    );
}

#[test]
fn a_delayed_acknowledgement_goes_with_data() {
    open(
        "20 < P. 1:101 ack 1 win 65535
         25 write 50
         25 > P. 1:51 ack 101
         60 quiet
         60 < . 101:101 ack 51 win 65535",
    );
}

#[test]
fn rfc_5681_4_2_data_behind_a_gap_is_acknowledged_at_once_and_what_fills_the_gap_too() {
    open(
        "20 < . 1001:1101 ack 1 win 65535
         20 > . 1:1 ack 1 sack 1001-1101
         30 < . 1:501 ack 1 win 65535
         30 > . 1:1 ack 501 sack 1001-1101
         40 < . 501:1001 ack 1 win 65535
         40 > . 1:1 ack 1101 nosack",
    );
}

#[test]
fn rfc_2018_4_the_block_that_came_last_is_told_first_and_the_latest_others_behind_it() {
    open(
        "20 < . 1001:1101 ack 1 win 65535
         20 > . 1:1 ack 1 sack 1001-1101
         21 < . 2001:2101 ack 1 win 65535
         21 > . 1:1 ack 1 sack 2001-2101,1001-1101
         22 < . 3001:3101 ack 1 win 65535
         22 > . 1:1 ack 1 sack 3001-3101,2001-2101,1001-1101
         23 < . 1101:1201 ack 1 win 65535
         23 > . 1:1 ack 1 sack 1001-1201,3001-3101,2001-2101",
    );
}

#[test]
fn rfc_2018_4_blocks_go_on_being_told_until_the_gap_is_filled() {
    open(
        "20 < . 1001:1101 ack 1 win 65535
         20 > . 1:1 ack 1 sack 1001-1101
         25 < . 1:101 ack 1 win 65535
         25 > . 1:1 ack 101 sack 1001-1101",
    );
}

#[test]
fn rfc_2883_4_1_1_a_segment_that_came_twice_is_told_once() {
    open(
        "20 < . 1:1001 ack 1 win 65535
         20 < . 1001:2001 ack 1 win 65535
         20 > . 1:1 ack 2001 nosack
         30 < . 1:1001 ack 1 win 65535
         30 > . 1:1 ack 2001 sack 1-1001
         40 < . 2001:4001 ack 1 win 65535
         40 > . 1:1 ack 4001 nosack",
    );
}

#[test]
fn rfc_2883_4_1_2_a_duplicate_stands_before_the_block_that_encloses_it() {
    open(
        "20 < . 2001:4001 ack 1 win 65535
         20 > . 1:1 ack 1 sack 2001-4001
         30 < . 3001:4001 ack 1 win 65535
         30 > . 1:1 ack 1 sack 3001-4001,2001-4001",
    );
}

#[test]
fn rfc_2883_4_2_1_a_part_that_came_twice_is_told() {
    open(
        "20 < . 1:2001 ack 1 win 65535
         20 > . 1:1 ack 2001
         30 < . 1001:3001 ack 1 win 65535
         30 > . 1:1 ack 3001 sack 1001-2001",
    );
}

#[test]
fn a_super_packet_is_acknowledged_at_once() {
    open(
        "20 < P. 1:8001 ack 1 win 65535
         20 > . 1:1 ack 8001",
    );
}
