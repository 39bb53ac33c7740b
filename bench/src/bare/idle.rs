//! What a packet costs the agent's NAT where it holds one flow, and where it holds ten thousand that are idle.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit};
use pmz_cli::playground::netns::NetNs;
use pmz_net::nat::TcpStack;
use pmz_tests::tcp::{Bed, Setting, sysctl};
use socket2::{Domain, Socket, Type};

use crate::congestion::APPLICATIONS;
use crate::cpu;
use crate::load::{TIMEOUT, Way};
use crate::reading::{Reading, Unit};
use crate::section::{Absent, Run};
use crate::tcp::flows::{Connected, Ends, Flows};

/// Not counted at the start of a flow.
const WARM_UP: Duration = Duration::from_millis(500);
/// Idle connections.
const IDLE: usize = 10_000;
/// Descriptors beside those: the bench's own, and the flow's.
const OTHERS: usize = 500;
/// Threads of the NAT's: its own, and the one that brings packets and may do its work.
const NAT_THREADS: [&str; 2] = ["pmz-nat", "nat-tun"];

pub(super) const COST_ALONE: [&str; 2] = ["NAT, up, 1 flow", "NAT, down, 1 flow"];
pub(super) const COST_BESIDE: [&str; 2] = [
    "NAT, up, 10,000 idle flows beside it",
    "NAT, down, 10,000 idle flows beside it",
];

/// Measures both ways without the idle flows and with them. Blocks.
///
/// # Errors
/// [`Absent`] where a process may not have so many descriptors.
pub(super) async fn measure(run: &Run) -> Result<Vec<Reading>> {
    let (may, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = IDLE + OTHERS;
    if may < needed as u64 {
        let why = format!("{needed} descriptors are needed, and {may} are allowed (ulimit -Hn)");
        return Err(Absent(why).into());
    }
    let setting = Setting {
        mtu: 1420,
        ipv6: false,
        stack: TcpStack::Own,
    };
    let bed = Bed::clean(setting, APPLICATIONS.into()).await?;
    tokio::task::block_in_place(|| {
        let mut readings = costs(&bed, COST_ALONE, run.duration)?;
        let idle = Idle::new(&bed, IDLE).context("idle connections")?;
        readings.extend(costs(&bed, COST_BESIDE, run.duration)?);
        drop(idle);
        Ok(readings)
    })
}

fn costs(bed: &Bed, whats: [&'static str; 2], duration: Duration) -> Result<Vec<Reading>> {
    let cost = |(what, way)| {
        let cost = cost(bed, way, duration)?;
        Ok(Reading::new(what, Unit::SecondsPerGigabyte, cost))
    };
    whats
        .into_iter()
        .zip([Way::Up, Way::Down])
        .map(cost)
        .collect()
}

/// Processor seconds of the NAT's threads for 10^9 bytes of one flow.
fn cost(bed: &Bed, way: Way, duration: Duration) -> Result<f64> {
    let ends = Ends {
        from: &bed.client,
        to: &bed.service,
        at: bed.ours_at,
        way,
        client: APPLICATIONS,
        server: APPLICATIONS,
    };
    let flows = Connected::new(ends, 1)?.start()?;
    thread::sleep(WARM_UP);
    let now = |flows: &Flows| -> Result<(f64, u64)> {
        let cpu = cpu::of_threads(&NAT_THREADS)?;
        Ok((cpu.as_secs_f64(), flows.read().iter().sum()))
    };
    let (cpu, bytes) = now(&flows)?;
    thread::sleep(duration);
    let (cpu_then, bytes_then) = now(&flows)?;
    flows.finish()?;
    Ok((cpu_then - cpu) / ((bytes_then - bytes) as f64 / 1e9))
}

/// Connections on which nothing is sent. They end when dropped.
struct Idle {
    /// Dropped first, which the thread waits for.
    held: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Idle {
    /// So many from the bed's client through the NAT. Nobody accepts them: they stand in the listener's queue, and
    /// take no descriptor there.
    fn new(bed: &Bed, count: usize) -> Result<Self> {
        sysctl(&bed.service, "core/somaxconn", &count.to_string())?;
        let listener = bed.service.run(|| listen(bed.ours_at, count))??;
        let at = listener.local_addr()?;
        let (held, until) = mpsc::channel::<()>();
        let (told, ready) = mpsc::channel();
        let client = bed.client.clone();
        let thread = thread::Builder::new().name("idle-flows".into());
        let thread = thread.spawn(move || {
            let connections = connect(&client, at, count);
            let is_ready = connections
                .as_ref()
                .map(|_| ())
                .map_err(|e| anyhow!("{e:#}"));
            if told.send(is_ready).is_ok() {
                let _ = until.recv();
            }
            drop((connections, listener));
        })?;
        let idle = Self {
            held: Some(held),
            thread: Some(thread),
        };
        ready.recv().context("the thread ended")??;
        Ok(idle)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.held = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(at: IpAddr, count: usize) -> Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(at, 0)),
        Type::STREAM,
        None,
    )?;
    socket.bind(&SocketAddr::new(at, 0).into())?;
    socket.listen(i32::try_from(count)?)?;
    Ok(socket.into())
}

/// The calling thread gets descriptors of its own: the NAT, in this process, needs as many as the connections.
fn connect(client: &NetNs, at: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    unshare(CloneFlags::CLONE_FILES).context("descriptors of its own")?;
    let within = Instant::now() + TIMEOUT * 3;
    client.run(|| {
        let connect = |number| {
            let left = within.saturating_duration_since(Instant::now());
            let connected = TcpStream::connect_timeout(&at, left.min(TIMEOUT));
            connected.with_context(|| format!("connection {number}"))
        };
        (0..count).map(connect).collect()
    })?
}
