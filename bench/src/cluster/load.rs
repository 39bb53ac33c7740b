//! Loads for which there is no packaged program: round trips, connections that are made and closed, and
//! connections that are reset beside one that goes on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use crate::stats::percentile;

/// A connection, or a byte on it, that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long bytes may stand still before the connection that they are on is reset.
const STUCK: Duration = Duration::from_millis(20);
/// Round trips: so many, or as many as fit into that time.
const ROUND_TRIPS: usize = 5000;
const ROUND_TRIPS_WITHIN: Duration = Duration::from_secs(3);
/// Before these round trips the processes on the way may still be asleep.
const UNCOUNTED: usize = 20;

/// A load. It is made by the process that asks for it, or by this same program in a pod.
pub(super) trait Own: Serialize + DeserializeOwned + Send + Sync {
    /// What the program in the pod knows it by.
    const NAME: &'static str;
    /// What it finds.
    type Found: Serialize + DeserializeOwned + Send;

    /// Makes it where the calling thread is. Blocks.
    ///
    /// # Errors
    /// Where there is nothing to find.
    fn here(&self) -> Result<Self::Found>;
}

/// Connects once to each of these: they are served, or it fails.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Reach(pub(super) Vec<SocketAddr>);

impl Own for Reach {
    const NAME: &'static str = "reach";
    type Found = ();

    fn here(&self) -> Result<()> {
        self.0.iter().try_for_each(|to| {
            let connected = TcpStream::connect_timeout(to, PATIENCE).map(drop);
            connected.with_context(|| to.to_string())
        })
    }
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A byte there and back.
fn round_trip(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&[1])?;
    Ok(stream.read_exact(&mut [0])?)
}

/// A byte to a server that sends it back, and back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct RoundTrips {
    pub(super) echo: SocketAddr,
}

impl Own for RoundTrips {
    const NAME: &'static str = "round-trips";
    /// Seconds: median and 99th percentile.
    type Found = (f64, f64);

    fn here(&self) -> Result<(f64, f64)> {
        let mut stream = connect(self.echo)?;
        for _ in 0..UNCOUNTED {
            round_trip(&mut stream)?;
        }
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        let end = Instant::now() + ROUND_TRIPS_WITHIN;
        while times.len() < ROUND_TRIPS && Instant::now() < end {
            let start = Instant::now();
            round_trip(&mut stream)?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let of = |percent| percentile(&times, percent).context("no round trip ended");
        Ok((of(50)?, of(99)?))
    }
}

/// When connections are enough.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Until {
    /// After that time.
    Passed(Duration),
    /// After so many.
    Made(usize),
}

/// Connections that were made one after the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Connected {
    /// When each one was over, in seconds after the start, in order.
    over: Vec<f64>,
    pub(super) failed: u64,
    /// Why the last one of those did.
    pub(super) why: Option<String>,
}

impl Connected {
    /// A second, of those that went well.
    pub(super) fn per_second(&self) -> f64 {
        let all = self.over.last().map_or(f64::INFINITY, |last| *last);
        self.over.len() as f64 / all
    }

    /// A second, of each tenth of those that went well; none where there are too few.
    pub(super) fn tenths(&self) -> Option<[f64; 10]> {
        let tenth = self.over.len() / 10;
        let over = |tenths: usize| match tenths {
            0 => Some(0.0),
            tenths => self.over.get((tenths * tenth).checked_sub(1)?).copied(),
        };
        let mut rates = [0.0; 10];
        for (place, rate) in rates.iter_mut().enumerate() {
            *rate = tenth as f64 / (over(place + 1)? - over(place)?);
        }
        Some(rates)
    }

    fn join(mut self, other: Self) -> Self {
        self.over.extend(other.over);
        self.failed += other.failed;
        self.why = other.why.or(self.why);
        self
    }
}

/// Connections to these servers that send bytes back, in turn, so many at a time: a byte both ways, and closed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Connects {
    pub(super) short: Vec<SocketAddr>,
    pub(super) at_a_time: usize,
    pub(super) until: Until,
}

impl Own for Connects {
    const NAME: &'static str = "connects";
    type Found = Connected;

    fn here(&self) -> Result<Connected> {
        let begun = AtomicUsize::new(0);
        let start = Instant::now();
        let next = || {
            let number = begun.fetch_add(1, Ordering::Relaxed);
            let goes_on = match self.until {
                Until::Passed(duration) => start.elapsed() < duration,
                Until::Made(wanted) => number < wanted,
            };
            goes_on.then(|| self.short[number % self.short.len()])
        };
        let client = || {
            let mut connected = Connected::default();
            while let Some(to) = next() {
                match connect_once(to) {
                    Ok(()) => connected.over.push(start.elapsed().as_secs_f64()),
                    Err(error) => {
                        connected.failed += 1;
                        connected.why = Some(format!("{error:#}"));
                    }
                }
            }
            connected
        };
        let mut all = thread::scope(|scope| {
            let clients: Vec<_> = (0..self.at_a_time).map(|_| scope.spawn(client)).collect();
            let mut joined = clients.into_iter().map(|client| client.join());
            joined.try_fold(Connected::default(), |all, one| {
                anyhow::Ok(all.join(one.map_err(|_| anyhow!("a panic"))?))
            })
        })?;
        all.over.sort_by(f64::total_cmp);
        Ok(all)
    }
}

fn connect_once(short: SocketAddr) -> Result<()> {
    let mut stream = connect(short)?;
    round_trip(&mut stream)
}

/// Connections that are reset in the middle, half of them by the client with bytes on the way, the others by the
/// server, beside one that sends bytes back and forth all the time. Afterwards as many new ones are to work.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Resets {
    /// Of these there are so many.
    pub(super) count: u32,
    pub(super) echo: SocketAddr,
    pub(super) reset: SocketAddr,
    pub(super) short: SocketAddr,
}

impl Own for Resets {
    const NAME: &'static str = "resets";
    /// How often that was disturbed, and the last reason.
    type Found = (u64, Option<String>);

    fn here(&self) -> Result<(u64, Option<String>)> {
        let mut beside = connect(self.echo)?;
        round_trip(&mut beside)?;
        let over = AtomicBool::new(false);
        let goes_on = || -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                round_trip(&mut beside)?;
            }
            Ok(())
        };
        let beside = thread::scope(|scope| {
            let beside = scope.spawn(goes_on);
            for number in 0..self.count {
                // That they fail is what they are for.
                let _ = match number % 2 {
                    0 => self.by_client(),
                    _ => self.by_server(),
                };
            }
            over.store(true, Ordering::Relaxed);
            beside.join().map_err(|_| anyhow!("a panic"))
        })?;
        let (mut disturbed, mut why) = (0, None);
        let mut count_in = |result: Result<()>| {
            if let Err(error) = result {
                disturbed += 1;
                why = Some(format!("{error:#}"));
            }
        };
        count_in(beside.context("the connection beside them"));
        for _ in 0..self.count {
            count_in(connect_once(self.short).context("a new connection"));
        }
        Ok((disturbed, why))
    }
}

impl Resets {
    fn by_client(&self) -> Result<()> {
        let mut stream = connect(self.echo)?;
        stream.set_write_timeout(Some(STUCK))?;
        // What comes back is never read, so that this gets stuck.
        let stuck = loop {
            if let Err(error) = stream.write(&[7; 64 << 10]) {
                break error;
            }
        };
        ensure!(stuck.kind() == ErrorKind::WouldBlock, stuck);
        Ok(SockRef::from(&stream).set_linger(Some(Duration::ZERO))?)
    }

    fn by_server(&self) -> Result<()> {
        let mut stream = connect(self.reset)?;
        stream.write_all(&[7; 4096])?;
        Ok(stream.read_exact(&mut [0])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenth_of_the_connections_has_a_rate_of_its_own() {
        // A hundred connections: ten a second at first, and in the end five.
        let slowed = |number: u32| match number {
            ..=90 => f64::from(number) / 10.0,
            _ => 9.0 + f64::from(number - 90) / 5.0,
        };
        let connects = Connected {
            over: (1..=100).map(slowed).collect(),
            ..Connected::default()
        };
        let tenths = connects.tenths().unwrap();
        let (last, others) = tenths.split_last().unwrap();
        assert!((last - 5.0).abs() < 1e-9, "{tenths:?}");
        assert!(
            others.iter().all(|rate| (rate - 10.0).abs() < 1e-9),
            "{tenths:?}"
        );
        assert!(Connected::default().tenths().is_none());
        assert_eq!(Connected::default().per_second(), 0.0);
    }
}
