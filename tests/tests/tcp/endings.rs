//! How connections end.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

use crate::pair::{Pair, ends, joined, send};
use crate::stage::{Play, Stage, await_that};

const MIB: usize = 1 << 20;
const LINK: &str = "delay=5ms,rate=100mbit";

/// On a link, over both families.
fn over_both(test: &'static str, play: fn(&Play) -> Result<()>) {
    for ipv6 in [false, true] {
        Stage::link(LINK).ipv6(ipv6).play(test, play);
    }
}

/// Reads until the end, which is to be a reset.
fn is_reset(mut stream: &TcpStream) -> Result<()> {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => anyhow::bail!("a reset looks like an ordinary end"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("another error than a reset"),
        }
    }
}

fn reset(stream: TcpStream) -> Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

fn all_flows_end(play: &Play) -> Result<()> {
    await_that("the NAT has forgotten the flow", || {
        Ok(play.bed.nat.counters().tcp_flows == 0)
    })
}

#[test]
fn a_client_that_closed_its_direction_still_receives() {
    over_both("half-close by the client", |play| {
        let pair = Pair::new(&play.bed)?;
        pair.up(100_000)?;
        pair.client.shutdown(Shutdown::Write)?;
        ends(&pair.service)?;
        pair.down(MIB)?;
        pair.service.shutdown(Shutdown::Write)?;
        ends(&pair.client)?;
        all_flows_end(play)?;
        ensure!(
            play.bed.nat.counters().tcp_timeouts == 0,
            "{:?}",
            play.bed.nat.counters()
        );
        Ok(())
    });
}

#[test]
fn a_service_that_closed_its_direction_still_receives() {
    over_both("half-close by the service", |play| {
        let pair = Pair::new(&play.bed)?;
        pair.down(100_000)?;
        pair.service.shutdown(Shutdown::Write)?;
        ends(&pair.client)?;
        pair.up(MIB)?;
        pair.client.shutdown(Shutdown::Write)?;
        ends(&pair.service)?;
        all_flows_end(play)?;
        ensure!(
            play.bed.nat.counters().tcp_timeouts == 0,
            "{:?}",
            play.bed.nat.counters()
        );
        Ok(())
    });
}

#[test]
fn both_may_close_at_the_same_time() {
    over_both("simultaneous close", |play| {
        for _ in 0..5 {
            let pair = Pair::new(&play.bed)?;
            pair.both(10_000)?;
            thread::scope(|scope| {
                let client = scope.spawn(|| -> Result<()> {
                    pair.client.shutdown(Shutdown::Write)?;
                    ends(&pair.client)
                });
                pair.service.shutdown(Shutdown::Write)?;
                ends(&pair.service)?;
                joined(client.join())
            })?;
        }
        all_flows_end(play)?;
        let nat = play.bed.nat.counters();
        ensure!(
            nat.tcp_resent == 0 && nat.tcp_timeouts == 0 && nat.stray_segments == 0,
            "{nat:?}"
        );
        Ok(())
    });
}

#[test]
fn a_reset_by_the_client_reaches_the_service() {
    over_both("reset by the client", |play| {
        let pair = Pair::new(&play.bed)?;
        pair.both(10_000)?;
        reset(pair.client)?;
        is_reset(&pair.service)?;
        all_flows_end(play)
    });
}

#[test]
fn a_reset_by_the_service_reaches_the_client() {
    over_both("reset by the service", |play| {
        let pair = Pair::new(&play.bed)?;
        pair.both(10_000)?;
        reset(pair.service)?;
        is_reset(&pair.client)?;
        all_flows_end(play)
    });
}

#[test]
fn a_reset_in_the_middle_of_a_transfer_ends_it_on_both_sides() {
    over_both("reset in the middle", |play| {
        let pair = Pair::new(&play.bed)?;
        thread::scope(|scope| {
            let sending = scope.spawn(|| send(&pair.service, 64 * MIB));
            await_that("it is under way", || Ok(play.down()?.delivered > 20))?;
            reset(pair.client)?;
            ensure!(
                joined(sending.join()).is_err(),
                "there was nobody to take all of it"
            );
            Ok(())
        })?;
        all_flows_end(play)?;
        // A connection that is new is none the worse for it.
        let pair = Pair::new(&play.bed)?;
        pair.both(10_000)?;
        pair.finish()
    });
}

#[test]
fn a_service_that_is_not_there_refuses_at_once() {
    over_both("refused", |play| {
        let at = std::net::SocketAddr::new(play.bed.ours_at, 9);
        let connect = || TcpStream::connect_timeout(&at, Duration::from_secs(5));
        let refused = play.bed.client.run(connect)?;
        let kind = refused.err().map(|error| error.kind());
        ensure!(kind == Some(ErrorKind::ConnectionRefused), "{kind:?}");
        all_flows_end(play)
    });
}
