//! The server with a core of its own, and what it can be asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use async_trait::async_trait;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv4PacketInfo;
use nix::time::{ClockId, clock_gettime};
use pmz_net::capture::{CaptureSockets, Slot, Slots};
use pmz_net::catalog::{
    Endpoint, Port, Protocol, Service, ServiceKey, ServiceKind, SharedMirror, Snapshot,
};
use pmz_net::dns::{CapturedQueries, Clients, DnsConfig, DnsHandle, DnsServer, Servers, Zone};
use serde::Serialize;
use tokio::sync::oneshot;

use super::on_core;

const DOMAIN: &str = "cluster.local";
/// Different questions, spread over the services.
const QUESTIONS: u32 = 1000;
const NAMESPACES: u32 = 100;

/// Who is asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Way {
    /// Our server itself for services, as by systemd-resolved and by resolv.conf.
    Server,
    /// Our server for services, at an address that stands for another server, as the eBPF programs lead programs there.
    Captured,
    /// Another server for names of its own, by way of ours in the same manner.
    Outside,
    /// That server itself.
    Direct,
}

/// A server that runs on a thread of its own.
pub(crate) struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<Duration>>,
}

impl Serving {
    /// Starts it on that core.
    pub(crate) fn start(way: Way, services: u32, core: usize) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::spawn(move || {
            on_core(core)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let (handle, address) = serve(way, services)?;
                let before = cpu()?;
                ready.send(address)?;
                // Whoever drops the other end stops it, too.
                let _ = stopped.await;
                let took = cpu()? - before;
                handle.stop().await;
                Ok(took)
            })
        });
        match is_ready.recv() {
            Ok(address) => Ok(Self {
                address,
                stop,
                thread,
            }),
            Err(_) => Err(match thread.join() {
                Ok(Err(error)) => error,
                Ok(Ok(_)) | Err(_) => anyhow!("the server's thread has ended"),
            }),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it, and gives the processor's time that it took.
    pub(crate) fn stop(self) -> Result<Duration> {
        drop(self.stop);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the server panicked"))?
    }
}

/// The processor's time of the calling thread.
fn cpu() -> Result<Duration> {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(now.into())
}

fn serve(way: Way, services: u32) -> Result<(DnsHandle, SocketAddr)> {
    let mirror = SharedMirror::new();
    mirror.apply_snapshot(Snapshot {
        version: 1,
        services: (0..services).map(service).collect(),
    })?;
    let config = DnsConfig {
        zone: Zone::new(DOMAIN)?,
        upstream: vec![],
        clients: Clients::Machine,
    };
    let other = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let other_address = other.local_addr()?;
    tokio::spawn(answer(other));
    match way {
        Way::Direct => {
            let handle = DnsServer::start(vec![], vec![], mirror, config)?;
            Ok((handle, other_address))
        }
        Way::Server => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            let address = socket.local_addr()?;
            let handle = DnsServer::start(vec![socket], vec![], mirror, config)?;
            Ok((handle, address))
        }
        Way::Captured | Way::Outside => {
            let at = IpAddr::V4(Slots::v4_address(Slot(1)));
            let (udp, tcp) = (UdpSocket::bind((at, 0))?, TcpListener::bind((at, 0))?);
            setsockopt(&udp, Ipv4PacketInfo, &true)?;
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            let address = udp.local_addr()?;
            let sockets = vec![OwnedFd::from(udp), OwnedFd::from(tcp)];
            let handle = DnsServer::start(vec![], vec![], mirror, config)?;
            let captured = handle.serve_captured(CapturedQueries {
                sockets: CaptureSockets::from_descriptors(sockets).context("two sockets")?,
                slots: Slots::new(None),
                servers: Arc::new(Other(other_address)),
            })?;
            // They are served for as long as the server is.
            captured.disarm();
            Ok((handle, address))
        }
    }
}

/// The server that all questions were meant for.
struct Other(SocketAddr);

#[async_trait]
impl Servers for Other {
    async fn server(&self, _: Slot) -> Option<SocketAddr> {
        Some(self.0)
    }
}

/// Has an address for every name.
async fn answer(socket: UdpSocket) -> Result<()> {
    // RFC 1035, section 4.1: the name of the question at byte 12, A, IN, 60 s, four bytes.
    const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1];
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut buffer = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut buffer[..512 - RECORD.len()]).await?;
        // An answer, recursion available, one record.
        buffer[2] |= 0x80;
        buffer[3] = 0x80;
        buffer[7] = 1;
        buffer[length..length + RECORD.len()].copy_from_slice(&RECORD);
        socket
            .send_to(&buffer[..length + RECORD.len()], from)
            .await?;
    }
}

fn key(number: u32) -> ServiceKey {
    ServiceKey {
        namespace: format!("namespace-{}", number % NAMESPACES),
        name: format!("service-{number}"),
    }
}

/// One with a port and two endpoints.
fn service(number: u32) -> Service {
    let address = |network: [u8; 4], number: u32| {
        IpAddr::V4(Ipv4Addr::from(u32::from_be_bytes(network) + number))
    };
    let port = |port| Port {
        name: Some("http".to_owned()),
        protocol: Protocol::Tcp,
        port,
    };
    let endpoint = |which: u32| Endpoint {
        address: address([10, 128, 0, 1], 2 * number + which),
        hostname: None,
        pod: Some(format!("pod-{number}-{which}")),
        ready: true,
        ports: vec![port(8080)],
    };
    Service {
        key: key(number),
        kind: ServiceKind::ClusterIp {
            addresses: vec![address([10, 96, 0, 1], number)],
        },
        ports: vec![port(80)],
        publish_not_ready: false,
        endpoints: vec![endpoint(0), endpoint(1)],
    }
}

/// Questions for addresses whose ids are to be set: of services, or of names that our server does not know.
pub(crate) fn questions(way: Way, services: u32) -> Result<Vec<Vec<u8>>> {
    let name = |number: u32| match way {
        Way::Server | Way::Captured => {
            let key = key(number * services.div_ceil(QUESTIONS) % services);
            format!("{}.{}.svc.{DOMAIN}.", key.name, key.namespace)
        }
        Way::Outside | Way::Direct => format!("host-{number}.example.com."),
    };
    let question = |number: u32| -> Result<Vec<u8>> {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name(number))?, RecordType::A));
        Ok(message.to_vec()?)
    };
    (0..QUESTIONS).map(question).collect()
}
