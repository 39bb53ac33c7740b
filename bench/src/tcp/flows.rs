//! Bulk flows between two namespaces, whose progress can be watched.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use pmz_cli::playground::netns::NetNs;
use pmz_tests::tcp::View;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::congestion::Congestion;
use crate::load::{CHUNK, TIMEOUT, Way};

/// Reads and writes return this often where nothing moves, to see whether it is time to end.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Between which ends flows go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<'a> {
    /// Where the client is.
    pub(crate) from: &'a NetNs,
    /// Where the listener is.
    pub(crate) to: &'a NetNs,
    /// The address that is connected to.
    pub(crate) at: IpAddr,
    pub(crate) way: Way,
    /// Of the client's sockets, which are told before they connect: see [`Course::congestion`](crate::load::Course).
    pub(crate) client: Congestion,
    /// Of the listener's sockets.
    pub(crate) server: Congestion,
}

/// Connections that nothing has been sent on.
pub(crate) struct Connected {
    way: Way,
    pairs: Vec<Pair>,
}

struct Pair {
    client: TcpStream,
    server: TcpStream,
}

/// Flows that are under way. They end when dropped.
pub(crate) struct Flows {
    read: Vec<Arc<AtomicU64>>,
    /// To ask the kernel about: client's and server's.
    sockets: Vec<Pair>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Connected {
    /// So many connections. Blocks.
    ///
    /// # Errors
    /// Where one can't be made within 20 s.
    pub(crate) fn new(ends: Ends<'_>, count: usize) -> Result<Self> {
        let listener = listen(ends, count)?;
        let address = listener.local_addr()?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let client = connect(ends, address)?;
            // Another one's connection may wait in the listener only where this one's is on its way to it.
            let (server, _) = listener.accept().context("nobody connected")?;
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(LOOK_UP))?;
                stream.set_write_timeout(Some(LOOK_UP))?;
            }
            pairs.push(Pair { client, server });
        }
        Ok(Self {
            way: ends.way,
            pairs,
        })
    }

    /// Begins to send on all of them.
    pub(crate) fn start(self) -> Result<Flows> {
        let mut flows = Flows {
            read: Vec::new(),
            sockets: Vec::new(),
            stop: Arc::default(),
            threads: Vec::new(),
        };
        for Pair { client, server } in self.pairs {
            flows.sockets.push(Pair {
                client: client.try_clone()?,
                server: server.try_clone()?,
            });
            let (writer, reader) = match self.way {
                Way::Up => (client, server),
                Way::Down => (server, client),
            };
            let count = Arc::new(AtomicU64::new(0));
            flows.read.push(Arc::clone(&count));
            let stop = Arc::clone(&flows.stop);
            flows.spawn(move || write(writer, &stop))?;
            let stop = Arc::clone(&flows.stop);
            flows.spawn(move || read(reader, &count, &stop))?;
        }
        Ok(flows)
    }
}

impl Flows {
    /// How many bytes of each have been read by now.
    pub(crate) fn read(&self) -> Vec<u64> {
        let counts = self.read.iter();
        counts.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// What Linux says of the clients' sockets.
    pub(crate) fn client_views(&self) -> Vec<View> {
        let views = self.sockets.iter().map(|pair| View::of(&pair.client));
        views.flatten().collect()
    }

    /// What Linux says of the servers' sockets.
    pub(crate) fn server_views(&self) -> Vec<View> {
        let views = self.sockets.iter().map(|pair| View::of(&pair.server));
        views.flatten().collect()
    }

    /// Ends all of them by resets.
    ///
    /// # Errors
    /// Where one had broken before.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn spawn(&mut self, body: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
        let thread = std::thread::Builder::new().name("bench-flow".into());
        self.threads.push(thread.spawn(body)?);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.sockets.clear();
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread
                .join()
                .map_err(|_| anyhow!("a flow's thread panicked"));
            result = result.and(ended.and_then(|ended| ended));
        }
        result
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn listen(ends: Ends<'_>, count: usize) -> Result<TcpListener> {
    let address = SocketAddr::new(ends.at, 0);
    let listener = ends.to.run(|| -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // What it accepts inherits this.
        socket.set_tcp_congestion(ends.server.name().as_bytes())?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(i32::try_from(count)?)?;
        // Limits accept(2), too.
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(socket)
    })?;
    Ok(listener
        .with_context(|| format!("listen on {}", ends.at))?
        .into())
}

fn connect(ends: Ends<'_>, to: SocketAddr) -> Result<TcpStream> {
    let socket = ends.from.run(|| -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_tcp_congestion(ends.client.name().as_bytes())?;
        socket.connect_timeout(&to.into(), TIMEOUT)?;
        Ok(socket)
    })?;
    Ok(socket.with_context(|| format!("connect to {to}"))?.into())
}

/// Writes until told to stop.
fn write(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let chunk = vec![0x5a_u8; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&chunk) {
            Ok(_) => {}
            Err(error) if waits(error.kind()) => {}
            // The other end has stopped first.
            Err(_) if stop.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error).context("write"),
        }
    }
    Ok(())
}

/// Reads until told to stop, and closes with a reset, so that no queue on the way has to be drained
/// first.
fn read(mut stream: TcpStream, count: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    let mut chunk = vec![0_u8; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut chunk) {
            Ok(0) if !stop.load(Ordering::Relaxed) => {
                return Err(anyhow!("the flow ended by itself"));
            }
            Ok(n) => {
                count.fetch_add(n as u64, Ordering::Relaxed);
            }
            Err(error) if waits(error.kind()) => {}
            Err(_) if stop.load(Ordering::Relaxed) => {}
            Err(error) => return Err(error).context("read"),
        }
    }
    Ok(())
}

fn waits(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}
