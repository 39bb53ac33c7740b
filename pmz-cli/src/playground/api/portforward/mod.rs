//! `pods/portforward` over a WebSocket, subprotocol `v4.channel.k8s.io`: the way from the API server over the
//! kubelet to the pod's loopback, in one.
//!
//! Each port in the query has two channels, data and error, numbered in the order of the ports; the first byte
//! of a message is its channel. The first message on each channel, from the server, is the port as two bytes,
//! little-endian. An error on the error channel ends that port. Once all ports have ended the server closes
//! the WebSocket (1000). Clients can't half-close: the close frame is all they have. When one direction of a
//! port ends, the other one has a second to end as well.
//!
//! `kubectl port-forward` does not work here: it asks for `SPDY/3.1+portforward.k8s.io` over a WebSocket, then
//! falls back to bare SPDY, and this server speaks neither. It is refused as a real server refuses a
//! subprotocol that it doesn't know (403), and a request that upgrades to nothing that it knows (400).

mod options;
mod relay;

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::faults::{Faults, Forward};
use super::objects::hash;
use super::rbac::{Access, Identity};
use super::request::{Query, ResourceTarget};
use super::resources::Resource;
use super::run::Run;
use super::status::{Reply, Status, details, full, text_reply};
use super::store::{Key, Store};

/// Opens connections to the loopback of pods.
pub trait PodDialer: Send + Sync + 'static {
    /// Connects to `port` at 127.0.0.1, or ::1, of the pod. Its errors are passed on to who forwards the port.
    fn dial(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

/// As [`PodDialer`], for a value whose type is not known.
pub(super) trait DynPodDialer: Send + Sync + 'static {
    fn dial_boxed<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<TcpStream>>;
}

impl<D: PodDialer> DynPodDialer for D {
    fn dial_boxed<'a>(
        &'a self,
        namespace: &'a str,
        pod: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<TcpStream>> {
        Box::pin(self.dial(namespace, pod, port))
    }
}

/// The pod at the far end.
pub(super) struct Pod {
    namespace: String,
    name: String,
    /// Id of its sandbox, as container runtimes make them, and name of its network namespace: errors show both.
    sandbox: String,
    netns: String,
}

impl Pod {
    fn new(namespace: &str, name: &str, uid: &str) -> Self {
        let sandbox = hash(&format!("sandbox {uid}"), 64);
        let id = hash(&format!("netns {uid}"), 32);
        let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
        let netns = format!(
            "/var/run/netns/cni-{}-{}-{}-{}-{}",
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32)
        );
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            sandbox,
            netns,
        }
    }
}

/// What a port-forward needs of the server.
pub(super) struct Context<'a> {
    pub(super) store: &'a Store,
    pub(super) access: &'a Access,
    pub(super) faults: &'a Faults,
    pub(super) dialer: &'a Arc<dyn DynPodDialer>,
    /// Where the kubelet would listen, for the error that it can't be reached.
    pub(super) kubelet: String,
    pub(super) run: &'a Run,
}

/// Answers a request for `pods/portforward` whose verb is allowed already.
pub(super) fn answer(
    context: &Context<'_>,
    who: &Identity,
    target: &ResourceTarget,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Reply, Status> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(Status::method_not_allowed());
    }
    let ports = options::numbers(query)?;
    let create = target.action("create");
    let upgrading = is_upgrade(request.headers());
    if upgrading && context.access.allows(who, &create).is_none() {
        return Err(Status::forbidden(
            format!("pods \"{}\" is forbidden: ", target.name),
            details("", "pods", Some(&target.name)),
        ));
    }
    let pod = find_pod(context.store, target)?;
    if !upgrading {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let Some(forward) = context.faults.admit() else {
        return Err(Status::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!(
                "error dialing backend: dial tcp {}: connect: connection refused",
                context.kubelet
            ),
        ));
    };
    let Some(pod) = pod else {
        let gone = format!("pod not found (\"{}_{}\")", target.name, target.namespace);
        return Ok(text_reply(StatusCode::INTERNAL_SERVER_ERROR, gone));
    };
    let ports = match options::ports(&ports) {
        Ok(ports) => ports,
        Err(refusal) => return Ok(text_reply(StatusCode::BAD_REQUEST, refusal)),
    };
    if request.method() != Method::GET {
        return Ok(closing(StatusCode::METHOD_NOT_ALLOWED, "bad method"));
    }
    let Some(protocol) = options::subprotocol(request.headers()) else {
        return Ok(closing(StatusCode::FORBIDDEN, ""));
    };
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return Ok(closing(
            StatusCode::BAD_REQUEST,
            "missing or bad WebSocket-Key",
        ));
    };
    let accept = derive_accept_key(key.as_bytes());
    let reply = switching(&accept, protocol)?;
    let dialer = context.dialer.clone();
    context.run.spawn(run(request, forward, dialer, pod, ports));
    Ok(reply)
}

async fn run(
    request: Request<Incoming>,
    forward: Forward,
    dialer: Arc<dyn DynPodDialer>,
    pod: Pod,
    ports: Vec<u16>,
) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else {
        return;
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() else {
        return;
    };
    let websocket = WebSocketStream::from_partially_read(
        parts.io.into_inner(),
        parts.read_buf.to_vec(),
        Role::Server,
        Some(relay::config()),
    )
    .await;
    let relay = relay::run(websocket, &forward, dialer.as_ref(), &pod, &ports);
    tokio::select! {
        () = relay => {}
        () = forward.cut() => {}
    }
}

/// The pod; none if it has ended.
fn find_pod(store: &Store, target: &ResourceTarget) -> Result<Option<Pod>, Status> {
    let not_found = || Status::not_found("", "pods", &target.name);
    let resource = Resource::find("", "pods").ok_or_else(not_found)?;
    let object = store
        .get(&Key::new(resource, &target.namespace, &target.name))
        .ok_or_else(not_found)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if text(&object["spec"]["nodeName"]).is_empty() {
        return Err(Status::bad_request(format!(
            "pod {} does not have a host assigned",
            target.name
        )));
    }
    let running = object["status"]["phase"] == "Running";
    let uid = text(&object["metadata"]["uid"]);
    Ok(running.then(|| Pod::new(&target.namespace, &target.name, &uid)))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, token: &str| {
        headers.get_all(name).iter().any(|value| {
            value
                .to_str()
                .unwrap_or_default()
                .split(',')
                .any(|t| t.trim().eq_ignore_ascii_case(token))
        })
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

fn switching(accept: &str, protocol: &str) -> Result<Reply, Status> {
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Status::bad_request("bad subprotocol"))
    };
    let mut reply = Response::new(full(Bytes::new()));
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, value(accept)?);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, value(protocol)?);
    Ok(reply)
}

/// What the WebSocket server says when it won't, and then it closes.
fn closing(code: StatusCode, text: &'static str) -> Reply {
    let mut reply = Response::new(full(text));
    *reply.status_mut() = code;
    reply
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}
