//! Loss, reordering, duplicates, corruption: what is sent again, and what is not.

use std::time::{Duration, Instant};

use anyhow::ensure;
use pmz_net::tcp::Congestion;

use crate::kernel::counter;
use crate::pair::{Pair, receive, send};
use crate::stage::{Stage, await_that};

const MIB: usize = 1 << 20;
const LEN: usize = 4 * MIB;
/// Bytes of payload in a full segment.
const SEGMENT: usize = 1448;

#[test]
fn a_download_over_a_link_with_losses_sends_again_what_was_lost_and_no_more() {
    for (congestion, ipv6) in [(Congestion::Bbr, false), (Congestion::Cubic, true)] {
        let stage = Stage::link("delay=5ms,rate=100mbit,queue=100ms,loss=1%").ipv6(ipv6);
        stage
            .timed()
            .congestion(congestion)
            .play("losses down", |play| {
                let pair = Pair::new(&play.bed)?;
                pair.down(LEN)?;
                let (link, nat) = (play.down()?, play.bed.nat.counters());
                ensure!(link.lost > 10, "{link:?}");
                ensure!(nat.tcp_resent >= link.lost - 5, "{link:?} {nat:?}");
                ensure!(
                    nat.tcp_resent <= link.lost + link.dropped + 5,
                    "{link:?} {nat:?}"
                );
                // What is sent again is lost again, now and then, and then nothing else may tell.
                ensure!(nat.tcp_timeouts <= 2, "{nat:?}");
                let again = counter(&play.bed.client, "TCPDSACKOldSent")?;
                ensure!(again <= 3, "the client got {again} segments twice");
                pair.finish()
            });
    }
}

#[test]
fn an_upload_over_a_link_with_losses_is_told_selectively_what_arrived() {
    for ipv6 in [false, true] {
        let stage = Stage::link("delay=2ms,rate=100mbit,queue=100ms,loss=1%").ipv6(ipv6);
        stage.timed().play("losses up", |play| {
            let pair = Pair::new(&play.bed)?;
            pair.up(LEN)?;
            let (link, view) = (play.up()?, pair.view()?);
            let again = u64::from(view.retransmits);
            ensure!(link.lost > 10, "{link:?}");
            ensure!(again >= link.lost - 5, "{link:?} {view:?}");
            ensure!(
                again <= link.lost + link.dropped + link.lost / 5 + 5,
                "{link:?} {view:?}"
            );
            ensure!(
                view.bytes_retransmitted <= again * SEGMENT as u64,
                "{view:?}"
            );
            ensure!(
                counter(&play.bed.client, "TCPSackRecovery")? > 0,
                "no recovery by SACK"
            );
            ensure!(view.dsack_duplicates <= 5, "{view:?}");
            pair.finish()
        });
    }
}

#[test]
fn both_ways_at_once_over_a_link_with_losses_every_byte_arrives() {
    let stage = Stage::link("delay=2ms,rate=100mbit,loss=1%").ipv6(true);
    stage.play("losses both ways", |play| {
        let pair = Pair::new(&play.bed)?;
        pair.both(2 * MIB)?;
        pair.finish()
    });
}

#[test]
fn a_link_that_loses_nothing_carries_nothing_twice() {
    for congestion in [Congestion::Bbr, Congestion::Cubic] {
        let stage = Stage::link("delay=5ms,rate=200mbit,queue=500ms").congestion(congestion);
        stage.timed().play("no losses", |play| {
            let pair = Pair::new(&play.bed)?;
            pair.down(2 * LEN)?;
            pair.up(2 * LEN)?;
            let (nat, view) = (play.bed.nat.counters(), pair.view()?);
            ensure!(
                nat.tcp_resent == 0 && nat.tcp_timeouts == 0 && nat.tcp_spurious == 0,
                "{nat:?}"
            );
            ensure!(
                view.retransmits == 0 && view.dsack_duplicates == 0,
                "{view:?}"
            );
            ensure!(
                counter(&play.bed.client, "TCPDSACKOldSent")? == 0,
                "something came twice"
            );
            // Linux measures what the link does.
            let rate = view.delivery_bps;
            ensure!((20_000_000..220_000_000).contains(&rate), "{view:?}");
            pair.finish()
        });
    }
}

#[test]
fn segments_that_overtake_each_other_are_not_taken_for_lost() {
    for congestion in [Congestion::Bbr, Congestion::Cubic] {
        let stage = Stage::link("delay=5ms,jitter=2ms,disorder=on,rate=100mbit,queue=200ms");
        stage
            .congestion(congestion)
            .timed()
            .play("disorder", |play| {
                let pair = Pair::new(&play.bed)?;
                pair.down(LEN)?;
                let nat = play.bed.nat.counters();
                let sent = (LEN / SEGMENT) as u64;
                ensure!(
                    nat.tcp_resent <= sent / 20,
                    "{} of {sent} for nothing",
                    nat.tcp_resent
                );
                let view = pair.view()?;
                ensure!(view.out_of_order > 100, "{view:?}");

                pair.up(LEN)?;
                let view = pair.view()?;
                ensure!(u64::from(view.retransmits) <= sent / 20, "{view:?}");
                ensure!(
                    view.reorderings > 0,
                    "Linux sees that they were overtaken: {view:?}"
                );
                pair.finish()
            });
    }
}

#[test]
fn duplicates_do_no_harm_and_are_reported_as_such() {
    Stage::link("delay=2ms,rate=100mbit,queue=200ms,duplicate=2%")
        .timed()
        .play("duplicates", |play| {
            let pair = Pair::new(&play.bed)?;
            pair.down(LEN)?;
            let (link, nat) = (play.down()?, play.bed.nat.counters());
            ensure!(link.duplicated > 10, "{link:?}");
            ensure!(nat.tcp_resent <= 2, "{nat:?}");

            pair.up(LEN)?;
            let (link, view) = (play.up()?, pair.view()?);
            ensure!(link.duplicated > 10, "{link:?}");
            ensure!(view.retransmits <= 2, "{view:?}");
            // What was joined on the way is one duplicate less.
            let told = u64::from(view.dsack_duplicates);
            ensure!(told > 0 && told <= link.duplicated, "{link:?} {view:?}");
            pair.finish()
        });
}

#[test]
fn wrong_bits_are_lost_segments_and_nothing_else() {
    for ipv6 in [false, true] {
        const LINK: &str = "delay=2ms,rate=100mbit,queue=200ms";
        Stage::link(LINK).ipv6(ipv6).play("corruption", |play| {
            // A SYN to a wrong address would be answered as what it is.
            let pair = Pair::new(&play.bed)?;
            play.set_link(&format!("{LINK},corrupt=0.5%"))?;
            pair.both(2 * MIB)?;
            let [up, down] = play.link()?.counters();
            ensure!(up.corrupted > 2 && down.corrupted > 2, "{up:?} {down:?}");
            pair.finish()
        });
    }
}

#[test]
fn the_loss_of_the_last_segments_of_a_download_is_repaired_by_a_probe_instead_of_a_timeout() {
    for lost in [1, 3] {
        Stage::link("delay=20ms")
            .timed()
            .play("tail down", move |play| {
                let pair = Pair::new(&play.bed)?;
                pair.down(20 * SEGMENT)?;
                play.set_link("delay=20ms,loss=100%")?;
                let before = play.down()?.lost;
                send(&pair.service, lost * SEGMENT)?;
                await_that("they are lost", || {
                    Ok(play.down()?.lost >= before + lost as u64)
                })?;
                play.set_link("delay=20ms")?;
                receive(&pair.client, lost * SEGMENT)?;
                let nat = play.bed.nat.counters();
                ensure!(nat.tcp_tail_probes == 1 && nat.tcp_timeouts == 0, "{nat:?}");
                ensure!(nat.tcp_resent == lost as u64, "{nat:?}");
                pair.finish()
            });
    }
}

#[test]
fn the_loss_of_the_last_segments_of_an_upload_is_repaired_before_a_timeout() {
    Stage::link("delay=20ms").timed().play("tail up", |play| {
        const LOST: usize = 3;
        let pair = Pair::new(&play.bed)?;
        pair.up(20 * SEGMENT)?;
        play.set_link("delay=20ms,loss=100%")?;
        let lost = play.up()?.lost;
        send(&pair.client, LOST * SEGMENT)?;
        await_that(
            "they are lost",
            || Ok(play.up()?.lost >= lost + LOST as u64),
        )?;
        play.set_link("delay=20ms")?;
        receive(&pair.service, LOST * SEGMENT)?;
        ensure!(counter(&play.bed.client, "TCPLossProbes")? > 0, "no probe");
        ensure!(counter(&play.bed.client, "TCPTimeouts")? == 0, "a timeout");
        pair.finish()
    });
}

#[test]
fn an_outage_ends_with_the_first_packet_that_arrives_again() {
    Stage::link("delay=5ms,rate=100mbit").play("outage", |play| {
        let pair = Pair::new(&play.bed)?;
        std::thread::scope(|scope| {
            let down = scope.spawn(|| pair.down(LEN));
            await_that("it is under way", || Ok(play.down()?.delivered > 500))?;
            play.set_link("delay=5ms,rate=100mbit,loss=100%")?;
            await_that("timeouts", || Ok(play.bed.nat.counters().tcp_timeouts >= 2))?;
            play.set_link("delay=5ms,rate=100mbit")?;
            let end = Instant::now();
            crate::pair::joined(down.join())?;
            // The next timeout is at most 0.9 s away, and the rest takes 0.3 s.
            ensure!(
                end.elapsed() < Duration::from_millis(2000),
                "{:?}",
                end.elapsed()
            );
            let nat = play.bed.nat.counters();
            let (sent, again) = ((LEN / SEGMENT) as u64, nat.tcp_resent);
            ensure!(again < sent / 4, "{again} of {sent} sent again");
            Ok(())
        })?;
        pair.finish()
    });
}
