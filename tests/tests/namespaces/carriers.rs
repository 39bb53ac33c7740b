//! UDP when it can, streams when it must, and nothing lost in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pmz_cli::playground::api::Frozen;
use pmz_cli::playground::servers::blob::Pieces;
use pmz_cli::playground::world::World;
use pmz_tests::{
    Http, LINK_AS_A_CABLE, connect, eventually, options, scene, scene_for, status,
    wait_for_carrier, wait_for_state,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::service;

const MOVE: Duration = Duration::from_secs(20);
/// What has to flow on each carrier, each way, before the next change.
const SHARE: u64 = 10_000_000;

#[test]
fn a_download_and_an_upload_survive_each_change_of_carrier_byte_for_byte() {
    let link = || options(Some("udp=off"));
    scene("changes of carrier", link, async |world| {
        world.up(&[], false).await?;
        wait_for_carrier(world, "stream", MOVE).await?;
        let moved = Arc::new(AtomicU64::new(0));
        let down = download(world, moved.clone()).await?;
        let (stop, stopped) = watch::channel(false);
        let sent = Arc::new(AtomicU64::new(0));
        let up = upload(world, sent.clone(), stopped).await?;
        for (link, carrier) in [
            ("udp=off", "stream"),
            (LINK_AS_A_CABLE, "udp"),
            ("udp=off", "stream"),
            (LINK_AS_A_CABLE, "udp"),
        ] {
            let emulated = world.playground().link().context("no link")?;
            emulated.set_spec(link.parse()?);
            let now = wait_for_carrier(world, carrier, MOVE).await?;
            println!("{now} {moved:?} down, {sent:?} up");
            for counter in [&moved, &sent] {
                let before = counter.load(Ordering::Relaxed);
                eventually(&format!("2 MB on {carrier}"), MOVE, async || {
                    ensure!(!down.is_finished(), "the download ended");
                    ensure!(!up.is_finished(), "the upload ended");
                    let so_far = counter.load(Ordering::Relaxed);
                    Ok((so_far - before >= SHARE).then_some(()))
                })
                .await
                .with_context(|| format!("{moved:?} down, {sent:?} up"))?;
            }
        }
        down.abort();
        stop.send_replace(true);
        up.await?
    });
}

/// Downloads without end, and compares each byte.
async fn download(world: &World, moved: Arc<AtomicU64>) -> Result<JoinHandle<Result<()>>> {
    const LEN: u64 = 1 << 40;
    let blob = service(world, "default", "blob", 4)?;
    let mut http = Http::get(world, blob, &format!("/{LEN}?seed=5")).await?;
    Ok(tokio::spawn(async move {
        let mut got = Vec::new();
        for piece in Pieces::new(LEN, 5) {
            got.resize(piece.len(), 0);
            http.body.read_exact(&mut got).await?;
            if got != piece {
                bail!("wrong bytes after {moved:?}");
            }
            moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }))
}

/// Uploads until it is told to stop, and compares what the server says of it.
async fn upload(
    world: &World,
    sent: Arc<AtomicU64>,
    stop: watch::Receiver<bool>,
) -> Result<JoinHandle<Result<()>>> {
    let blob = service(world, "default", "blob", 6)?;
    let mut stream = connect(world, blob).await?;
    let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    Ok(tokio::spawn(async move {
        let mut hash = Sha256::new();
        for piece in Pieces::new(1 << 40, 6) {
            if *stop.borrow() {
                break;
            }
            hash.update(&piece);
            let chunk = format!("{:x}\r\n", piece.len());
            stream.write_all(chunk.as_bytes()).await?;
            stream.write_all(&piece).await?;
            stream.write_all(b"\r\n").await?;
            sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        stream.write_all(b"0\r\n\r\n").await?;
        let answer = Http::answer(stream).await?.text().await?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let sha256: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        ensure!(answer["bytes"] == sent.load(Ordering::Relaxed), "{answer}");
        ensure!(answer["sha256"] == sha256, "{answer}");
        Ok(())
    }))
}

#[test]
fn many_flows_far_away_get_more_port_forwards_and_lose_no_byte_by_it() {
    let link = || options(Some("delay=10ms,rate=100mbit,udp=off"));
    let test = "more port-forwards";
    scene_for(test, Duration::from_secs(120), link, async |world| {
        world.up(&[], false).await?;
        wait_for_carrier(world, "stream", MOVE).await?;
        let mut flows = Vec::new();
        for _ in 0..12 {
            let moved = Arc::new(AtomicU64::new(0));
            flows.push((download(world, moved.clone()).await?, moved));
        }
        wait_for_port_forwards(world, 8, MOVE).await?;
        // Flows that moved to a new one, and those that stayed.
        for (flow, moved) in &flows {
            let before = moved.load(Ordering::Relaxed);
            eventually("1 MB of each", MOVE, async || {
                ensure!(!flow.is_finished(), "a download ended");
                let so_far = moved.load(Ordering::Relaxed);
                Ok((so_far - before >= 1_000_000).then_some(()))
            })
            .await?;
        }
        for (flow, _) in flows {
            flow.abort();
        }
        wait_for_port_forwards(world, 2, Duration::from_secs(60)).await?;
        let echo = service(world, "default", "echo", 4)?;
        let text = Http::get(world, echo, "/?echo_body=still").await?;
        ensure!(text.text().await? == "\"still\"");
        ensure!(status(world).await?["reconnects"] == 0);
        Ok(())
    });
}

async fn wait_for_port_forwards(world: &World, count: usize, within: Duration) -> Result<()> {
    let wanted = format!("{count} port-forwards");
    eventually(&wanted, within, async || {
        let status = status(world).await?;
        Ok((status["carrier"]["endpoint"] == wanted).then_some(()))
    })
    .await
}

#[test]
fn port_forwards_that_go_silent_without_closing_are_found_within_15_s() {
    scene(
        "silent port-forwards",
        || options(None),
        async |world| {
            world.up(&["--transport", "stream"], false).await?;
            wait_for_state(world, "connected", MOVE).await?;
            world.api().freeze_port_forwards(Frozen::All);
            let frozen = std::time::Instant::now();
            wait_for_state(world, "reconnecting", Duration::from_secs(15)).await?;
            println!("silence found after {:?}", frozen.elapsed());
            world.api().freeze_port_forwards(Frozen::None);
            wait_for_state(world, "connected", Duration::from_secs(15)).await?;
            let echo = service(world, "default", "echo", 4)?;
            let text = Http::get(world, echo, "/?echo_body=again")
                .await?
                .text()
                .await?;
            ensure!(text == "\"again\"", "{text}");
            Ok(())
        },
    );
}

#[test]
fn silent_port_forwards_are_left_for_new_ones() {
    scene(
        "new port-forwards",
        || options(None),
        async |world| {
            world.up(&["--transport", "stream"], false).await?;
            let echo = service(world, "default", "echo", 6)?;
            world.api().freeze_port_forwards(Frozen::Open);
            // The old ones never come back, and are never closed either.
            eventually(
                "an answer by new port-forwards",
                Duration::from_secs(20),
                async || {
                    let get = async {
                        Http::get(world, echo, "/?echo_body=new")
                            .await?
                            .text()
                            .await
                    };
                    let text = tokio::time::timeout(Duration::from_secs(2), get).await;
                    Ok(matches!(text, Ok(Ok(text)) if text == "\"new\"").then_some(()))
                },
            )
            .await
        },
    );
}
