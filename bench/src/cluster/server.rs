//! The servers of bytes, which run in the pod: this same program, called by its hidden command.

use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Sends all back until the client ends.
pub(super) const ECHO: u16 = 7007;
/// Sends one byte back and ends, so that it is this end that remembers the connection for a minute, and
/// clients do not run out of ports.
pub(super) const ONCE: u16 = 7008;
/// Takes one byte, and resets the connection.
pub(super) const RESET: u16 = 7009;

const BACKLOG: u32 = 4096;
const BUFFER: usize = 16 << 10;

/// Serves until it is killed.
///
/// # Errors
/// Where a port can't be listened on.
pub(crate) fn serve() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::try_join!(listen(ECHO, echo), listen(ONCE, once), listen(RESET, reset))?;
        Ok(())
    })
}

async fn listen<F>(port: u16, serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let socket = TcpSocket::new_v6()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
    let listener = socket
        .listen(BACKLOG)
        .with_context(|| format!("listen on port {port}"))?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true)?;
                // A connection that fails is its client's to count.
                tokio::spawn(serve(stream));
            }
            // Out of descriptors, for one; the clients that wait are served when others have gone.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n]).await?,
        }
    }
}

async fn once(mut stream: TcpStream) -> io::Result<()> {
    let byte = stream.read_u8().await?;
    stream.write_u8(byte).await
}

async fn reset(mut stream: TcpStream) -> io::Result<()> {
    stream.read_u8().await?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}
