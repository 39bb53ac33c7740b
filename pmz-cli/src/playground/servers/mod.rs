//! What the pods serve. The servers run in the playground's process; only their sockets are in the
//! pods' network namespaces.

pub mod blob;
mod echo;
mod http;
mod line_echo;
mod slow;
mod udp_echo;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use super::cluster::Role;
use super::machine::Machine;

/// Connections that a pod serves at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 16_384;
const BACKLOG: i32 = 4096;

/// A pod's server. Dropping it closes its sockets.
#[derive(Debug)]
pub(super) struct Server {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts what the pod is to serve; it listens when this returns.
pub(super) fn start(pod: &Machine, addresses: &[IpAddr], role: Role) -> Result<Server> {
    let port = role.port();
    let tasks = match role {
        Role::UdpEcho => {
            let sockets = pod
                .in_netns(|| udp_sockets(addresses, port))?
                .context("UDP socket")?;
            sockets
                .into_iter()
                .map(|socket| tokio::spawn(udp_echo::serve(socket)))
                .collect()
        }
        Role::Echo | Role::Blob | Role::Slow | Role::LineEcho => {
            let listener = pod.in_netns(|| listener(port))?.context("TCP listener")?;
            let name = pod.name().to_owned();
            let task = match role {
                Role::Echo => tokio::spawn(accept(listener, move |stream, from| {
                    echo::serve(stream, from, name.clone())
                })),
                Role::Blob => tokio::spawn(accept(listener, |stream, _| blob::serve(stream))),
                Role::Slow => tokio::spawn(accept(listener, |stream, _| slow::serve(stream))),
                Role::LineEcho | Role::UdpEcho => {
                    tokio::spawn(accept(listener, |stream, _| line_echo::serve(stream)))
                }
            };
            vec![task]
        }
    };
    Ok(Server { tasks })
}

/// One listener for IPv4 and IPv6.
fn listener(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// A socket for each address: an answer's source is then what was asked, by construction.
fn udp_sockets(addresses: &[IpAddr], port: u16) -> io::Result<Vec<UdpSocket>> {
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let bind = |address: &IpAddr| {
        let socket = Socket::new(
            Domain::for_address((*address, port).into()),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(4 << 20)?;
        socket.bind(&SocketAddr::from((*address, port)).into())?;
        UdpSocket::from_std(socket.into())
    };
    addresses.iter().chain(&loopback).map(bind).collect()
}

/// Serves each connection in a task of its own, which ends with this one.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) {
    let permits = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = std::sync::Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_) = connections.join_next() => {}
            }
        };
        match accepted {
            Ok((stream, from)) => {
                let _ = stream.set_nodelay(true);
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let connection = serve(stream, from);
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // One that was aborted while it waited, or no descriptor left: neither may end the
                // server, and the second would spin.
                tracing::debug!(%error, "accept");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }
}
