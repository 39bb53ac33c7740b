//! Moving the bytes between a WebSocket and the pod's connections.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::{DynPodDialer, Forward, Pod};

/// Bytes of a message to the client, at most, without its channel.
const CHUNK: usize = 64 * 1024;
/// Bytes of a message from a client, at most; a real server takes up to 32 MiB.
const LARGEST_MESSAGE: usize = 32 << 20;
/// What the other direction of a port has once one has ended.
const GRACE: Duration = Duration::from_secs(1);
/// A pod's loopback answers at once, or it is in trouble.
const DIAL: Duration = Duration::from_secs(10);

type Sink<S> = Mutex<SplitSink<WebSocketStream<S>, Message>>;

/// The writing side of a port. `over` ends a write that is under way.
struct Port {
    write: Mutex<Option<OwnedWriteHalf>>,
    over: CancellationToken,
}

/// How WebSockets of port-forwards are set up.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2 * CHUNK)
        .write_buffer_size(0)
        .max_message_size(Some(LARGEST_MESSAGE))
        .max_frame_size(Some(LARGEST_MESSAGE))
}

/// Forwards `ports` until all of them have ended or the client is gone.
pub(super) async fn run<S>(
    websocket: WebSocketStream<S>,
    forward: &Forward,
    dialer: &dyn DynPodDialer,
    pod: &Pod,
    ports: &[u16],
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, mut stream) = websocket.split();
    let sink = Mutex::new(sink);
    for (index, port) in ports.iter().enumerate() {
        for channel in [data_channel(index), error_channel(index)] {
            let [low, high] = port.to_le_bytes();
            let hello = Bytes::copy_from_slice(&[channel, low, high]);
            if sink
                .lock()
                .await
                .send(Message::Binary(hello))
                .await
                .is_err()
            {
                return;
            }
        }
    }
    let dials = ports.iter().map(|port| dial(dialer, pod, *port));
    let mut reads = Vec::new();
    let mut writes = Vec::new();
    for (index, dialed) in futures::future::join_all(dials)
        .await
        .into_iter()
        .enumerate()
    {
        let (read, write) = match dialed {
            Ok(stream) => {
                let (read, write) = stream.into_split();
                (Some(read), Some(write))
            }
            Err(error) => {
                let port = ports.get(index).copied().unwrap_or_default();
                let text = pod.refused(port, &error);
                if send_error(&sink, index, &text).await.is_err() {
                    return;
                }
                (None, None)
            }
        };
        reads.push(read);
        writes.push(Port {
            write: Mutex::new(write),
            over: CancellationToken::new(),
        });
    }

    relay(&mut stream, &sink, reads, &writes, forward, pod, ports).await;
    if let Ok(websocket) = sink.into_inner().reunite(stream) {
        let _ = timeout(GRACE, websocket.into_inner().shutdown()).await;
    }
}

/// Moves bytes until all ports have ended or the client is gone; then closes the WebSocket.
async fn relay<S>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    sink: &Sink<S>,
    reads: Vec<Option<OwnedReadHalf>>,
    writes: &[Port],
    forward: &Forward,
    pod: &Pod,
    ports: &[u16],
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let each = reads.into_iter().zip(writes).zip(ports).enumerate();
    let from_pods =
        futures::future::join_all(each.map(|(index, ((read, port), number))| async move {
            if let Some(read) = read {
                from_pod(read, sink, index, forward, pod, *number).await;
                // The client may go on for a moment, as it can't know yet.
                let _ = timeout(GRACE, port.over.cancelled()).await;
                port.end().await;
            }
        }));
    let to_pods = to_pods(stream, sink, writes, forward);
    tokio::pin!(from_pods, to_pods);
    tokio::select! {
        _ = &mut from_pods => {
            let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = timeout(GRACE, async {
                sink.lock().await.send(Message::Close(Some(close))).await
            }).await;
        }
        () = &mut to_pods => {
            // What pods still send goes nowhere, and ends their ports.
            let _ = timeout(GRACE, &mut from_pods).await;
        }
    }
}

fn data_channel(index: usize) -> u8 {
    u8::try_from(2 * index).unwrap_or(u8::MAX)
}

fn error_channel(index: usize) -> u8 {
    data_channel(index).saturating_add(1)
}

async fn dial(dialer: &dyn DynPodDialer, pod: &Pod, port: u16) -> io::Result<TcpStream> {
    let dialing = dialer.dial_boxed(&pod.namespace, &pod.name, port);
    let stream = timeout(DIAL, dialing)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn send_error<S>(sink: &Sink<S>, index: usize, text: &str) -> Result<(), ()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut message = BytesMut::with_capacity(text.len() + 1);
    message.put_u8(error_channel(index));
    message.put_slice(text.as_bytes());
    let message = Message::Binary(message.freeze());
    sink.lock().await.send(message).await.map_err(|_| ())
}

/// Moves what the pod sends until it ends or the client is gone.
async fn from_pod<S>(
    mut read: OwnedReadHalf,
    sink: &Sink<S>,
    index: usize,
    forward: &Forward,
    pod: &Pod,
    port: u16,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK + 1);
        buffer.put_u8(data_channel(index));
        let mut chunk = (&mut buffer).limit(CHUNK);
        let got = read.read_buf(&mut chunk).await;
        forward.thawed().await;
        match got {
            Ok(0) => return,
            Ok(_) => {
                let message = Message::Binary(buffer.split().freeze());
                if sink.lock().await.send(message).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let text = pod.broken(port, &read, &error);
                let _ = send_error(sink, index, &text).await;
                return;
            }
        }
    }
}

/// Moves what the client sends until it closes or is gone.
async fn to_pods<S>(
    stream: &mut SplitStream<WebSocketStream<S>>,
    sink: &Sink<S>,
    ports: &[Port],
    forward: &Forward,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        forward.thawed().await;
        let message = stream.next().await;
        forward.thawed().await;
        let data = match message {
            Some(Ok(Message::Binary(data))) => data,
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Close(_))) | Some(Err(_)) | None => break,
            // Answers to pings are written with the next message at the latest; this is for quiet times.
            Some(Ok(_)) => {
                if sink.lock().await.flush().await.is_err() {
                    break;
                }
                continue;
            }
        };
        let Some((channel, _)) = data.split_first() else {
            continue;
        };
        // Nothing that comes on an error channel means anything.
        if channel % 2 == 0
            && let Some(port) = ports.get(usize::from(channel / 2))
        {
            port.write(data.get(1..).unwrap_or_default()).await;
        }
    }
    // The answer to the client's close frame.
    let _ = timeout(GRACE, async { sink.lock().await.flush().await }).await;
}

impl Port {
    /// Writes all of `data`, unless the port ends first.
    async fn write(&self, data: &[u8]) {
        let mut write = self.write.lock().await;
        if let Some(half) = write.as_mut() {
            tokio::select! {
                biased;
                written = half.write_all(data) => if written.is_err() {
                    write.take();
                    self.over.cancel();
                },
                () = self.over.cancelled() => {}
            }
        }
    }

    /// Closes towards the pod.
    async fn end(&self) {
        self.over.cancel();
        self.write.lock().await.take();
    }
}

impl Pod {
    /// What the kubelet says when nobody listens.
    fn refused(&self, port: u16, error: &io::Error) -> String {
        let sandbox = &self.sandbox;
        let why = match error.kind() {
            io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
            _ => format!("connect: {}", words(error)),
        };
        format!(
            "error forwarding port {port} to pod {sandbox}, uid : failed to execute portforward in network \
             namespace \"{netns}\": failed to connect to localhost:{port} inside namespace \"{sandbox}\", \
             IPv4: dial tcp4 127.0.0.1:{port}: {why} IPv6 dial tcp6: address localhost: no suitable address \
             found ",
            netns = self.netns
        )
    }

    /// What the kubelet says when a connection breaks.
    fn broken(&self, port: u16, read: &OwnedReadHalf, error: &io::Error) -> String {
        let address = |found: io::Result<std::net::SocketAddr>| {
            found.map_or_else(|_| format!("127.0.0.1:{port}"), |a| a.to_string())
        };
        let from = address(read.local_addr());
        let to = address(read.peer_addr());
        format!(
            "error forwarding port {port} to pod {sandbox}, uid : failed to execute portforward in network \
             namespace \"{netns}\": writeto tcp4 {from}->{to}: read tcp4 {from}->{to}: read: {why}",
            sandbox = self.sandbox,
            netns = self.netns,
            why = words(error)
        )
    }
}

/// An operating system's error in lower case and without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    text.get(..end).unwrap_or(&text).to_lowercase()
}
