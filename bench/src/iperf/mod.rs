//! iperf3 as the load: TCP flows as fast as they go, and datagrams at a rate.

mod told;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use pmz_tests::eventually;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::congestion::Congestion;
use crate::load::{Course, Way};
use crate::process;
use crate::section::Absent;
pub(crate) use told::Datagrams;
use told::{End, Flow, Told};

pub(crate) const IPERF3: &str = "iperf3";
/// Beside the time of a flow: to start, connect and end, with many flows on busy cores.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of a flow, not counted. iperf3 takes whole seconds.
const WARM_UP: Duration = Duration::from_secs(1);
/// Bytes of a datagram's payload.
const DATAGRAM: &str = "1200";
/// A socket's buffer for datagrams, in bytes, as far as the kernel allows: with the kernel's usual 208 KiB
/// iperf3 itself loses some where nothing else does, whenever it doesn't run for a millisecond.
const BUFFER: u64 = 4 << 20;

/// Says why iperf3 can't be used.
///
/// # Errors
/// [`Absent`].
pub(crate) fn is_needed() -> Result<()> {
    if process::is_installed(IPERF3) {
        return Ok(());
    }
    Err(Absent("iperf3 is not installed (apt install iperf3)".into()).into())
}

/// Bits per second that the readers of so many TCP flows together got over the course's duration. To be
/// called on the main thread.
///
/// # Errors
/// Where iperf3 fails or doesn't end.
pub(crate) async fn flows(course: &Course<'_>, way: Way, count: usize) -> Result<f64> {
    let omitted = WARM_UP.as_secs().to_string();
    let count = count.to_string();
    let congestion = course.congestion.name();
    let mut arguments = vec!["-O", &omitted, "-P", &count, "-C", congestion];
    if way == Way::Down {
        arguments.push("-R");
    }
    let end = run(course, course.duration + WARM_UP, &arguments).await?;
    let received = end.sum_received.context("it tells no sum")?;
    Ok(received.bits_per_second)
}

/// Datagrams of 1200 bytes from client to server, so many bits of payload per second, for one second. To be called on the
/// main thread.
///
/// # Errors
/// Where iperf3 fails or doesn't end.
pub(crate) async fn datagrams(course: &Course<'_>, rate_bps: f64) -> Result<Datagrams> {
    let rate = format!("{rate_bps:.0}");
    let buffer = buffer().to_string();
    let arguments = ["-u", "-l", DATAGRAM, "-b", &rate, "-w", &buffer];
    let course = Course {
        duration: Duration::from_secs(1),
        ..*course
    };
    run(&course, course.duration, &arguments).await?.datagrams()
}

/// One TCP flow to a server that serves one test after the other, and may not know yet that the last one has ended. The
/// client is this command, which is iperf3 wherever it is to run. To be called on the main thread.
///
/// # Errors
/// Where iperf3 fails, doesn't end, or nothing arrives.
pub(crate) async fn flow(
    client: impl Fn() -> std::process::Command,
    to: SocketAddr,
    way: Way,
    duration: Duration,
    congestion: Congestion,
) -> Result<Flow> {
    let (port, omitted) = (to.port().to_string(), WARM_UP.as_secs().to_string());
    let mut arguments = vec!["-p", &port, "-O", &omitted, "-C", congestion.name()];
    if way == Way::Down {
        arguments.push("-R");
    }
    let served = async || {
        let said = ask(client(), to.ip(), duration, duration + WARM_UP, &arguments).await?;
        let told = Told::read(&said)?;
        Ok((!told.is_busy()).then_some(told))
    };
    eventually("a server that is free", PATIENCE, served)
        .await?
        .flow()
}

/// What the kernel allows of [`BUFFER`].
fn buffer() -> u64 {
    let limits = ["rmem_max", "wmem_max"].map(|name| {
        let text = fs::read_to_string(format!("/proc/sys/net/core/{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or(u64::MAX)
    });
    limits.into_iter().fold(BUFFER, u64::min)
}

/// A server for one test, and a client that makes it.
async fn run(course: &Course<'_>, takes: Duration, arguments: &[&str]) -> Result<End> {
    let mut server = serve(course).await?;
    let arguments = [&["-i", "0"], arguments].concat();
    let client = process::within(course.from, IPERF3);
    let said = ask(client, course.dialled, course.duration, takes, &arguments).await?;
    let end = Told::read(&said).and_then(Told::end);
    let end = end.with_context(|| format!("iperf3 {arguments:?}"))?;
    // It has ended its one test; one that hangs is killed when it is dropped.
    let _ = timeout(Duration::from_secs(1), server.wait()).await;
    Ok(end)
}

/// What a client writes.
async fn ask(
    client: std::process::Command,
    to: IpAddr,
    duration: Duration,
    takes: Duration,
    arguments: &[&str],
) -> Result<Vec<u8>> {
    let seconds = duration.as_secs().to_string();
    let mut client = Command::from(client);
    client
        .args(["-c", &to.to_string(), "-t", &seconds, "-J"])
        .args(["--connect-timeout", "5000"])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(takes + PATIENCE, client.output())
        .await
        .with_context(|| format!("iperf3 {arguments:?} does not end"))??;
    Ok(output.stdout)
}

/// A server that listens when this returns.
async fn serve(course: &Course<'_>) -> Result<Child> {
    let mut command = Command::from(process::within(course.to, IPERF3));
    command
        .args(["-s", "-1", "-i", "0", "--forceflush"])
        .args(["-B", &course.at.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut server = command.spawn().context("start iperf3")?;
    let said = server.stdout.take().context("no output")?;
    let mut lines = BufReader::new(said).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains("listening") {
                return Ok(());
            }
        }
        bail!("iperf3's server ended")
    };
    timeout(PATIENCE, listening)
        .await
        .context("iperf3's server does not start")??;
    // Whatever else it says is read, so that it neither waits nor ends.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(server)
}
