//! A connection through the NAT, by both its ends: the client's socket and the service's.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use pmz_tests::tcp::{Bed, View};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// No system call of a test takes longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The bytes of a stream repeat after so many: a prime number, so that no block and no segment that stands
/// in a wrong place looks right.
const PERIOD: usize = 65_521;
const CHUNK: usize = 64 << 10;

pub(crate) struct Pair {
    pub(crate) client: TcpStream,
    pub(crate) service: TcpStream,
}

impl Pair {
    pub(crate) fn new(bed: &Bed) -> Result<Self> {
        Self::with(bed, |_| Ok(()))
    }

    /// With the client's socket changed before it connects.
    pub(crate) fn with(
        bed: &Bed,
        change: impl FnOnce(&Socket) -> std::io::Result<()> + Send,
    ) -> Result<Self> {
        let at = SocketAddr::new(bed.ours_at, 0);
        let listener = bed.service.run(|| -> Result<Socket> {
            let listener = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
            listener.bind(&SockAddr::from(at))?;
            listener.listen(1)?;
            // Limits accept(2), too.
            listener.set_read_timeout(Some(TIMEOUT))?;
            Ok(listener)
        })??;
        let at = listener.local_addr()?;
        let client = bed.client.run(|| -> Result<Socket> {
            let client = Socket::new(
                Domain::for_address(at.as_socket().context("no address")?),
                Type::STREAM,
                None,
            )?;
            change(&client)?;
            client.connect_timeout(&at, TIMEOUT)?;
            Ok(client)
        })?;
        let client: TcpStream = client.context("connect through the NAT")?.into();
        let (service, _) = listener.accept().context("the NAT does not dial")?;
        let service: TcpStream = service.into();
        for stream in [&client, &service] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
        }
        Ok(Self { client, service })
    }

    /// What Linux says of the client's socket.
    pub(crate) fn view(&self) -> Result<View> {
        Ok(View::of(&self.client)?)
    }

    /// So many bytes from service to client, every one of them checked. How long it took.
    pub(crate) fn down(&self, len: usize) -> Result<Duration> {
        transfer(&self.service, &self.client, len).context("from service to client")
    }

    /// So many bytes from client to service.
    pub(crate) fn up(&self, len: usize) -> Result<Duration> {
        transfer(&self.client, &self.service, len).context("from client to service")
    }

    /// Both at once.
    pub(crate) fn both(&self, len: usize) -> Result<()> {
        thread::scope(|scope| {
            let up = scope.spawn(|| self.up(len));
            self.down(len)?;
            joined(up.join())?;
            Ok(())
        })
    }

    /// Both ends close, and see the other's end.
    pub(crate) fn finish(self) -> Result<()> {
        self.client.shutdown(Shutdown::Write)?;
        ends(&self.service)?;
        self.service.shutdown(Shutdown::Write)?;
        ends(&self.client)
    }
}

pub(crate) fn transfer(from: &TcpStream, to: &TcpStream, len: usize) -> Result<Duration> {
    let start = Instant::now();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(from, len));
        let received = receive(to, len);
        if received.is_err() {
            // The sender learns of it at once.
            let _ = SockRef::from(from).shutdown(Shutdown::Both);
        }
        let sent = joined(sending.join());
        received?;
        sent
    })?;
    Ok(start.elapsed())
}

/// Sends the stream's first bytes.
pub(crate) fn send(mut to: &TcpStream, len: usize) -> Result<()> {
    let pattern = pattern();
    let mut at = 0;
    while at < len {
        let offset = at % PERIOD;
        let n = (len - at).min(CHUNK).min(pattern.len() - offset);
        to.write_all(&pattern[offset..offset + n])
            .with_context(|| format!("write at {at} of {len}"))?;
        at += n;
    }
    Ok(())
}

/// Receives the stream's first bytes, and nothing else.
pub(crate) fn receive(mut from: &TcpStream, len: usize) -> Result<()> {
    let pattern = pattern();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < len {
        let most = CHUNK.min(len - at);
        let n = from
            .read(&mut chunk[..most])
            .with_context(|| format!("read at {at} of {len}"))?;
        ensure!(n > 0, "the stream ended at {at} of {len}");
        let offset = at % PERIOD;
        ensure!(
            chunk[..n] == pattern[offset..offset + n],
            "wrong bytes between {at} and {}",
            at + n
        );
        at += n;
    }
    Ok(())
}

/// The other end has closed its direction, and nothing is left of it.
pub(crate) fn ends(mut stream: &TcpStream) -> Result<()> {
    let mut byte = [0];
    let n = stream.read(&mut byte).context("read the stream's end")?;
    ensure!(n == 0, "there is more where the stream should end");
    Ok(())
}

/// What the generator of numbers by Lehmer makes, twice the period and a chunk more of it.
fn pattern() -> &'static [u8] {
    static PATTERN: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut state = 1_u64;
        let period: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state = state * 48_271 % 0x7fff_ffff;
                (state >> 8) as u8
            })
            .collect();
        period
            .iter()
            .cycle()
            .take(2 * PERIOD + CHUNK)
            .copied()
            .collect()
    });
    &PATTERN
}

pub(crate) fn joined<T>(joined: thread::Result<Result<T>>) -> Result<T> {
    joined.map_err(|_| anyhow!("a thread panicked"))?
}
