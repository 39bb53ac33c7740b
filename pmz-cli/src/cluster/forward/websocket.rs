//! A port-forward by a WebSocket (`v4.channel.k8s.io`).
//!
//! Every message begins with a channel's number: 0 carries bytes both ways, 1 what went wrong. The first
//! message on each, from the server, holds the port's number. The kube crate's own stream keeps up to a
//! megabyte each way in its buffers; this one keeps a message, so that whoever writes sees at once when the
//! network is slower, and can put what waits in a fair order.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

const DATA: u8 = 0;
const ERROR: u8 = 1;

/// Bytes in one message: below what the kernel takes at once, large enough that its header is nothing.
const MAX_MESSAGE: usize = 64 << 10;

/// A byte stream over a WebSocket.
pub(super) struct MessageStream<S> {
    socket: WebSocketStream<S>,
    port: u16,
    /// Whether the first message of each channel has come.
    begun: [bool; 2],
    /// What was received, but not read yet.
    received: Bytes,
    /// The last message has not gone out yet.
    unsent: bool,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> MessageStream<S> {
    pub(super) fn new(socket: WebSocketStream<S>, port: u16) -> Self {
        Self {
            socket,
            port,
            begun: [false; 2],
            received: Bytes::new(),
            unsent: false,
            ended: false,
        }
    }

    /// Takes a message in; `Err` is what the reader is to be told.
    fn take(&mut self, mut message: Bytes) -> io::Result<()> {
        if message.is_empty() {
            return Err(invalid("an empty message"));
        }
        let channel = message.get_u8();
        let Some(begun) = self.begun.get_mut(usize::from(channel)) else {
            return Err(invalid("an unknown channel"));
        };
        if !*begun {
            if message.len() != 2 || message.get_u16_le() != self.port {
                return Err(invalid("another port than was asked for"));
            }
            *begun = true;
            return Ok(());
        }
        if channel == ERROR {
            let text = String::from_utf8_lossy(&message).into_owned();
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, text));
        }
        self.received = message;
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the port-forward sent {what}"),
    )
}

fn broken(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::other(other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for MessageStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.received.is_empty() && !this.ended {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(message))) => this.take(message)?,
                Some(Ok(Message::Close(_))) | None => this.ended = true,
                Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => this.ended = true,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(invalid("text"))),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let len = this.received.len().min(into.remaining());
        into.put_slice(&this.received.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MessageStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.unsent {
            ready!(Pin::new(&mut *this).poll_flush(cx))?;
        }
        ready!(Pin::new(&mut this.socket).poll_ready(cx)).map_err(broken)?;
        let len = from.len().min(MAX_MESSAGE);
        let Some(part) = from.get(..len).filter(|part| !part.is_empty()) else {
            return Poll::Ready(Ok(0));
        };
        let mut message = Vec::with_capacity(1 + len);
        message.push(DATA);
        message.extend_from_slice(part);
        Pin::new(&mut this.socket)
            .start_send(Message::binary(message))
            .map_err(broken)?;
        // On its way at once, as on a TCP socket; when it can't, the next write waits.
        this.unsent = true;
        if let Poll::Ready(Err(error)) = Pin::new(this).poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.socket).poll_flush(cx)).map_err(broken)?;
        this.unsent = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.get_mut().socket).poll_close(cx)) {
            Ok(()) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    type Server = WebSocketStream<DuplexStream>;

    async fn pair(buffer: usize) -> (MessageStream<DuplexStream>, Server) {
        let (ours, theirs) = duplex(buffer);
        let client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
        let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
        (MessageStream::new(client, 7600), server)
    }

    async fn begin(server: &mut Server) {
        for channel in [0u8, 1] {
            let mut message = vec![channel];
            message.extend_from_slice(&7600u16.to_le_bytes());
            server.send(Message::binary(message)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_without_the_channels_numbers() {
        let (mut client, mut server) = pair(1 << 20).await;
        begin(&mut server).await;
        server
            .send(Message::binary(b"\0hello".to_vec()))
            .await
            .unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
        client.write_all(b"world").await.unwrap();
        assert_eq!(
            server.next().await.unwrap().unwrap(),
            Message::binary(b"\0world".to_vec())
        );
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_told_in_the_servers_words() {
        let (mut client, mut server) = pair(1 << 20).await;
        begin(&mut server).await;
        server
            .send(Message::binary(
                b"\x01connection refused to port 7600".to_vec(),
            ))
            .await
            .unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(error.to_string().contains("port 7600"), "{error}");
    }

    #[tokio::test]
    async fn the_servers_close_is_the_end() {
        let (mut client, mut server) = pair(1 << 20).await;
        begin(&mut server).await;
        server.close(None).await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn hostile_messages_are_errors() {
        for bad in [&b""[..], b"\x07abc", b"\0\x01\x02", b"\0abc"] {
            let (mut client, mut server) = pair(1 << 20).await;
            server.send(Message::binary(bad.to_vec())).await.unwrap();
            let error = client.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bad:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_slow_network_pushes_back_after_one_message() {
        let (mut client, mut server) = pair(1 << 10).await;
        let chunk = [7u8; MAX_MESSAGE];
        assert_eq!(client.write(&chunk).await.unwrap(), MAX_MESSAGE);
        let second = client.write(&chunk);
        tokio::pin!(second);
        assert!(
            futures::poll!(&mut second).is_pending(),
            "a second message was taken"
        );
        let read = async { server.next().await.unwrap().unwrap().into_data().len() };
        let (second, first) = futures::join!(second, read);
        assert_eq!((second.unwrap(), first), (MAX_MESSAGE, MAX_MESSAGE + 1));
    }

    #[tokio::test]
    async fn large_transfers_arrive_whole() {
        let (client, mut server) = pair(8 << 10).await;
        let (mut read, mut write) = tokio::io::split(client);
        let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.flush().await.unwrap();
        });
        let echo = tokio::spawn(async move {
            begin(&mut server).await;
            while let Some(Ok(message)) = server.next().await {
                server.send(message).await.unwrap();
            }
        });
        let mut heard = vec![0; expected.len()];
        read.read_exact(&mut heard).await.unwrap();
        assert!(heard == expected);
        writer.await.unwrap();
        echo.abort();
    }
}
