//! The control port: each connection says what it is to be, and then is that.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pmz_net::carrier::stream::StreamQueue;
use pmz_net::engine::{Engine, stream};
use pmz_net::session::codec::{CodecError, FrameReader, read_frame, write_frame};
use pmz_net::session::{
    Answer, Capability, Hello, MAX_OPEN_FRAME, Open, PROTOCOL, Refusal, RefusalReason, ToAgent,
    ToClient, Welcome,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::sessions::{INNER_MTU, Session, Sessions, version_refusal};
use crate::watch::WatchHandle;

/// How long a connection may take to say what it is to be.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one message may take to be written: the other end reads, or is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// A control connection on which nothing comes for this long is dead. Clients ping every 5 s.
const SILENCE: Duration = Duration::from_secs(30);
/// Connections at a time, over all sessions and those that have not said anything yet.
const MAX_CONNECTIONS: usize = 16_384;
/// Carrier connections of one session.
const MAX_STREAMS: u16 = 64;
/// Bytes that may stand before one stream. The agent's senders wait for room far below this; only
/// datagrams can reach it.
const STREAM_QUEUE: usize = 4 << 20;

/// What all connections share.
pub(crate) struct Control {
    pub(crate) engine: Arc<Engine>,
    pub(crate) sessions: Sessions,
    pub(crate) watch: WatchHandle,
    pub(crate) name: String,
    pub(crate) cluster_domain: String,
    pub(crate) own_addresses: Vec<IpAddr>,
    /// Why the agent is going away, once it is.
    pub(crate) leaving: watch::Receiver<Option<String>>,
    pub(crate) stop: CancellationToken,
}

/// Accepts connections until the agent stops.
pub(crate) async fn serve(control: Arc<Control>, listener: TcpListener) -> io::Result<()> {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let accepted = tokio::select! {
            () = control.stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that ended before it was taken.
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let control = control.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = handle(&control, stream).await {
                tracing::info!(%from, %error, "control connection closed");
            }
        });
    }
}

/// Why a connection ended, for the log.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("nothing was said within {} s", OPEN_TIMEOUT.as_secs())]
    Mute,
    #[error("refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the client did not read for {} s", WRITE_TIMEOUT.as_secs())]
    Stuck,
    #[error("nothing came for {} s", SILENCE.as_secs())]
    Silent,
}

async fn handle(control: &Control, mut stream: TcpStream) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let open = timeout(
        OPEN_TIMEOUT,
        read_frame::<Open>(&mut stream, MAX_OPEN_FRAME),
    )
    .await
    .map_err(|_| ConnectionError::Mute)?;
    match open {
        Ok(None) => Ok(()),
        Ok(Some(Open::Control(hello))) => handle_control(control, stream, hello).await,
        Ok(Some(Open::Carrier {
            protocol,
            token,
            index,
        })) => handle_carrier(control, stream, protocol, &token, index).await,
        Err(error) => {
            let message = "the first frame is no pmz hello; is this pmz, and of this version?";
            refuse(
                &mut stream,
                Refusal {
                    reason: RefusalReason::Malformed,
                    message: message.to_owned(),
                },
            )
            .await?;
            Err(error.into())
        }
    }
}

async fn refuse(stream: &mut TcpStream, refusal: Refusal) -> Result<(), ConnectionError> {
    send(stream, &Answer::Refused(refusal)).await?;
    stream.shutdown().await?;
    Ok(())
}

async fn send<W, T>(writer: &mut W, message: &T) -> Result<(), ConnectionError>
where
    W: AsyncWrite + Unpin,
    T: serde::Serialize + Sync,
{
    timeout(WRITE_TIMEOUT, write_frame(writer, message))
        .await
        .map_err(|_| ConnectionError::Stuck)??;
    Ok(())
}

async fn handle_control(
    control: &Control,
    mut stream: TcpStream,
    hello: Hello,
) -> Result<(), ConnectionError> {
    let opened = match &*control.leaving.borrow() {
        // A client that has a session here may come back to it; nobody begins a new one.
        Some(reason) if !control.sessions.holds(&hello) => Err(Refusal {
            reason: RefusalReason::Unavailable,
            message: reason.clone(),
        }),
        Some(_) | None => control.sessions.open(&hello),
    };
    let session = match opened {
        Ok(session) => session,
        Err(refusal) => {
            let message = refusal.message.clone();
            refuse(&mut stream, refusal).await?;
            return Err(ConnectionError::Refused(message));
        }
    };
    let (generation, ended) = session.attach();
    tracing::info!(
        peer = session.peer.id().0,
        client = %hello.client.chars().take(64).collect::<String>(),
        version = %hello.version.chars().take(32).collect::<String>(),
        sessions = control.sessions.count(),
        resumed = generation > 1,
        "session open"
    );
    send(&mut stream, &welcome(control, &session)).await?;
    let (reader, writer) = stream.into_split();
    tokio::select! {
        () = ended.cancelled() => Ok(()),
        result = read_messages(control, &session, reader, writer) => result,
    }
}

fn welcome(control: &Control, session: &Session) -> Answer {
    Answer::Welcome(Box::new(Welcome {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent: control.name.clone(),
        public_key: STANDARD.encode(control.engine.tunnel().public_key()),
        token: session.token.clone(),
        addresses: session.addresses.to_vec(),
        agent_addresses: control.own_addresses.clone(),
        udp_candidates: candidates(control),
        capabilities: vec![Capability::SuperPackets],
        networks: control.watch.networks.borrow().clone(),
        cluster_domain: control.cluster_domain.clone(),
        mtu: INNER_MTU,
    }))
}

fn candidates(control: &Control) -> Vec<SocketAddr> {
    control.watch.candidates.borrow().clone()
}

/// The life of a control connection: pings are answered, the catalog and what else changes is told.
async fn read_messages<R, W>(
    control: &Control,
    session: &Session,
    reader: R,
    mut writer: W,
) -> Result<(), ConnectionError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut frames = FrameReader::new(reader, MAX_OPEN_FRAME);
    let mut candidates = control.watch.candidates.clone();
    let mut networks = control.watch.networks.clone();
    let mut leaving = control.leaving.clone();
    let mut catalog = control.watch.catalog.follow();
    loop {
        tokio::select! {
            message = timeout(SILENCE, frames.next::<ToAgent>()) => {
                match message.map_err(|_| ConnectionError::Silent)?? {
                    None => return Ok(()),
                    Some(ToAgent::Ping { nonce }) => {
                        send(&mut writer, &ToClient::Pong { nonce }).await?;
                    }
                    Some(ToAgent::Bye) => {
                        control.sessions.close(session, "the client said goodbye");
                        return Ok(());
                    }
                    Some(ToAgent::Unknown) => {}
                }
            }
            message = catalog.next() => send(&mut writer, &message).await?,
            Ok(()) = candidates.changed() => {
                let udp_candidates = candidates.borrow_and_update().clone();
                send(&mut writer, &ToClient::Candidates { udp_candidates }).await?;
            }
            Ok(()) = networks.changed() => {
                let networks = networks.borrow_and_update().clone();
                send(&mut writer, &ToClient::Networks(networks)).await?;
            }
            Ok(()) = leaving.changed() => {
                let reason = leaving.borrow_and_update().clone();
                if let Some(reason) = reason {
                    send(&mut writer, &ToClient::Leaving { reason }).await?;
                }
            }
        }
    }
}

async fn handle_carrier(
    control: &Control,
    mut stream: TcpStream,
    protocol: u32,
    token: &str,
    index: u16,
) -> Result<(), ConnectionError> {
    let refusal = if protocol != PROTOCOL {
        Some(version_refusal(protocol, "?"))
    } else if index >= MAX_STREAMS {
        Some(Refusal {
            reason: RefusalReason::Malformed,
            message: format!("a session has at most {MAX_STREAMS} carrier connections"),
        })
    } else {
        None
    };
    let session = control.sessions.find(token);
    let (Some(session), None) = (session, &refusal) else {
        let refusal = refusal.unwrap_or_else(|| Refusal {
            reason: RefusalReason::Session,
            message: "no session has this token: it has ended, or the agent was restarted"
                .to_owned(),
        });
        let message = refusal.message.clone();
        refuse(&mut stream, refusal).await?;
        return Err(ConnectionError::Refused(message));
    };
    send(
        &mut stream,
        &Answer::Carrier {
            capabilities: vec![Capability::SuperPackets],
        },
    )
    .await?;
    let queue = Arc::new(StreamQueue::new(index, STREAM_QUEUE));
    tokio::select! {
        () = session.ended.cancelled() => Ok(()),
        result = stream::run(&control.engine, &session.peer, queue, stream) => Ok(result?),
    }
}
