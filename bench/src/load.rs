//! The load: one TCP flow as fast as it goes, and round trips of one byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pmz_cli::playground::netns::NetNs;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::lab::Congestion;
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
    /// Of the sockets at both ends.
    pub(crate) congestion: Congestion,
    /// Not counted at the start of a flow.
    pub(crate) warm_up: Duration,
    /// Counted after it.
    pub(crate) duration: Duration,
}

impl Course<'_> {
    /// One flow each way and round trips, one after the other. Blocks.
    ///
    /// # Errors
    /// Where a connection can't be made, breaks, or stands still for 20 s.
    pub(crate) fn measure(&self) -> Result<Vec<Reading>> {
        let mut readings = self.round_trips()?;
        let up = self.flow(Way::Up).context("the flow up")?;
        let down = self.flow(Way::Down).context("the flow down")?;
        readings.push(Reading::new(ONE_FLOW_UP, Unit::BitsPerSecond, up));
        readings.push(Reading::new(ONE_FLOW_DOWN, Unit::BitsPerSecond, down));
        Ok(readings)
    }

    /// Median and 99th percentile of the round trip of one byte. Blocks.
    ///
    /// # Errors
    /// As [`Self::measure`].
    pub(crate) fn round_trips(&self) -> Result<Vec<Reading>> {
        let (p50_us, p99_us) = self.round_trip().context("round trips")?;
        let seconds = |what, us: f64| Reading::new(what, Unit::Seconds, us / 1e6);
        Ok(vec![
            seconds(ROUND_TRIP_P50, p50_us),
            seconds(ROUND_TRIP_P99, p99_us),
        ])
    }

    fn listen(&self) -> Result<TcpListener> {
        let address = SockAddr::from(SocketAddr::new(self.at, 0));
        let listener = self.to.run(|| -> Result<Socket> {
            let socket = Socket::new(
                Domain::for_address(SocketAddr::new(self.at, 0)),
                Type::STREAM,
                None,
            )?;
            // What it accepts inherits this.
            socket.set_tcp_congestion(self.congestion.name().as_bytes())?;
            socket.bind(&address)?;
            socket.listen(1)?;
            // Limits accept(2), too.
            socket.set_read_timeout(Some(TIMEOUT))?;
            Ok(socket)
        })?;
        Ok(listener
            .with_context(|| format!("listen on {}", self.at))?
            .into())
    }

    fn connect(&self, listener: SocketAddr) -> Result<TcpStream> {
        let to = SocketAddr::new(self.dialled, listener.port());
        let socket = self.from.run(|| -> Result<Socket> {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            socket.set_tcp_congestion(self.congestion.name().as_bytes())?;
            socket.connect_timeout(&to.into(), TIMEOUT)?;
            Ok(socket)
        })?;
        let stream = TcpStream::from(socket.with_context(|| format!("connect to {to}"))?);
        set_timeouts(&stream)?;
        Ok(stream)
    }

    /// Bits per second of one TCP flow. Whoever reads ends it, so that no queue on the way has to be
    /// drained first.
    fn flow(&self, way: Way) -> Result<f64> {
        let listener = self.listen()?;
        let address = listener.local_addr()?;
        let (warm_up, duration) = (self.warm_up, self.duration);
        let server = thread::spawn(move || -> Result<Option<f64>> {
            let stream = accept(&listener)?;
            match way {
                Way::Up => read(stream, warm_up, duration).map(Some),
                Way::Down => write(stream).map(|()| None),
            }
        });
        let stream = self.connect(address)?;
        let client = match way {
            Way::Up => write(stream).map(|()| None),
            Way::Down => read(stream, warm_up, duration).map(Some),
        };
        let server = join(server);
        // What broke the flow is told by whoever read.
        match way {
            Way::Up => server?.or(client?),
            Way::Down => client?.or(server?),
        }
        .context("nobody read")
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

/// Writes until the reader has had enough.
fn write(mut stream: TcpStream) -> Result<()> {
    let chunk = vec![0x5a_u8; CHUNK];
    loop {
        match stream.write_all(&chunk) {
            Ok(()) => {}
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Ok(()),
                _ => return Err(error).context("write"),
            },
        }
    }
}

/// Reads for that long, and closes with a reset; bits per second after the warm-up.
fn read(mut stream: TcpStream, warm_up: Duration, duration: Duration) -> Result<f64> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let mut chunk = vec![0_u8; CHUNK];
    let start = Instant::now();
    let mut counted = 0_u64;
    let mut since = None;
    loop {
        let n = stream.read(&mut chunk).context("read")?;
        ensure!(n > 0, "the flow ended by itself");
        let now = Instant::now();
        match since {
            Some(since) => {
                counted += n as u64;
                let elapsed: Duration = now - since;
                if elapsed >= duration {
                    return Ok(counted as f64 * 8.0 / elapsed.as_secs_f64());
                }
            }
            None if now - start >= warm_up => since = Some(now),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_and_round_trips_over_loopback_are_measured() {
        let here = NetNs::current().unwrap();
        if here.run(|| ()).is_err() {
            pmz_tests::skipped(
                "a_flow_and_round_trips_over_loopback_are_measured",
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
            warm_up: Duration::from_millis(10),
            duration: Duration::from_millis(50),
        };
        let readings = course.measure().unwrap();
        let [p50, p99, up, down] = &readings[..] else {
            panic!("{readings:?}");
        };
        assert!(up.value > 1e6 && down.value > 1e6, "{readings:?}");
        assert!(p50.value <= p99.value, "{readings:?}");
    }
}
