//! Connections that are made and closed, as many as there can be in a second.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pmz_cli::playground::netns::NetNs;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::processes::resident;

/// A connection that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const BACKLOG: u32 = 4096;
/// Not counted: pools grow to what they need.
const WARM_UP: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connects {
    /// Made, and closed in order, per second.
    pub(crate) per_second: f64,
    /// The same in the slowest second.
    pub(crate) slowest_second: f64,
    pub(crate) failed: u64,
    /// Resident bytes of this process after the warm-up, and at the end.
    pub(crate) memory: [f64; 2],
}

/// What the tasks of the client count.
#[derive(Debug, Default)]
struct Counts {
    made: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// Connects from one namespace to a listener in another, so many at a time and for so long after the
/// warm-up. Blocks.
///
/// # Errors
/// Where there can be no listener, or nothing at all is connected.
pub(crate) fn measure(
    from: &NetNs,
    to: &NetNs,
    at: IpAddr,
    at_a_time: usize,
    duration: Duration,
) -> Result<Connects> {
    let counts = Arc::new(Counts::default());
    let listener = to.run(|| listen(at))??;
    let address = listener.local_addr()?;
    std::thread::scope(|scope| {
        let server = scope.spawn(|| -> Result<()> {
            let runtime = runtime()?;
            listener.set_nonblocking(true)?;
            runtime.block_on(serve(listener, &counts))
        });
        let client = scope.spawn(|| {
            from.run(|| -> Result<()> {
                runtime()?.block_on(connect(address, at_a_time, &counts));
                Ok(())
            })?
        });
        let connects = counts.watch(duration);
        counts.stop.store(true, Ordering::Relaxed);
        for thread in [server, client] {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        connects
    })
}

impl Counts {
    /// Looks on.
    fn watch(&self, duration: Duration) -> Result<Connects> {
        std::thread::sleep(WARM_UP);
        let (start, before) = (Instant::now(), self.made());
        let memory = resident(Path::new("/proc/self"))?;
        let mut slowest_second = f64::INFINITY;
        while start.elapsed() < duration {
            let (since, made) = (Instant::now(), self.made());
            std::thread::sleep(Duration::from_secs(1).min(duration));
            let rate = (self.made() - made) as f64 / since.elapsed().as_secs_f64();
            slowest_second = slowest_second.min(rate);
        }
        let made = self.made() - before;
        ensure!(made > 0, "no connection was made");
        Ok(Connects {
            per_second: made as f64 / start.elapsed().as_secs_f64(),
            slowest_second,
            failed: self.failed.load(Ordering::Relaxed),
            memory: [memory, resident(Path::new("/proc/self"))?],
        })
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn runtime() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context("a runtime for the connections")
}

fn listen(at: IpAddr) -> Result<std::net::TcpListener> {
    let address = SocketAddr::new(at, 0);
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.cast_signed())?;
    Ok(socket.into())
}

/// Closes each connection first: who does that keeps the pair of ports for a minute, and neither the
/// client's kernel nor the NAT's has ports for that.
async fn serve(listener: std::net::TcpListener, counts: &Arc<Counts>) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    while !counts.stopped() {
        let Ok(accepted) = timeout(Duration::from_millis(100), listener.accept()).await else {
            continue;
        };
        drop(accepted?);
    }
    Ok(())
}

async fn connect(to: SocketAddr, at_a_time: usize, counts: &Arc<Counts>) {
    let mut tasks = JoinSet::new();
    for _ in 0..at_a_time {
        let counts = Arc::clone(counts);
        tasks.spawn(async move {
            while !counts.stopped() {
                let count = match timeout(PATIENCE, one(to)).await {
                    Ok(Ok(())) => &counts.made,
                    _ if counts.stopped() => return,
                    _ => &counts.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    tasks.join_all().await;
}

/// One connection, made and, once the service has, closed in order.
async fn one(to: SocketAddr) -> std::io::Result<()> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let mut stream: TcpStream = socket?.connect(to).await?;
    match stream.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
