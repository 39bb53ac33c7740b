//! Loads for which there is no packaged program: round trips, connections that are made and closed, and
//! connections that are reset beside one that goes on.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pmz_cli::playground::netns::NetNs;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stats::percentile;

/// A connection, or a byte on it, that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Round trips: so many, or as many as fit into that time.
const ROUND_TRIPS: usize = 5000;
const ROUND_TRIPS_WITHIN: Duration = Duration::from_secs(3);
/// Before these round trips the processes on the way may still be asleep.
const UNCOUNTED: usize = 20;

/// Runs a load in a network namespace, on a thread of its own.
fn on_one_thread<T: Send>(from: &NetNs, load: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    from.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(load())
    })?
}

async fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A byte there and back.
async fn round_trip(stream: &mut TcpStream) -> Result<()> {
    let there_and_back = async {
        stream.write_u8(1).await?;
        stream.read_u8().await
    };
    timeout(PATIENCE, there_and_back).await??;
    Ok(())
}

/// Seconds that one byte takes to a server that sends it back, and back: median and 99th percentile. Blocks.
///
/// # Errors
/// Where the connection can't be made, or breaks.
pub(super) fn round_trips(from: &NetNs, echo: SocketAddr) -> Result<(f64, f64)> {
    let mut times = on_one_thread(from, async || {
        let mut stream = connect(echo).await?;
        for _ in 0..UNCOUNTED {
            round_trip(&mut stream).await?;
        }
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        let end = Instant::now() + ROUND_TRIPS_WITHIN;
        while times.len() < ROUND_TRIPS && Instant::now() < end {
            let start = Instant::now();
            round_trip(&mut stream).await?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(times)
    })?;
    times.sort_by(f64::total_cmp);
    let of = |percent| percentile(&times, percent).context("no round trip ended");
    Ok((of(50)?, of(99)?))
}

/// When connections are enough.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// After that time.
    Passed(Duration),
    /// After so many.
    Made(u64),
}

/// Connections that were made one after the other.
#[derive(Clone, Debug)]
pub(super) struct Connects {
    /// When each one was over, in seconds after the start, in order.
    over: Vec<f64>,
    pub(super) failed: u64,
    /// Why the last one of those did.
    pub(super) why: Option<String>,
}

impl Connects {
    /// A second, of those that went well.
    pub(super) fn per_second(&self) -> f64 {
        let all = self.over.last().map_or(f64::INFINITY, |last| *last);
        self.over.len() as f64 / all
    }

    /// A second, of the first tenth and of the last.
    pub(super) fn first_and_last_tenth(&self) -> Option<(f64, f64)> {
        let tenth = self.over.len() / 10;
        let first = *self.over.get(tenth)?;
        let last = self.over.last()? - self.over.get(self.over.len() - 1 - tenth)?;
        Some((tenth as f64 / first, tenth as f64 / last))
    }
}

/// Connects to a server that sends one byte back and ends, so many at a time: a byte both ways, and closed by
/// both. Blocks.
///
/// # Errors
/// Where there is no runtime to be had.
pub(super) fn connects(
    from: &NetNs,
    once: SocketAddr,
    at_a_time: usize,
    until: Until,
) -> Result<Connects> {
    let (begun, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    on_one_thread(from, async || {
        let start = Instant::now();
        let goes_on = || match until {
            Until::Passed(duration) => start.elapsed() < duration,
            Until::Made(wanted) => begun.fetch_add(1, Ordering::Relaxed) < wanted,
        };
        let client = async || {
            let (mut over, mut why) = (Vec::new(), None);
            while goes_on() {
                match connect_once(once).await {
                    Ok(()) => over.push(start.elapsed().as_secs_f64()),
                    Err(error) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        why = Some(format!("{error:#}"));
                    }
                }
            }
            (over, why)
        };
        let clients = futures::future::join_all((0..at_a_time).map(|_| client())).await;
        let (over, why): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
        let mut over = over.concat();
        over.sort_by(f64::total_cmp);
        Ok(Connects {
            over,
            failed: failed.load(Ordering::Relaxed),
            why: why.into_iter().flatten().last(),
        })
    })
}

async fn connect_once(once: SocketAddr) -> Result<()> {
    let mut stream = connect(once).await?;
    round_trip(&mut stream).await?;
    let end = timeout(PATIENCE, stream.read(&mut [0])).await??;
    anyhow::ensure!(end == 0, "more than was sent");
    Ok(())
}

/// Makes connections that are reset in the middle, half of them by the client with bytes on the way, the
/// others by the server, beside one that sends bytes back and forth all the time. Afterwards as many new ones
/// are to work. Gives how often that was disturbed, with the last reason. Blocks.
///
/// # Errors
/// Where the connection beside them can't be made.
pub(super) fn resets(
    from: &NetNs,
    echo: SocketAddr,
    reset: SocketAddr,
    once: SocketAddr,
    count: u32,
) -> Result<(u64, Option<String>)> {
    on_one_thread(from, async || {
        let mut beside = connect(echo).await?;
        round_trip(&mut beside).await?;
        let over = AtomicBool::new(false);
        let goes_on = async {
            while !over.load(Ordering::Relaxed) {
                round_trip(&mut beside).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let others = async {
            for number in 0..count {
                // That they fail is what they are for.
                let _ = match number % 2 {
                    0 => reset_by_client(echo).await,
                    _ => reset_by_server(reset).await,
                };
            }
            over.store(true, Ordering::Relaxed);
        };
        let (beside, ()) = tokio::join!(goes_on, others);
        let (mut disturbed, mut why) = (0, None);
        let mut count_in = |result: Result<()>| {
            if let Err(error) = result {
                disturbed += 1;
                why = Some(format!("{error:#}"));
            }
        };
        count_in(beside.context("the connection beside them"));
        for _ in 0..count {
            count_in(connect_once(once).await.context("a new connection"));
        }
        Ok((disturbed, why))
    })
}

async fn reset_by_client(echo: SocketAddr) -> Result<()> {
    let mut stream = connect(echo).await?;
    // What comes back is never read.
    let _ = timeout(
        Duration::from_millis(20),
        stream.write_all(&vec![7; 256 << 10]),
    )
    .await;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(())
}

async fn reset_by_server(reset: SocketAddr) -> Result<()> {
    let mut stream = connect(reset).await?;
    stream.write_all(&[7; 4096]).await?;
    timeout(PATIENCE, stream.read(&mut [0])).await??;
    Ok(())
}
