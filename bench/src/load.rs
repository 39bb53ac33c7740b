//! Between whom a load runs, and one of the bench's own: round trips of one byte.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use pmz_cli::playground::netns::NetNs;
use socket2::{Domain, SockRef, Socket, Type};

use crate::congestion::Congestion;
use crate::reading::{Reading, Unit};
use crate::stats::percentile;

/// What one call writes or reads.
pub(crate) const CHUNK: usize = 128 << 10;
/// Nothing of a flow stands still for longer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
/// Round trips: so many, or as many as fit into that time.
const ROUND_TRIPS: usize = 5000;
const ROUND_TRIPS_WITHIN: Duration = Duration::from_secs(3);
/// Before these round trips the processes on the way may still be asleep.
const UNCOUNTED: usize = 5;

pub(crate) const ONE_FLOW_UP: &str = "one flow up";
pub(crate) const ONE_FLOW_DOWN: &str = "one flow down";
pub(crate) const ROUND_TRIP_P50: &str = "1-byte round trip, p50";
pub(crate) const ROUND_TRIP_P99: &str = "1-byte round trip, p99";

/// Which way the bytes go, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Where the load runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Course<'a> {
    /// Where the client is.
    pub(crate) from: &'a NetNs,
    /// Where the server is.
    pub(crate) to: &'a NetNs,
    /// The server's address.
    pub(crate) at: IpAddr,
    /// What the client has for it.
    pub(crate) dialled: IpAddr,
    /// Of the sockets at both ends. They are told before they connect, since as its default a namespace may only have what the
    /// machine allows everyone. It stands for that default: what the route to the other end has takes the place of both alike
    /// (tcp_ca_dst_init), and only what is told later would hold against it.
    pub(crate) congestion: Congestion,
    /// Of each flow, as far as it is counted.
    pub(crate) duration: Duration,
}

impl Course<'_> {
    /// Median and 99th percentile of the round trip of one byte. Blocks.
    ///
    /// # Errors
    /// Where a connection can't be made, breaks, or stands still for 20 s.
    pub(crate) fn round_trips(&self) -> Result<Vec<Reading>> {
        let (p50_us, p99_us) = self.round_trip().context("round trips")?;
        let seconds = |what, us: f64| Reading::new(what, Unit::Seconds, us / 1e6);
        Ok(vec![
            seconds(ROUND_TRIP_P50, p50_us),
            seconds(ROUND_TRIP_P99, p99_us),
        ])
    }

    fn listen(&self) -> Result<TcpListener> {
        let listener = self.to.run(|| TcpListener::bind((self.at, 0)))?;
        let listener = listener.with_context(|| format!("listen on {}", self.at))?;
        let socket = SockRef::from(&listener);
        // What it accepts inherits this.
        socket.set_tcp_congestion(self.congestion.name().as_bytes())?;
        // Limits accept(2), too.
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(listener)
    }

    fn connect(&self, listener: SocketAddr) -> Result<TcpStream> {
        let to = SocketAddr::new(self.dialled, listener.port());
        let socket = self.from.run(|| -> Result<Socket> {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_tcp_congestion(self.congestion.name().as_bytes())?;
            socket.connect_timeout(&to.into(), TIMEOUT)?;
            Ok(socket)
        })?;
        let stream: TcpStream = socket.with_context(|| format!("connect to {to}"))?.into();
        set_timeouts(&stream)?;
        Ok(stream)
    }

    /// Median and 99th percentile of the round trip of one byte, in microseconds.
    pub(crate) fn round_trip(&self) -> Result<(f64, f64)> {
        let listener = self.listen()?;
        let address = listener.local_addr()?;
        let server = thread::spawn(move || -> Result<()> {
            let mut stream = accept(&listener)?;
            stream.set_nodelay(true)?;
            let mut byte = [0_u8];
            while stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
            }
            Ok(())
        });
        let mut stream = self.connect(address)?;
        stream.set_nodelay(true)?;
        let mut times = Vec::with_capacity(ROUND_TRIPS);
        let end = Instant::now() + ROUND_TRIPS_WITHIN;
        for number in 0..ROUND_TRIPS + UNCOUNTED {
            let start = Instant::now();
            stream.write_all(&[1])?;
            stream.read_exact(&mut [0])?;
            if number >= UNCOUNTED {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            if Instant::now() > end {
                break;
            }
        }
        drop(stream);
        join(server)?;
        times.sort_by(f64::total_cmp);
        let of = |percent| percentile(&times, percent).context("no round trip ended");
        Ok((of(50)?, of(99)?))
    }
}

fn set_timeouts(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(())
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let (stream, _) = listener.accept().context("nobody connected")?;
    set_timeouts(&stream)?;
    Ok(stream)
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("the server panicked"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_over_loopback_are_measured() {
        let here = NetNs::current().unwrap();
        if here.run(|| ()).is_err() {
            pmz_tests::skipped(
                "round_trips_over_loopback_are_measured",
                "no right to enter a network namespace",
            );
            return;
        }
        let course = Course {
            from: &here,
            to: &here,
            at: std::net::Ipv4Addr::LOCALHOST.into(),
            dialled: std::net::Ipv4Addr::LOCALHOST.into(),
            congestion: Congestion::Cubic,
            duration: Duration::ZERO,
        };
        let readings = course.round_trips().unwrap();
        let [p50, p99] = &readings[..] else {
            panic!("{readings:?}");
        };
        assert!(0.0 < p50.value && p50.value <= p99.value, "{readings:?}");
        assert!(p99.value < 1.0, "{readings:?}");
    }
}
