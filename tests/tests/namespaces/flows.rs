//! What programs are used to of a network, through the tunnel, in both families.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pmz_cli::playground::world::World;
use pmz_tests::{connect, eventually, options, scene, socket, udp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::{pod, service};

const ANSWER: Duration = Duration::from_secs(5);

#[test]
fn flows_end_are_refused_and_are_cut_as_on_a_cable_in_both_families() {
    scene(
        "flows",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            for family in [4, 6] {
                let all = async {
                    refused(world, family).await.context("refused")?;
                    unreachable(world, family).await.context("unreachable")?;
                    unknown_service(world, family)
                        .await
                        .context("unknown service")?;
                    half_closed(world, family).await.context("half-closed")?;
                    big_datagram(world, family).await.context("big datagram")?;
                    reset_here(world, family).await.context("reset here")?;
                    reset_there(world, family).await.context("reset there")
                };
                all.await.with_context(|| format!("IPv{family}"))?;
            }
            Ok(())
        },
    );
}

/// How connecting fails, and that it does so at once.
async fn failure(world: &World, to: SocketAddr) -> Result<std::io::Error> {
    let begun = Instant::now();
    let connecting = socket(world, to)?.connect(to);
    let Err(error) = timeout(ANSWER, connecting).await.context("no answer")? else {
        bail!("{to} accepts");
    };
    ensure!(
        begun.elapsed() < Duration::from_secs(1),
        "after {:?}: {error}",
        begun.elapsed()
    );
    Ok(error)
}

async fn refused(world: &World, family: u8) -> Result<()> {
    // A service without pods, and a pod that doesn't listen there.
    for to in [
        service(world, "default", "empty", family)?,
        pod(world, "echo-0", 81, family)?,
    ] {
        let error = failure(world, to).await?;
        ensure!(
            error.kind() == ErrorKind::ConnectionRefused,
            "{to}: {error}"
        );
    }
    Ok(())
}

async fn unreachable(world: &World, family: u8) -> Result<()> {
    let nobody: SocketAddr = match family {
        4 => "10.244.0.200:80".parse()?,
        _ => "[fd00:10:244::200]:80".parse()?,
    };
    // A neighbour that does not answer is given up after three seconds, by any router.
    let connecting = socket(world, nobody)?.connect(nobody);
    let Err(error) = timeout(Duration::from_secs(8), connecting)
        .await
        .context("no answer")?
    else {
        bail!("{nobody} accepts");
    };
    let kinds = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
    ensure!(kinds.contains(&error.kind()), "{error}");
    Ok(())
}

/// A ClusterIP that no service has: this machine knows, and says so itself.
async fn unknown_service(world: &World, family: u8) -> Result<()> {
    let nobody: SocketAddr = match family {
        4 => "10.96.200.200:80".parse()?,
        _ => "[fd00:10:96::c8c8]:80".parse()?,
    };
    let error = failure(world, nobody).await?;
    ensure!(
        error.kind() == ErrorKind::ConnectionRefused,
        "{nobody}: {error}"
    );
    Ok(())
}

async fn half_closed(world: &World, family: u8) -> Result<()> {
    let mut stream = connect(world, pod(world, "db-1", 5432, family)?).await?;
    let sent: Vec<u8> = (0..300_000_u32).map(|i| (i % 251) as u8).collect();
    let (mut reader, mut writer) = stream.split();
    let mut back = Vec::new();
    let (written, read) = tokio::join!(
        async {
            writer.write_all(&sent).await?;
            writer.shutdown().await
        },
        timeout(Duration::from_secs(10), reader.read_to_end(&mut back))
    );
    written?;
    read.context("no end")??;
    ensure!(
        back == sent,
        "{} of {} bytes came back",
        back.len(),
        sent.len()
    );
    Ok(())
}

async fn big_datagram(world: &World, family: u8) -> Result<()> {
    let server = service(world, "default", "udp-echo", family)?;
    let any = match family {
        4 => [0, 0, 0, 0].into(),
        _ => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = udp(world, any)?;
    let sent: Vec<u8> = (0..3000_u32).map(|i| (i % 253) as u8).collect();
    socket.send_to(&sent, server).await?;
    let mut back = [0; 4096];
    let (len, from) = timeout(ANSWER, socket.recv_from(&mut back))
        .await
        .context("no echo")??;
    ensure!(
        from == server && back[..len] == sent,
        "{len} bytes from {from}"
    );
    Ok(())
}

/// A reset of the laptop's reaches the server: `slow` waits for nothing else.
async fn reset_here(world: &World, family: u8) -> Result<()> {
    let slow = world.playground().pod("slow-0").context("no slow-0")?;
    let established = || -> Result<usize> {
        let count = slow.in_netns(|| {
            let table = std::fs::read_to_string("/proc/thread-self/net/tcp6")?;
            // State 01 is ESTABLISHED.
            Ok::<_, std::io::Error>(
                table
                    .lines()
                    .filter(|l| l.split_whitespace().nth(3) == Some("01"))
                    .count(),
            )
        })??;
        Ok(count)
    };
    let stream = connect(world, service(world, "default", "slow", family)?).await?;
    eventually("a connection at the server", ANSWER, async || {
        Ok((established()? == 1).then_some(()))
    })
    .await?;
    // Linger of zero: closing is a reset.
    stream.set_zero_linger()?;
    drop(stream);
    eventually("a reset at the server", ANSWER, async || {
        Ok((established()? == 0).then_some(()))
    })
    .await
}

/// A reset of the server's reaches the laptop as one.
async fn reset_there(world: &World, family: u8) -> Result<()> {
    let machine = world.playground().pod("echo-1").context("no echo-1")?;
    let listener = machine.in_netns(|| {
        let listener = std::net::TcpListener::bind(("::", 0))?;
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    })??;
    let port = listener.local_addr()?.port();
    let mut stream = connect(world, pod(world, "echo-1", port, family)?).await?;
    let (server, _) = timeout(ANSWER, listener.accept())
        .await
        .context("nobody came")??;
    server.set_zero_linger()?;
    drop(server);
    let read = timeout(ANSWER, stream.read(&mut [0]))
        .await
        .context("no reset")?;
    ensure!(
        read.as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset),
        "{read:?}"
    );
    Ok(())
}
