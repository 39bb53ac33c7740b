//! The servers of bytes, which run in the pod: this same program, called by its hidden command.
//!
//! A thread for each connection that waits costs less than a runtime does, and what is measured here is the way to the
//! server.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, SockRef, Socket, Type};

/// Sends all back until the client ends.
pub(super) const ECHO: u16 = 7007;
/// Takes one byte, and resets the connection.
pub(super) const RESET: u16 = 7008;
/// As [`ECHO`], for short connections: whoever ends one remembers it for a minute, and has 28,000 ports towards each of
/// these.
pub(super) const SHORT: [u16; 16] = [
    7010, 7011, 7012, 7013, 7014, 7015, 7016, 7017, 7018, 7019, 7020, 7021, 7022, 7023, 7024, 7025,
];

const BACKLOG: i32 = 4096;
/// Connections of a port that are served at a time; the others wait in its backlog.
const AT_A_TIME: usize = 20;
const BUFFER: usize = 16 << 10;

/// What becomes of a connection.
type Serve = fn(TcpStream) -> io::Result<()>;

/// Serves until it is killed.
///
/// # Errors
/// Where a port can't be listened on.
pub(crate) fn serve() -> Result<()> {
    let echoes = SHORT
        .into_iter()
        .chain([ECHO])
        .map(|port| (port, echo as Serve));
    let servers: Vec<(u16, Serve)> = echoes.chain([(RESET, reset as Serve)]).collect();
    thread::scope(|scope| {
        for (port, serve) in servers {
            let listener = listen(port).with_context(|| format!("listen on port {port}"))?;
            for _ in 0..AT_A_TIME {
                let listener = listener.try_clone()?;
                scope.spawn(move || {
                    for stream in listener.incoming().flatten() {
                        // A connection that fails is its client's to count.
                        let _ = stream.set_nodelay(true).and_then(|()| serve(stream));
                    }
                });
            }
        }
        Ok(())
    })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; BUFFER];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}

fn reset(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}
