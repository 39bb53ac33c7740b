//! What both ends agree on, and what becomes of a connection without it.

use std::time::Duration;

use anyhow::{Result, ensure};
use pmz_tests::tcp::View;

use crate::pair::Pair;
use crate::stage::{Stage, await_that};

const MIB: usize = 1 << 20;

#[test]
fn linux_and_the_agent_agree_on_every_option_over_both_families() {
    for (ipv6, headers) in [(false, 40), (true, 60)] {
        Stage::link("delay=2ms,rate=200mbit")
            .ipv6(ipv6)
            .timed()
            .play("options", move |play| {
                let pair = Pair::new(&play.bed)?;
                let view = pair.view()?;
                ensure!(view.timestamps && view.sack && view.scaling, "{view:?}");
                ensure!(!view.ecn, "nobody asked for it: {view:?}");
                // What the option of timestamps takes is not there for payload.
                ensure!(view.segment == 1500 - headers - 12, "{view:?}");
                pair.down(MIB)?;
                pair.up(MIB)?;
                let view = pair.view()?;
                ensure!(view.received_segment == 1500 - headers - 12, "{view:?}");
                ensure!(view.retransmits == 0, "{view:?}");
                ensure!(
                    view.offered_window > 1 << 16,
                    "the window is scaled: {view:?}"
                );
                // There and back it is 4 ms.
                ensure!((4_000..40_000).contains(&view.min_rtt_us), "{view:?}");
                pair.finish()
            });
    }
}

/// Both ways over a link that loses, with something turned off at the client.
fn transfers_without(
    test: &str,
    off: &'static [&'static str],
    ipv6: bool,
    agreed: fn(&View) -> bool,
) {
    let mut stage = Stage::link("delay=2ms,rate=100mbit,loss=1%").ipv6(ipv6);
    for name in off {
        stage = stage.client(name, "0");
    }
    stage.play(test, move |play| {
        let pair = Pair::new(&play.bed)?;
        let view = pair.view()?;
        ensure!(agreed(&view), "{view:?}");
        let down = pair.down(2 * MIB)?;
        let (link, counters) = (play.down()?, play.bed.nat.counters());
        // Only the loss of what was sent again is found by nothing else than a timeout.
        ensure!(
            link.lost > 5 && counters.tcp_timeouts <= 2,
            "{link:?} {counters:?}"
        );
        if counters.tcp_timeouts == 0 {
            let most = link.lost + link.dropped + 5;
            ensure!(counters.tcp_resent <= most, "{link:?} {counters:?}");
        }
        let up = pair.up(2 * MIB)?;
        // The link alone takes 0.17 s.
        let most = Duration::from_millis(1500);
        ensure!(
            down < most && up < most,
            "{down:?} down, {up:?} up, {counters:?}"
        );
        pair.finish()
    });
}

#[test]
fn a_client_without_timestamps_is_served_as_well() {
    transfers_without("no timestamps", &["tcp_timestamps"], false, |view| {
        !view.timestamps && view.sack && view.scaling && view.segment == 1460
    });
}

#[test]
fn a_client_without_selective_acknowledgements_is_served_as_well() {
    transfers_without("no sack", &["tcp_sack"], true, |view| {
        view.timestamps && !view.sack && view.scaling
    });
}

#[test]
fn a_client_without_scaled_windows_is_served_as_well() {
    transfers_without("no scaling", &["tcp_window_scaling"], false, |view| {
        view.timestamps && view.sack && !view.scaling && view.offered_window <= 0xffff
    });
}

#[test]
fn a_client_without_any_option_is_served_as_well() {
    const ALL: &[&str] = &["tcp_timestamps", "tcp_sack", "tcp_window_scaling"];
    transfers_without("no options", ALL, true, |view| {
        !view.timestamps && !view.sack && !view.scaling && view.segment == 1440
    });
}

#[test]
fn a_clients_keepalive_is_answered() {
    Stage::link("delay=2ms").play("keepalive", |play| {
        let pair = Pair::with(&play.bed, |socket| {
            let often = Duration::from_secs(1);
            let keepalive = socket2::TcpKeepalive::new().with_time(often);
            // A single probe without an answer is the connection's end.
            socket.set_tcp_keepalive(&keepalive.with_interval(often).with_retries(1))
        })?;
        await_that("the client has probed twice", || {
            Ok(crate::kernel::counter(&play.bed.client, "TCPKeepAlive")? >= 2)
        })?;
        await_that("the probe is answered", || Ok(pair.view()?.probes == 0))?;
        pair.both(1)?;
        pair.finish()
    });
}

#[test]
fn a_link_that_becomes_narrower_is_used_as_it_is() {
    for ipv6 in [false, true] {
        Stage::link("delay=2ms,rate=100mbit")
            .ipv6(ipv6)
            .play("MTU", |play| {
                const NARROW: u16 = 1300;
                let pair = Pair::new(&play.bed)?;
                std::thread::scope(|scope| -> Result<()> {
                    let both = scope.spawn(|| pair.both(4 * MIB));
                    await_that("both are under way", || {
                        let [up, down] = play.link()?.counters();
                        Ok(up.delivered > 300 && down.delivered > 300)
                    })?;
                    play.bed.nat.set_mtu(NARROW);
                    let links = pmz_cli::playground::netlink::Links::open(&play.bed.server)?;
                    for interface in ["link0", "nat0"] {
                        let narrow = links.set_mtu_and_queue(interface, NARROW.into(), 10_000);
                        play.runtime.block_on(narrow)?;
                    }
                    crate::pair::joined(both.join())
                })?;
                let view = pair.view()?;
                ensure!(view.path_mtu == u32::from(NARROW), "{view:?}");
                ensure!(
                    view.segment <= u32::from(NARROW) - if play.ipv6 { 72 } else { 52 },
                    "{view:?}"
                );
                pair.finish()
            });
    }
}
