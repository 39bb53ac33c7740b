//! Many clients of one agent, each with a control connection and a WireGuard session, in one process.
//!
//! They are boringtun's state machines and sockets of this process, since a thousand daemons would measure themselves. A session
//! stands for two minutes without a new handshake, which they don't make.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use pmz_cli::playground::addresses;
use pmz_cli::playground::netns::NetNs;
use pmz_cli::playground::world::World;
use pmz_net::session::codec::{encode, read_frame};
use pmz_net::session::{Answer, Hello, MAX_FRAME, Open, PROTOCOL, ToAgent, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval_at, timeout};

use super::datagram::datagram;

/// Where the agent's control port is, in its pod.
const CONTROL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7600);
/// As pmz's own client does it.
const PING_EVERY: Duration = Duration::from_secs(5);
/// An answer to a handshake, and to anything else.
const ANSWER: Duration = Duration::from_secs(2);
/// Handshakes that are tried: with many of them in a second the agent asks for proof of address.
const TRIES: usize = 5;
/// The share of datagrams that must come back, or the agent did not do what it was to.
const ANSWERED: f64 = 0.95;
const MESSAGE: usize = 2048;

/// The clients. They end when dropped.
pub(super) struct Peers {
    tasks: JoinSet<Result<()>>,
    order: watch::Sender<Order>,
    counts: Arc<Counts>,
}

/// What all of them are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// Nothing but what keeps the session.
    Rest,
    /// So many datagrams a second, each.
    Send(u32),
    Leave,
}

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    answered: AtomicU64,
}

/// A client with a session.
struct Client {
    control: TcpStream,
    socket: UdpSocket,
    tunn: Tunn,
    /// What it sends, over and over.
    packet: Vec<u8>,
    /// When it sends in each period, as a share of it: clients know nothing of each other.
    phase: f64,
}

impl Peers {
    /// So many, whose sessions stand when this returns.
    ///
    /// # Errors
    /// Where one is refused.
    pub(super) async fn new(world: &World, agent: &NetNs, count: usize) -> Result<Self> {
        let to = echo_service(world)?;
        let laptop = world.playground().laptop().netns();
        let (order, _) = watch::channel(Order::Rest);
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let phase = number as f64 / count as f64;
            let client = Client::connect(laptop, agent, to, phase)
                .await
                .with_context(|| format!("client {number}"))?;
            tasks.spawn(client.run(order.subscribe(), Arc::clone(&counts)));
        }
        Ok(Self {
            tasks,
            order,
            counts,
        })
    }

    /// Lets each send so many datagrams a second from now on.
    pub(super) fn begin(&self, rate: u32) {
        self.order.send_replace(Order::Send(rate));
    }

    /// Lets them say goodbye; returns when the agent has forgotten them.
    ///
    /// # Errors
    /// Where one had failed, or what they sent was not answered.
    pub(super) async fn leave(mut self) -> Result<()> {
        self.order.send_replace(Order::Leave);
        while let Some(ended) = self.tasks.join_next().await {
            ended?.context("a client ended")?;
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        let (asked, answered) = (count(&self.counts.asked), count(&self.counts.answered));
        ensure!(
            asked > 0.0 && answered >= asked * ANSWERED,
            "{answered} of {asked} datagrams were answered"
        );
        Ok(())
    }
}

impl Client {
    async fn connect(
        laptop: &NetNs,
        agent: &NetNs,
        to: (Ipv4Addr, u16),
        phase: f64,
    ) -> Result<Self> {
        let key = StaticSecret::from(rand::random::<[u8; 32]>());
        let connecting = agent.run(tokio::net::TcpSocket::new_v4)??;
        let mut control = connecting.connect(CONTROL).await?;
        let welcome = hello(&mut control, PublicKey::from(&key).to_bytes()).await?;
        let own = welcome.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let peer: [u8; 32] = STANDARD
            .decode(&welcome.public_key)?
            .try_into()
            .map_err(|_| anyhow::anyhow!("the agent's key has not 32 bytes"))?;
        let socket = laptop.run(|| -> std::io::Result<_> {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((addresses::NODE[0], addresses::AGENT_NODE_PORT))?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        })??;
        let mut client = Self {
            control,
            socket,
            tunn: Tunn::new(key, peer.into(), None, None, 1, None),
            packet: datagram(own.context("no IPv4 address was granted")?, to),
            phase,
        };
        for _ in 0..TRIES {
            if let Ok(session) = timeout(ANSWER, client.handshake()).await {
                session?;
                return Ok(client);
            }
        }
        bail!("no session within {TRIES} handshakes")
    }

    /// Returns when the session stands at both ends.
    async fn handshake(&mut self) -> Result<()> {
        let mut out = [0; MESSAGE];
        if let TunnResult::WriteToNetwork(message) =
            self.tunn.format_handshake_initiation(&mut out, true)
        {
            self.socket.send(message).await?;
        }
        let mut message = [0; MESSAGE];
        loop {
            let len = self.socket.recv(&mut message).await?;
            if let TunnResult::WriteToNetwork(answer) =
                self.tunn.decapsulate(None, &message[..len], &mut out)
            {
                // A keepalive, which confirms the session.
                self.socket.send(answer).await?;
                return Ok(());
            }
        }
    }

    async fn run(mut self, mut order: watch::Receiver<Order>, counts: Arc<Counts>) -> Result<()> {
        let mut message = [0; MESSAGE];
        let mut out = [0; MESSAGE];
        let mut told = [0; MESSAGE];
        let from =
            |period: Duration| interval_at(Instant::now() + period.mul_f64(self.phase), period);
        let mut pings = from(PING_EVERY);
        let mut sends: Option<Interval> = None;
        loop {
            tokio::select! {
                received = self.socket.recv(&mut message) => {
                    let opened = self.tunn.decapsulate(None, &message[..received?], &mut out);
                    if let TunnResult::WriteToTunnelV4(..) = opened {
                        counts.answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                () = tick(&mut sends) => {
                    if let TunnResult::WriteToNetwork(sealed) =
                        self.tunn.encapsulate(&self.packet, &mut out)
                    {
                        self.socket.send(sealed).await?;
                        counts.asked.fetch_add(1, Ordering::Relaxed);
                    }
                }
                _ = pings.tick() => {
                    let ping = encode(&ToAgent::Ping { nonce: 1 })?;
                    self.control.write_all(&ping).await?;
                }
                read = self.control.read(&mut told) => {
                    ensure!(read? > 0, "the agent closed the control connection");
                }
                changed = order.changed() => {
                    changed?;
                    let order = *order.borrow_and_update();
                    match order {
                        Order::Rest => sends = None,
                        Order::Send(rate) => sends = Some(from(Duration::from_secs(1) / rate)),
                        Order::Leave => return leave(self.control).await,
                    }
                }
            }
        }
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Says goodbye, and waits until the agent has closed the connection.
async fn leave(mut control: TcpStream) -> Result<()> {
    control.write_all(&encode(&ToAgent::Bye)?).await?;
    let mut told = [0; MESSAGE];
    let closed = async { while !matches!(control.read(&mut told).await, Ok(0) | Err(_)) {} };
    timeout(ANSWER, closed)
        .await
        .context("the agent doesn't answer a goodbye")
}

/// Opens a session.
async fn hello(control: &mut TcpStream, key: [u8; 32]) -> Result<Welcome> {
    let hello = Open::Control(Hello {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").into(),
        public_key: STANDARD.encode(key),
        capabilities: Vec::new(),
        resume: None,
        addresses: Vec::new(),
        client: "pmz-bench".into(),
    });
    control.write_all(&encode(&hello)?).await?;
    match timeout(ANSWER, read_frame::<Answer>(control, MAX_FRAME)).await?? {
        Some(Answer::Welcome(welcome)) => Ok(*welcome),
        other => bail!("the agent answers {other:?}"),
    }
}

/// Where datagrams come back from.
fn echo_service(world: &World) -> Result<(Ipv4Addr, u16)> {
    let model = world.playground().model().get();
    let service = model
        .service("default", "udp-echo")
        .context("no echo service")?;
    let address = service.cluster_ips().iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    let port = service.ports.first().context("no port")?.port;
    Ok((address.context("no IPv4 address")?, port))
}
