//! iperf3 as the load: TCP flows as fast as they go, and datagrams at a rate.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::load::{Course, Way};
use crate::process;
use crate::section::Absent;

const IPERF3: &str = "iperf3";
/// Beside the time of a flow: to start, connect and end, with many flows on busy cores.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of a flow, not counted. iperf3 takes whole seconds.
const WARM_UP: Duration = Duration::from_secs(1);
/// Bytes of a datagram's payload.
const DATAGRAM: &str = "1200";
/// A socket's buffer for datagrams, in bytes, as far as the kernel allows: with the kernel's usual 208 KiB
/// iperf3 itself loses some where nothing else does, whenever it doesn't run for a millisecond.
const BUFFER: u64 = 4 << 20;

/// What became of datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Datagrams {
    /// Bits of payload per second that were sent.
    pub(crate) sent_bps: f64,
    /// The same of what arrived.
    pub(crate) received_bps: f64,
    /// The share that didn't arrive: 1 is all.
    pub(crate) lost: f64,
}

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
    let seconds = course.duration.as_secs().to_string();
    let mut client = Command::from(process::within(course.from, IPERF3));
    client
        .args(["-c", &course.dialled.to_string(), "-t", &seconds, "-J"])
        .args(["-i", "0", "--connect-timeout", "5000"])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(takes + PATIENCE, client.output())
        .await
        .with_context(|| format!("iperf3 {arguments:?} does not end"))??;
    let end = Told::read(&output.stdout).with_context(|| format!("iperf3 {arguments:?}"))?;
    // It has ended its one test; one that hangs is killed when it is dropped.
    let _ = timeout(Duration::from_secs(1), server.wait()).await;
    Ok(end)
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

/// What `iperf3 -J` writes, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Told {
    error: Option<String>,
    end: Option<End>,
}

#[derive(Debug, Deserialize)]
struct End {
    sum_sent: Option<Sum>,
    sum_received: Option<Sum>,
}

#[derive(Debug, Deserialize)]
struct Sum {
    bits_per_second: f64,
    lost_percent: Option<f64>,
}

impl Told {
    fn read(json: &[u8]) -> Result<End> {
        let told: Self = serde_json::from_slice(json).context("what it writes")?;
        if let Some(error) = told.error {
            bail!("it says {error:?}");
        }
        told.end.context("it did not come to an end")
    }
}

impl End {
    fn datagrams(&self) -> Result<Datagrams> {
        let (Some(sent), Some(received)) = (&self.sum_sent, &self.sum_received) else {
            bail!("it tells no sums");
        };
        let lost = received.lost_percent.context("it tells no loss")?;
        ensure!((0.0..=100.0).contains(&lost), "it tells a loss of {lost} %");
        Ok(Datagrams {
            sent_bps: sent.bits_per_second,
            received_bps: received.bits_per_second,
            lost: lost / 100.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of iperf 3.12, two flows, shortened to what is looked at and its neighbours.
    const TCP: &str = r#"{"start": {"version": "iperf 3.12"}, "intervals": [], "end": {"streams": [],
        "sum_sent": {"start": 0, "end": 1.001606, "seconds": 1.001606, "bytes": 1547960320,
            "bits_per_second": 12363826255.034414, "retransmits": 51, "sender": true},
        "sum_received": {"start": 0, "end": 1.002545, "seconds": 1.002545, "bytes": 1547698176,
            "bits_per_second": 12350154265.394571, "sender": true},
        "sender_tcp_congestion": "bbr", "receiver_tcp_congestion": "bbr"}}"#;
    /// The same of datagrams.
    const UDP: &str = r#"{"start": {}, "end": {"streams": [],
        "sum": {"bytes": 62480400, "bits_per_second": 499812211.6428781, "lost_packets": 2541,
            "packets": 52067, "lost_percent": 4.880250446540035, "sender": true},
        "sum_sent": {"bits_per_second": 499812211.6428781, "jitter_ms": 0, "lost_packets": 0,
            "packets": 52067, "lost_percent": 0, "sender": true},
        "sum_received": {"bits_per_second": 475391126.8913923, "lost_packets": 2541,
            "packets": 52067, "lost_percent": 4.880250446540035, "sender": false}}}"#;

    #[test]
    fn what_the_readers_got_is_read_from_its_report() {
        let end = Told::read(TCP.as_bytes()).unwrap();
        let received = end.sum_received.as_ref().unwrap();
        assert_eq!(received.bits_per_second, 12_350_154_265.394_571);
        assert!(end.datagrams().is_err(), "flows have no loss");
    }

    #[test]
    fn the_loss_of_datagrams_is_what_the_reader_missed() {
        let datagrams = Told::read(UDP.as_bytes()).unwrap().datagrams().unwrap();
        assert!((datagrams.lost - 0.0488).abs() < 1e-4, "{datagrams:?}");
        assert_eq!(datagrams.received_bps, 475_391_126.891_392_3);
        assert_eq!(datagrams.sent_bps, 499_812_211.642_878_1);
    }

    #[test]
    fn its_own_word_for_what_went_wrong_is_told() {
        let json = r#"{"start": {}, "intervals": [], "end": {},
            "error": "error - unable to connect to server: Connection refused"}"#;
        let error = Told::read(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("Connection refused"), "{error}");
        assert!(Told::read(b"").is_err());
    }
}
