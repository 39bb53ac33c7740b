//! The bare tunnel: a TUN at both ends, pmz's engine between, by UDP or by streams.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;

use pmz_net::carrier::stream::StreamQueue;
use pmz_net::carrier::udp::UdpCarrier;
use pmz_net::device::{Tun, open_tun};
use pmz_net::engine::probe::{Answer, Probe};
use pmz_net::engine::stop::Stop;
use pmz_net::engine::tun::TunLocal;
use pmz_net::engine::{Direction, Engine, Paths, Via, inbound, stream, tun};
use pmz_net::route::Netlink;
use pmz_net::tunnel::{Peer, Tunnel};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::agent::Carrier;
use crate::congestion::Congestion;
use crate::lab::{Lab, Side};

/// Inner MTU: what fits into 1500 bytes of IPv4 or IPv6 with WireGuard around it, as wg-quick has it.
const MTU: u16 = 1420;
const STREAMS: u16 = 2;
/// Of the connections that carry the streams, both ways.
pub(crate) const STREAM_CONGESTION: Congestion = Congestion::Cubic;

struct End {
    engine: Arc<Engine>,
    answers: mpsc::Receiver<Answer>,
    udp: SocketAddr,
    stop: Stop,
    threads: Vec<thread::JoinHandle<()>>,
}

/// A tunnel between the lab's two sides. It ends when dropped.
pub(crate) struct BareTunnel {
    /// Carry the streams; they end first.
    _streams: JoinSet<()>,
    _client: End,
    _server: End,
    pub(crate) server_address: IpAddr,
}

impl End {
    async fn new(side: &Side, own: Ipv4Addr) -> Result<Self> {
        let opened = side.netns.run(|| open_tun("pmz0"))??;
        let netlink = side.netns.run(Netlink::open)??;
        netlink.bring_up(opened.index, MTU).await?;
        side.links
            .add_address("pmz0", IpNet::new(own.into(), 24)?)
            .await?;
        let socket = side.netns.run(|| UdpSocket::bind((side.address, 0)))??;
        let udp = socket.local_addr()?;
        let device = Arc::new(Tun::new(opened.fd)?);
        let local = Arc::new(TunLocal::new(device.clone()));
        let (engine, answers) =
            Engine::new(Tunnel::generate(), Some(UdpCarrier::new(socket)?), local);
        engine.set_own_addresses(vec![own.into()]);
        let stop = Stop::new()?;
        let mut threads = Vec::new();
        {
            let (engine, stop) = (engine.clone(), stop.clone());
            threads.push(thread::spawn(move || report(inbound::run(&engine, &stop))));
        }
        {
            let (engine, stop) = (engine.clone(), stop.clone());
            threads.push(thread::spawn(move || {
                report(tun::run(&engine, &device, &stop))
            }));
        }
        Ok(Self {
            engine,
            answers,
            udp,
            stop,
            threads,
        })
    }

    fn add(&self, other: &Self, address: Ipv4Addr) -> Result<Arc<Peer<Paths>>> {
        let paths = Paths::new(false, true, MTU, vec![address.into()]);
        let allowed = vec![IpNet::new(address.into(), 32)?];
        Ok(self
            .engine
            .tunnel()
            .add_peer(other.engine.tunnel().public_key(), allowed, paths)?)
    }
}

fn report(result: std::io::Result<()>) {
    if let Err(error) = result {
        eprintln!("a thread of the packet path failed: {error}");
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl BareTunnel {
    pub(crate) async fn new(lab: &Lab, carrier: Carrier) -> Result<Self> {
        let (a, b) = (
            Ipv4Addr::new(198, 51, 100, 1),
            Ipv4Addr::new(198, 51, 100, 2),
        );
        let mut client = End::new(&lab.client, a).await?;
        let server = End::new(&lab.server, b).await?;
        let to_server = client.add(&server, b)?;
        let to_client = server.add(&client, a)?;
        let mut streams = JoinSet::new();
        let via = match carrier {
            Carrier::Udp => {
                to_server.attached.set_direction(Direction::Udp(server.udp));
                to_client.attached.set_direction(Direction::Udp(client.udp));
                Via::Udp(server.udp)
            }
            Carrier::Stream => {
                streams = join(lab, &client, &to_server, &server, &to_client).await?;
                to_server.attached.set_direction(Direction::Stream);
                to_client.attached.set_direction(Direction::Stream);
                Via::Stream(to_server.attached.any_stream().context("no stream")?)
            }
        };
        for nonce in 0..50 {
            client.engine.probe(
                &to_server,
                &via,
                Probe {
                    nonce,
                    is_answer: false,
                    select: false,
                },
            );
            let answer = tokio::time::timeout(Duration::from_millis(100), client.answers.recv());
            if answer.await.is_ok() {
                return Ok(Self {
                    _streams: streams,
                    _client: client,
                    _server: server,
                    server_address: b.into(),
                });
            }
        }
        bail!("the tunnel did not come up by {carrier:?}")
    }
}

/// Streams over plain TCP connections between the two sides.
async fn join(
    lab: &Lab,
    client: &End,
    to_server: &Arc<Peer<Paths>>,
    server: &End,
    to_client: &Arc<Peer<Paths>>,
) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let listener = lab
        .server
        .netns
        .run(|| std::net::TcpListener::bind((lab.server.address, 0)))??;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    for index in 0..STREAMS {
        let io = lab
            .client
            .netns
            .run(|| std::net::TcpStream::connect(address))??;
        io.set_nonblocking(true)?;
        let (accepted, _) = listener.accept().await?;
        for (end, peer, io) in [
            (client, to_server, TcpStream::from_std(io)?),
            (server, to_client, accepted),
        ] {
            io.set_nodelay(true)?;
            SockRef::from(&io).set_tcp_congestion(STREAM_CONGESTION.name().as_bytes())?;
            let queue = Arc::new(StreamQueue::new(index, 4 << 20));
            peer.attached.add_stream(queue.clone());
            let (engine, peer) = (end.engine.clone(), peer.clone());
            tasks.spawn(async move {
                let _ = stream::run(&engine, &peer, queue, io).await;
            });
        }
    }
    Ok(tasks)
}
