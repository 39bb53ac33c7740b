//! Programs on the laptop, as far as the network sees them: sockets in its namespace.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pmz_cli::playground::world::World;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

/// A connection that takes longer is none.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of an answer's head, at most.
const HEAD: u64 = 64 << 10;

/// A TCP socket of the laptop.
///
/// # Errors
/// Where the system refuses one.
pub fn socket(world: &World, to: SocketAddr) -> Result<TcpSocket> {
    let new = || match to {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    Ok(world.playground().laptop().in_netns(new)??)
}

/// Connects from the laptop.
///
/// # Errors
/// As connect(2), and after ten seconds.
pub async fn connect(world: &World, to: SocketAddr) -> Result<TcpStream> {
    let connecting = socket(world, to)?.connect(to);
    let stream = timeout(CONNECT, connecting)
        .await
        .with_context(|| format!("{to} does not answer"))?
        .with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A UDP socket of the laptop at that address.
///
/// # Errors
/// Where the system refuses one.
pub fn udp(world: &World, at: IpAddr) -> Result<UdpSocket> {
    let bind = || {
        let socket = std::net::UdpSocket::bind((at, 0))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    };
    Ok(world.playground().laptop().in_netns(bind)??)
}

/// Sends an ICMP echo request from the laptop, and awaits its answer (icmp(7), "ping sockets").
///
/// # Errors
/// Where there is none within ten seconds, or the network says so.
pub async fn ping(world: &World, to: IpAddr) -> Result<()> {
    // RFC 792 and RFC 4443, section 4: type, code, and what the kernel writes: checksum and identifier.
    let (request, reply, protocol) = match to {
        IpAddr::V4(_) => (8, 0, Protocol::ICMPV4),
        IpAddr::V6(_) => (128, 129, Protocol::ICMPV6),
    };
    let message = [request, 0, 0, 0, 0, 0, 0, 1, b'p', b'm', b'z'];
    let open = || -> std::io::Result<UdpSocket> {
        // Of a network namespace, and for the group of whoever asks.
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0")?;
        let to = SocketAddr::new(to, 0);
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol))?;
        socket.connect(&to.into())?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket.into())
    };
    let socket = world.playground().laptop().in_netns(open)??;
    let mut answer = [0; 64];
    let answered = async {
        // A lost one is sent again.
        loop {
            socket.send(&message).await?;
            let heard = timeout(Duration::from_secs(1), socket.recv(&mut answer)).await;
            if let Ok(heard) = heard {
                break heard;
            }
        }
    };
    let length = timeout(CONNECT, answered)
        .await
        .with_context(|| format!("{to} does not answer"))?
        .with_context(|| format!("ping {to}"))?;
    ensure!(
        answer[0] == reply && answer[6..length] == message[6..],
        "{to} says {:?}",
        &answer[..length]
    );
    Ok(())
}

/// An HTTP connection on which one request is made by hand, so that a test sees and paces each byte.
pub struct Http {
    /// What comes after the head.
    pub body: BufReader<TcpStream>,
    /// The answer's `Content-Length`.
    pub length: Option<u64>,
}

impl Http {
    /// Sends a GET and reads the answer's head.
    ///
    /// # Errors
    /// Where there is no connection or no 200.
    pub async fn get(world: &World, server: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = connect(world, server).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        Self::answer(stream).await
    }

    /// Reads the head of the answer to a request that has been sent.
    ///
    /// # Errors
    /// Where it is no 200.
    pub async fn answer(stream: TcpStream) -> Result<Self> {
        let mut body = BufReader::with_capacity(256 << 10, stream);
        let mut length = None;
        let mut lines = 0;
        loop {
            let mut line = String::new();
            (&mut body).take(HEAD).read_line(&mut line).await?;
            let line = line.trim_end().to_ascii_lowercase();
            match (lines, line.as_str()) {
                (0, status) => ensure!(status.contains(" 200 "), "the server says {status:?}"),
                (_, "") => return Ok(Self { body, length }),
                (200.., _) => bail!("no end of the answer's head"),
                (_, header) => {
                    if let Some(value) = header.strip_prefix("content-length:") {
                        length = Some(value.trim().parse()?);
                    }
                }
            }
            lines += 1;
        }
    }

    /// The rest of the answer.
    ///
    /// # Errors
    /// Where the connection breaks.
    pub async fn text(mut self) -> Result<String> {
        let mut text = String::new();
        match self.length {
            Some(length) => self.body.take(length).read_to_string(&mut text).await?,
            None => self.body.read_to_string(&mut text).await?,
        };
        Ok(text)
    }
}
