//! Many at once, and one that takes nothing.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::world::World;
use pmz_tests::{Http, connect, eventually, options, scene, script, socket, status, udp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::deaths::find_pmz;
use crate::{pod, service};

const CONNECTIONS: usize = 1000;
const LIMIT: Duration = Duration::from_secs(10);
/// All of pmz on the machine stands still, and goes on.
const STOP: &str = concat!(find_pmz!(), "kill -STOP $pids");
const GO_ON: &str = concat!(find_pmz!(), "kill -CONT $pids");

#[test]
fn a_thousand_connections_at_once_each_get_their_own_bytes_back() {
    scene(
        "a thousand connections",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            let db = pod(world, "db-0", 5432, 4)?;
            let mut connecting = JoinSet::new();
            for number in 0..CONNECTIONS {
                let socket = socket(world, db)?;
                connecting.spawn(async move {
                    Ok::<_, std::io::Error>((number, socket.connect(db).await?))
                });
            }
            let mut open = Vec::new();
            while let Some(connected) = connecting.join_next().await {
                open.push(connected?.with_context(|| format!("after {} connections", open.len()))?);
            }
            let begun = Instant::now();
            // All of them stand before the first one speaks.
            let mut talking = JoinSet::new();
            for (number, stream) in open {
                talking.spawn(talk(number, stream));
            }
            while let Some(talked) = talking.join_next().await {
                talked??;
            }
            println!("all have their bytes after {:?}", begun.elapsed());
            Ok(())
        },
    );
}

async fn talk(number: usize, mut stream: TcpStream) -> Result<()> {
    let mut line = format!("{number} ").repeat(4096 / 5).into_bytes();
    line.push(b'\n');
    let (mut reader, mut writer) = stream.split();
    let mut back = Vec::new();
    let (sent, got) = tokio::join!(
        async {
            writer.write_all(&line).await?;
            writer.shutdown().await
        },
        reader.read_to_end(&mut back)
    );
    sent.with_context(|| format!("send on connection {number}"))?;
    got.with_context(|| format!("read on connection {number}"))?;
    ensure!(
        back == line,
        "connection {number} got {} other bytes",
        back.len()
    );
    Ok(())
}

#[test]
fn connections_begun_while_pmz_is_stopped_lose_no_packet() {
    const AT_ONCE: usize = 800;
    scene(
        "a late reader",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            let db = pod(world, "db-0", 5432, 4)?;
            let laptop = world.playground().laptop();
            script(laptop, STOP).await?;
            let mut connecting = JoinSet::new();
            for _ in 0..AT_ONCE {
                connecting.spawn(socket(world, db)?.connect(db));
            }
            eventually("all connections are begun", LIMIT, async || {
                let begun = script(laptop, "grep -c ' 02 ' /proc/net/tcp || true").await?;
                Ok((begun.trim().parse::<usize>()? >= AT_ONCE).then_some(()))
            })
            .await?;
            script(laptop, GO_ON).await?;
            let mut open = Vec::new();
            while let Some(connected) = connecting.join_next().await {
                open.push(connected??);
            }
            let status = status(world).await?;
            ensure!(status["drops"].get("tun-queue").is_none(), "{status}");
            Ok(())
        },
    );
}

#[test]
fn what_found_no_room_before_the_tun_is_told_in_the_status() {
    const ROOM: u64 = 2000;
    const SENT: u64 = 3000;
    scene(
        "more than there is room for",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            let db = pod(world, "db-0", 5432, 4)?;
            let laptop = world.playground().laptop();
            let socket = udp(world, Ipv4Addr::UNSPECIFIED.into())?;
            script(laptop, STOP).await?;
            for _ in 0..SENT {
                socket.send_to(b"?", db).await?;
            }
            script(laptop, GO_ON).await?;
            let status = status(world).await?;
            let lost = status["drops"]["tun-queue"].as_u64();
            // pmz's own packets were in the queue, too, or a few had been read.
            let wanted = SENT - ROOM - 100..=SENT - ROOM + 100;
            ensure!(lost.is_some_and(|lost| wanted.contains(&lost)), "{status}");
            Ok(())
        },
    );
}

#[test]
fn a_service_that_never_reads_stops_its_sender_and_nobody_else() {
    scene(
        "a service that never reads",
        || options(None),
        async |world| {
            world.up(&[], false).await?;
            let slow = service(world, "default", "slow", 4)?;
            let mut stream = connect(world, slow).await?;
            let chunk = vec![7; 64 << 10];
            let mut accepted = 0;
            while accepted < 200_000_000 {
                match timeout(Duration::from_secs(2), stream.write(&chunk)).await {
                    Ok(written) => accepted += written?,
                    Err(_) => break,
                }
            }
            ensure!(accepted < 64_000_000, "{accepted} bytes are somewhere");

            let begun = Instant::now();
            let echo = service(world, "default", "echo", 4)?;
            let text = Http::get(world, echo, "/?echo_body=quick")
                .await?
                .text()
                .await?;
            ensure!(text == "\"quick\"", "{text}");
            ensure!(
                begun.elapsed() < Duration::from_secs(1),
                "{:?}",
                begun.elapsed()
            );
            let memory = agent_memory(world).await?;
            ensure!(memory < 300_000, "the agent holds {memory} kB");
            // Its end comes through where its bytes did not.
            drop(stream);
            Ok(())
        },
    );
}

/// The agent's resident memory, kB.
async fn agent_memory(world: &World) -> Result<u64> {
    let agent = format!("pmz/{}", world.agents()[0].pod());
    let machine = world.playground().pod(&agent).context("no agent pod")?;
    let all = script(&machine, "grep -h VmRSS /proc/[0-9]*/status").await?;
    // The agent is the biggest of the few there.
    let sizes = all
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    sizes.max().context("no VmRSS")
}
