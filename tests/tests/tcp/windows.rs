//! Readers that do not read, and readers that have little room.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::kernel::counter;
use crate::pair::{Pair, joined, receive, send};
use crate::stage::{Stage, await_that};

const MIB: usize = 1 << 20;
const LINK: &str = "delay=5ms,rate=400mbit,queue=200ms";

#[test]
fn a_client_that_does_not_read_is_probed_and_gets_the_rest_when_it_reads() {
    for ipv6 in [false, true] {
        Stage::link(LINK)
            .ipv6(ipv6)
            .play("client does not read", |play| {
                const LEN: usize = 24 * MIB;
                let pair = Pair::new(&play.bed)?;
                thread::scope(|scope| -> Result<()> {
                    let sending = scope.spawn(|| send(&pair.service, LEN));
                    await_that("the client's window is closed", || {
                        Ok(counter(&play.bed.client, "TCPToZeroWindowAdv")? > 0)
                    })?;
                    await_that("nothing but probes moves", || {
                        let before = play.down()?.delivered;
                        thread::sleep(Duration::from_millis(50));
                        Ok(play.down()?.delivered <= before + 1)
                    })?;
                    let before = play.down()?.delivered;
                    await_that("the agent asks for the window", || {
                        Ok(play.down()?.delivered > before)
                    })?;
                    ensure!(!sending.is_finished(), "nothing held the service back");
                    receive(&pair.client, LEN)?;
                    joined(sending.join())
                })?;
                let nat = play.bed.nat.counters();
                ensure!(nat.tcp_timeouts == 0, "{nat:?}");
                pair.finish()
            });
    }
}

#[test]
fn a_service_that_does_not_read_closes_the_clients_window_and_opens_it_again() {
    for ipv6 in [false, true] {
        Stage::link(LINK)
            .ipv6(ipv6)
            .play("service does not read", |play| {
                const LEN: usize = 24 * MIB;
                let pair = Pair::new(&play.bed)?;
                thread::scope(|scope| -> Result<()> {
                    let sending = scope.spawn(|| send(&pair.client, LEN));
                    await_that("the agent's window is closed", || {
                        Ok(pair.view()?.offered_window == 0)
                    })?;
                    await_that("the client asks for the window", || {
                        Ok(counter(&play.bed.client, "TCPWinProbe")? > 0)
                    })?;
                    await_that("it is answered", || Ok(pair.view()?.probes == 0))?;
                    ensure!(!sending.is_finished(), "nothing held the client back");
                    receive(&pair.service, LEN)?;
                    joined(sending.join())
                })?;
                let (nat, view) = (play.bed.nat.counters(), pair.view()?);
                ensure!(nat.tcp_refused_bytes == 0, "{nat:?}");
                ensure!(
                    view.retransmits <= 3 && view.window_limited_us > 0,
                    "{view:?}"
                );
                pair.finish()
            });
    }
}

#[test]
fn a_client_with_little_room_gets_everything_in_small_pieces() {
    for ipv6 in [false, true] {
        Stage::link("delay=1ms")
            .ipv6(ipv6)
            .play("small receive buffer", |play| {
                let pair = Pair::with(&play.bed, |socket| socket.set_recv_buffer_size(4096))?;
                let took = pair.down(256 << 10)?;
                // A window of about 3 KiB a round trip of 2 ms.
                ensure!(took < Duration::from_secs(3), "{took:?}");
                let nat = play.bed.nat.counters();
                ensure!(nat.tcp_timeouts == 0, "{nat:?}");
                pair.up(256 << 10)?;
                pair.finish()
            });
    }
}
