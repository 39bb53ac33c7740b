//! Segments that are very small, and super-packets.

use std::time::Duration;

use anyhow::ensure;
use pmz_net::nat::NatSnapshot;

use crate::pair::Pair;
use crate::stage::Stage;

const MIB: usize = 1 << 20;

#[test]
fn a_client_that_asks_for_small_segments_gets_no_larger_ones() {
    for (ipv6, mss) in [(false, 88), (false, 536), (true, 88), (true, 536)] {
        Stage::link("delay=1ms,rate=100mbit,loss=0.1%")
            .ipv6(ipv6)
            .play("small segments", move |play| {
                let pair = Pair::with(&play.bed, |socket| socket.set_tcp_mss(mss))?;
                let down = pair.down(256 << 10)?;
                let view = pair.view()?;
                ensure!(view.received_segment <= mss, "{view:?}");
                ensure!(view.segment <= mss, "{view:?}");
                let up = pair.up(256 << 10)?;
                let most = Duration::from_secs(2);
                ensure!(down < most && up < most, "{down:?} down, {up:?} up");
                pair.finish()
            });
    }
}

/// Bytes of an average frame between the two, into the NAT and out of it.
fn frames(before: NatSnapshot, after: NatSnapshot) -> (u64, u64) {
    let average = |bytes: u64, frames: u64| bytes / frames.max(1);
    (
        average(
            after.bytes_in - before.bytes_in,
            after.frames_in - before.frames_in,
        ),
        average(
            after.bytes_out - before.bytes_out,
            after.frames_out - before.frames_out,
        ),
    )
}

#[test]
fn super_packets_go_both_ways_over_both_families() {
    for ipv6 in [false, true] {
        Stage::straight().ipv6(ipv6).play("super-packets", |play| {
            const LEN: usize = 32 * MIB;
            let pair = Pair::new(&play.bed)?;
            let start = play.bed.nat.counters();
            pair.down(LEN)?;
            let middle = play.bed.nat.counters();
            pair.up(LEN)?;
            let end = play.bed.nat.counters();
            let (down, up) = (frames(start, middle), frames(middle, end));
            ensure!(
                down.1 > 10_000,
                "{} bytes in an average frame of a download",
                down.1
            );
            ensure!(
                up.0 > 10_000,
                "{} bytes in an average frame of an upload",
                up.0
            );
            // The machine may be busy for longer than a probe of the last segment waits.
            ensure!(end.tcp_timeouts == 0 && end.tcp_resent <= 3, "{end:?}");
            ensure!(pair.view()?.retransmits <= 3, "{:?}", pair.view()?);
            pair.finish()
        });
    }
}
