//! Byte streams to a port in a pod, through the API server.
//!
//! Port-forwards are spoken in two ways. SPDY/3.1 is what kubelets have always spoken, and the API server only passes
//! its bytes on; it takes no more than the right to `create`. Messages of a WebSocket are taken apart byte by byte in
//! the pod's node, which costs twice as much there, but proxies know them. So SPDY is asked for first, and where
//! somebody on the way answers anything but "switching protocols", or does not keep to it, the WebSocket is.

mod spdy;
mod websocket;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::header::{CONNECTION, UPGRADE};
use http::{Request, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::map::Peer;
use super::review::narrow;
use super::{Action, AgentPod, CONTROL_PORT, Cluster, ClusterError};
use spdy::SpdyStream;
use websocket::MessageStream;

const WHAT: &str = "open a port-forward";
/// SPDY's name in a request to switch to it.
const SPDY: &str = "SPDY/3.1";
/// Names what is spoken within SPDY.
const STREAM_PROTOCOL: (&str, &str) = ("x-stream-protocol-version", "portforward.k8s.io");

/// Opens streams to one port of one pod.
#[derive(Clone)]
pub struct PortForward {
    client: kube::Client,
    peer: Peer,
    /// Somebody on the way to the pods does not know SPDY.
    without_spdy: Arc<AtomicBool>,
    namespace: String,
    pod: String,
    port: u16,
}

impl Cluster {
    /// Streams to the control port of an agent.
    pub fn port_forward(&self, agent: &AgentPod) -> PortForward {
        PortForward {
            client: self.client.clone(),
            peer: self.peer.clone(),
            without_spdy: self.without_spdy.clone(),
            namespace: agent.namespace.clone(),
            pod: agent.name.clone(),
            port: CONTROL_PORT,
        }
    }
}

impl PortForward {
    /// The pod's name.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// Opens a stream, on a TCP connection of its own. That the pod listens on the port is not known
    /// before the first byte: where it does not, reading fails and says so.
    ///
    /// # Errors
    /// See [`ClusterError`]; [`ClusterError::PodGone`] where there is no such pod any more.
    pub async fn dial(&self) -> Result<PortStream, ClusterError> {
        if !self.without_spdy.load(Ordering::Relaxed)
            && let Some(stream) = self.by_spdy().await?
        {
            return Ok(PortStream(Spoken::Spdy(stream)));
        }
        let stream = self.by_websocket().await?;
        // What was refused for another reason would have been refused again.
        self.without_spdy.store(true, Ordering::Relaxed);
        Ok(PortStream(Spoken::WebSocket(stream)))
    }

    /// None where something else is answered than that SPDY is spoken from here on, or what is spoken is not SPDY.
    async fn by_spdy(&self) -> Result<Option<SpdyStream<TokioIo<Upgraded>>>, ClusterError> {
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let request = Request::post(format!("{path}/{}/portforward", self.pod))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, SPDY)
            .header(STREAM_PROTOCOL.0, STREAM_PROTOCOL.1)
            .body(Body::empty())
            .map_err(|error| {
                kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error))
            });
        let upgrade = async {
            let response = self.client.send(request?).await?;
            let is_spdy = response.headers().get(UPGRADE).is_some_and(|it| it == SPDY);
            if response.status() != StatusCode::SWITCHING_PROTOCOLS || !is_spdy {
                tracing::debug!(status = %response.status(), "no {SPDY}");
                return Ok(None);
            }
            let upgraded = hyper::upgrade::on(response).await;
            upgraded.map(Some).map_err(kube::Error::HyperError)
        };
        let action = Action::port_forward(&self.namespace);
        let Some(upgraded) = self.peer.ask(WHAT, action, upgrade).await? else {
            return Ok(None);
        };
        let begun = SpdyStream::begin(TokioIo::new(upgraded), self.port);
        let action = Action::port_forward(&self.namespace);
        let begun = async {
            begun
                .await
                .map_err(|error| kube::Error::Service(error.into()))
        };
        match self.peer.ask(WHAT, action, begun).await {
            Ok(stream) => Ok(Some(stream)),
            // Somebody on the way agreed to what it can't do. If it was something else, the WebSocket fails, too.
            Err(error) => {
                tracing::debug!(%error, "{SPDY} was agreed on, and is not spoken");
                Ok(None)
            }
        }
    }

    async fn by_websocket(&self) -> Result<MessageStream<TokioIo<Upgraded>>, ClusterError> {
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let action = Action::port_forward(&self.namespace);
        let request = kube::core::Request::new(path)
            .portforward(&self.pod, &[self.port])
            .map_err(kube::Error::BuildRequest);
        let connect = async { self.client.connect(request?).await };
        match self.peer.ask(WHAT, action, connect).await {
            Ok(connection) => Ok(MessageStream::new(connection.into_stream(), self.port)),
            Err(ClusterError::Api { reason, .. }) if reason.contains("not found") => {
                Err(ClusterError::PodGone {
                    pod: self.pod.clone(),
                })
            }
            Err(error) => Err(narrow(&self.client, error).await),
        }
    }
}

/// A byte stream to a port in a pod. As with TLS, the end of what was written is only sure to leave when
/// it is flushed. It has no half-close: shutting it down ends both directions.
pub struct PortStream(Spoken);

enum Spoken {
    Spdy(SpdyStream<TokioIo<Upgraded>>),
    WebSocket(MessageStream<TokioIo<Upgraded>>),
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Spoken::Spdy(stream) => Pin::new(stream).poll_read(cx, into),
            Spoken::WebSocket(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Spoken::Spdy(stream) => Pin::new(stream).poll_write(cx, from),
            Spoken::WebSocket(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Spoken::Spdy(stream) => Pin::new(stream).poll_flush(cx),
            Spoken::WebSocket(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Spoken::Spdy(stream) => Pin::new(stream).poll_shutdown(cx),
            Spoken::WebSocket(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
