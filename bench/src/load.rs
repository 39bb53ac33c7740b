//! The load: one TCP flow as fast as it goes, and round trips of one byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pmz_cli::playground::netns::NetNs;

/// What one call writes or reads.
const CHUNK: usize = 128 << 10;
/// Not counted at the start of a flow.
const WARM_UP: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(20);

/// Which way the bytes go, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Up,
    Down,
}

/// Bits per second of one TCP flow from a client in `from` to a listener at `at` in `to`.
pub(crate) fn tcp(
    from: &NetNs,
    to: &NetNs,
    at: SocketAddr,
    way: Way,
    duration: Duration,
) -> Result<f64> {
    let listener = to
        .run(|| TcpListener::bind(at))?
        .with_context(|| format!("listen on {at}"))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<u64> {
        let (stream, _) = listener.accept()?;
        match way {
            Way::Up => read(stream),
            Way::Down => write(stream, duration).map(|()| 0),
        }
    });
    let stream = from
        .run(|| TcpStream::connect_timeout(&address, TIMEOUT))?
        .with_context(|| format!("connect to {address}"))?;
    let rate = match way {
        Way::Up => {
            let writer = thread::spawn(move || write(stream, duration));
            let rate = server
                .join()
                .map_err(|_| anyhow::anyhow!("the server panicked"))??;
            writer
                .join()
                .map_err(|_| anyhow::anyhow!("the client panicked"))??;
            rate
        }
        Way::Down => {
            let rate = read(stream)?;
            server
                .join()
                .map_err(|_| anyhow::anyhow!("the server panicked"))??;
            rate
        }
    };
    Ok(rate as f64)
}

fn write(mut stream: TcpStream, duration: Duration) -> Result<()> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    let chunk = vec![0x5a_u8; CHUNK];
    let end = Instant::now() + WARM_UP + duration;
    while Instant::now() < end {
        match stream.write(&chunk) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads to the end; bits per second after the warm-up.
pub(crate) fn read(mut stream: impl Read) -> Result<u64> {
    let mut chunk = vec![0_u8; CHUNK];
    let start = Instant::now();
    let mut counted = 0_u64;
    let mut since = None;
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        match since {
            Some(_) => counted += n as u64,
            None if start.elapsed() >= WARM_UP => since = Some(Instant::now()),
            None => {}
        }
    }
    let since = since.context("the flow ended before it was warm")?;
    Ok((counted as f64 * 8.0 / since.elapsed().as_secs_f64()) as u64)
}

/// Median and 99th percentile of the round trip of one byte, in microseconds.
pub(crate) fn round_trip(
    from: &NetNs,
    to: &NetNs,
    at: SocketAddr,
    count: usize,
) -> Result<(f64, f64)> {
    let listener = to
        .run(|| TcpListener::bind(at))?
        .with_context(|| format!("listen on {at}"))?;
    let address = listener.local_addr()?;
    let server = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0_u8];
        while stream.read(&mut byte)? == 1 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let mut stream = from.run(|| TcpStream::connect_timeout(&address, TIMEOUT))??;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    drop(stream);
    server
        .join()
        .map_err(|_| anyhow::anyhow!("the server panicked"))??;
    times.sort_by(f64::total_cmp);
    Ok((times[count / 2], times[count * 99 / 100]))
}
