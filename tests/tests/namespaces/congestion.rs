//! What TCP connections through the tunnel use: the machine's own, or BBR while their packets take a long way by UDP.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::world::World;
use pmz_tests::{connect, eventually, options, scene, skipped, socket, status, wait_for_carrier};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pod;

const MOVE: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(5);
/// What a laptop may have as its own on any machine.
const OWN: &str = "reno";

#[test]
fn new_connections_use_bbr_over_a_far_link_by_udp_and_the_laptops_own_by_streams_and_over_a_near_one()
 {
    scene(
        "congestion control",
        || options(Some("delay=10ms")),
        async |world| {
            let probe = socket(world, "192.0.2.1:1".parse()?)?;
            if SockRef::from(&probe).set_tcp_congestion(b"bbr").is_err() {
                skipped("congestion control", "this kernel has no bbr");
                return Ok(());
            }
            let choose = || fs::write("/proc/sys/net/ipv4/tcp_congestion_control", OWN);
            world.playground().laptop().in_netns(choose)??;
            world.up(&[], false).await?;
            wait_for_carrier(world, "udp", MOVE).await?;
            wait_until_used(world, "bbr").await.context("far, by UDP")?;
            ensure!(status(world).await?["congestion"] == "bbr");
            let mut open = connect(world, pod(world, "db-1", 5432, 4)?).await?;
            goes_on(&mut open, "bbr").await?;

            let link = world.playground().link().context("no link")?;
            link.set_spec("delay=10ms,udp=off".parse()?);
            wait_for_carrier(world, "stream", MOVE).await?;
            wait_until_used(world, OWN).await.context("by streams")?;
            goes_on(&mut open, "bbr").await?;

            link.set_spec("delay=10ms".parse()?);
            wait_for_carrier(world, "udp", MOVE).await?;
            wait_until_used(world, "bbr").await.context("far again")?;
            goes_on(&mut open, "bbr").await?;

            link.set_spec("".parse()?);
            wait_until_used(world, OWN).await.context("near")?;
            ensure!(status(world).await?.get("congestion").is_none());
            goes_on(&mut open, "bbr").await
        },
    );
}

/// Of new connections, in both families.
async fn wait_until_used(world: &World, congestion: &str) -> Result<()> {
    eventually(congestion, MOVE, async || {
        for family in [4, 6] {
            let stream = connect(world, pod(world, "db-1", 5432, family)?).await?;
            if used(&stream)? != congestion {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}

fn used(stream: &TcpStream) -> Result<String> {
    let name = SockRef::from(stream).tcp_congestion()?;
    let name = String::from_utf8(name)?;
    Ok(name.trim_end_matches('\0').to_owned())
}

/// A connection still carries bytes both ways, as it did.
async fn goes_on(stream: &mut TcpStream, congestion: &str) -> Result<()> {
    // The server waits for the end of a line.
    let mut sent: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    sent.push(b'\n');
    let mut back = vec![0; sent.len()];
    let (mut reader, mut writer) = stream.split();
    let (written, read) = tokio::join!(
        writer.write_all(&sent),
        timeout(ANSWER, reader.read_exact(&mut back))
    );
    written?;
    read.context("an open connection stands still")??;
    ensure!(back == sent, "an open connection gives other bytes");
    ensure!(used(stream)? == congestion, "{}", used(stream)?);
    Ok(())
}
