//! Queries by TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_server::net::xfer::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Catcher;
use crate::dns::forward::Own;

/// How long a connection may say nothing either way.
const IDLE: Duration = Duration::from_secs(120);
/// How long the server may take to accept ours, and either end to take what it is sent.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// After the kernel refused a connection for want of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until the server stops.
pub(super) async fn serve(catcher: Arc<Catcher>, listener: TcpListener) {
    loop {
        let permit = tokio::select! {
            () = catcher.stop.cancelled() => return,
            permit = catcher.connections.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else {
            return;
        };
        let accepted = tokio::select! {
            () = catcher.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a caught connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let catcher = catcher.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let stop = catcher.stop.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                result = connection(&catcher, stream, client) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a caught connection has ended");
                    }
                }
            }
        });
    }
}

async fn connection(catcher: &Catcher, stream: TcpStream, client: SocketAddr) -> io::Result<()> {
    if catcher.shared.forwarder.is_own(client) {
        tracing::warn!("a connection that we have made was caught again; it is closed");
        return Ok(());
    }
    let slot = catcher.slots.slot(stream.local_addr()?.ip());
    let server = match slot {
        Some(slot) => catcher.server(slot).await,
        None => None,
    };
    let Some(server) = server else {
        return Ok(());
    };
    stream.set_nodelay(true)?;
    let (mut from_client, to_client) = stream.into_split();
    let to_client = Arc::new(Mutex::new(to_client));
    let mut upstream: Option<Upstream> = None;
    loop {
        let Some(query) = next(&mut from_client, upstream.as_ref()).await? else {
            return Ok(());
        };
        let shared = &catcher.shared;
        let said = shared
            .answer_in_place_of(server, &query, client, Protocol::Tcp)
            .await;
        if let Some(said) = said {
            write(&mut *to_client.lock().await, &said).await?;
            continue;
        }
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(Upstream::connect(catcher, server, to_client.clone()).await?),
        };
        write(&mut upstream.to_server, &query).await?;
    }
}

/// The client's next message; `None` where there comes none, or the server has hung up.
async fn next(
    from_client: &mut OwnedReadHalf,
    upstream: Option<&Upstream>,
) -> io::Result<Option<Vec<u8>>> {
    let message = read(from_client);
    tokio::pin!(message);
    let Some(upstream) = upstream else {
        return timeout(IDLE, message).await.unwrap_or(Ok(None));
    };
    loop {
        tokio::select! {
            read = timeout(IDLE, &mut message) => match read {
                Ok(message) => return message,
                Err(_) if upstream.active.swap(false, Ordering::Relaxed) => {}
                Err(_) => return Ok(None),
            },
            () = upstream.over.cancelled() => return Ok(None),
        }
    }
}

/// The connection to the server that was meant. Its answers go to the client, in the order in which they come.
struct Upstream {
    to_server: OwnedWriteHalf,
    active: Arc<AtomicBool>,
    over: CancellationToken,
    _end: DropGuard,
    _own: Option<Own>,
}

impl Upstream {
    async fn connect(
        catcher: &Catcher,
        server: SocketAddr,
        to_client: Arc<Mutex<OwnedWriteHalf>>,
    ) -> io::Result<Self> {
        let connecting = TcpStream::connect(server);
        let stream = timeout(WRITTEN_WITHIN, connecting).await??;
        stream.set_nodelay(true)?;
        let own = if catcher.shared.is_ourselves(&server) {
            None
        } else {
            Some(catcher.shared.forwarder.register(stream.local_addr()?))
        };
        let (mut from_server, to_server) = stream.into_split();
        let (active, over) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let (heard, end) = (active.clone(), over.clone());
        tokio::spawn(async move {
            let pass = async {
                while let Some(answer) = read(&mut from_server).await? {
                    heard.store(true, Ordering::Relaxed);
                    write(&mut *to_client.lock().await, &answer).await?;
                }
                Ok::<(), io::Error>(())
            };
            tokio::select! {
                result = pass => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "the connection to a name server has ended");
                    }
                }
                () = end.cancelled() => {}
            }
            end.cancel();
        });
        Ok(Self {
            to_server,
            active,
            _end: over.clone().drop_guard(),
            over,
            _own: own,
        })
    }
}

/// A message with its length before it (RFC 1035, section 4.2.2); `None` at the end.
async fn read(from: &mut OwnedReadHalf) -> io::Result<Option<Vec<u8>>> {
    let length = match from.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write(to: &mut OwnedWriteHalf, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    timeout(WRITTEN_WITHIN, to.write_all(&framed)).await?
}
