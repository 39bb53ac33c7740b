//! Two engines in one process, joined by UDP on loopback and by in-memory streams.

use std::net::UdpSocket;
use std::thread;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::outbound::Outbound;
use super::stop::Stop;
use super::*;
use crate::carrier::stream::StreamQueue;
use crate::packet::{GsoKind, VNET_HDR_LEN, VnetHdr};

const CLIENT: [u8; 4] = [240, 64, 0, 2];
const AGENT: [u8; 4] = [240, 64, 0, 1];

/// Keeps what is delivered.
#[derive(Default)]
struct Kept {
    frames: Mutex<Vec<Vec<u8>>>,
    arrived: Notify,
}

impl Local for Kept {
    fn deliver(&self, _: PeerId, frame: &[u8]) -> bool {
        self.frames.lock().push(frame.to_vec());
        self.arrived.notify_one();
        true
    }

    fn deliver_waiting<'a>(
        &'a self,
        peer: PeerId,
        frame: &'a [u8],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.deliver(peer, frame);
        Box::pin(std::future::ready(()))
    }
}

struct End {
    engine: Arc<Engine>,
    kept: Arc<Kept>,
    answers: mpsc::Receiver<Answer>,
    address: SocketAddr,
    stop: Stop,
    thread: Option<thread::JoinHandle<()>>,
}

impl End {
    fn new(own: [u8; 4]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let kept = Arc::new(Kept::default());
        let udp = UdpCarrier::new(socket).unwrap();
        let (engine, answers) = Engine::new(Tunnel::generate(), Some(udp), kept.clone());
        engine.set_own_addresses(vec![own.into()]);
        let stop = Stop::new().unwrap();
        let thread = {
            let (engine, stop) = (engine.clone(), stop.clone());
            thread::spawn(move || inbound::run(&engine, &stop).unwrap())
        };
        Self {
            engine,
            kept,
            answers,
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Waits until `count` bytes of packets have arrived; returns the frames.
    async fn received(&self, bytes: usize) -> Vec<Vec<u8>> {
        let wait = async {
            loop {
                let total: usize = self
                    .kept
                    .frames
                    .lock()
                    .iter()
                    .map(|f| f.len() - VNET_HDR_LEN)
                    .sum();
                if total >= bytes {
                    return;
                }
                self.kept.arrived.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait)
            .await
            .expect("packets arrive");
        std::mem::take(&mut *self.kept.frames.lock())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A client and an agent that know each other, with one stream between them.
fn pair() -> (End, Arc<Peer<Paths>>, End, Arc<Peer<Paths>>) {
    let (client, agent) = (End::new(CLIENT), End::new(AGENT));
    let to_agent = client
        .engine
        .tunnel()
        .add_peer(
            agent.engine.tunnel().public_key(),
            vec!["0.0.0.0/0".parse().unwrap()],
            Paths::new(false, true, 1280, vec![AGENT.into()]),
        )
        .unwrap();
    let to_client = agent
        .engine
        .tunnel()
        .add_peer(
            client.engine.tunnel().public_key(),
            vec!["240.64.0.2/32".parse().unwrap()],
            Paths::new(true, true, 1280, vec![CLIENT.into()]),
        )
        .unwrap();
    let (a, b) = tokio::io::duplex(1 << 16);
    for (end, peer, io) in [(&client, &to_agent, a), (&agent, &to_client, b)] {
        let (engine, peer) = (end.engine.clone(), peer.clone());
        let queue = Arc::new(StreamQueue::new(0, 1 << 20));
        peer.attached.add_stream(queue.clone());
        tokio::spawn(async move { stream::run(&engine, &peer, queue, io).await });
    }
    to_agent.attached.set_direction(Direction::Stream);
    client.engine.initiate(&to_agent);
    (client, to_agent, agent, to_client)
}

async fn probe(end: &mut End, peer: &Peer<Paths>, via: &Via, select: bool) -> Answer {
    for nonce in 0..50 {
        end.engine.probe(
            peer,
            via,
            Probe {
                nonce,
                is_answer: false,
                select,
            },
        );
        let answer = tokio::time::timeout(Duration::from_millis(100), end.answers.recv()).await;
        if let Ok(Some(answer)) = answer {
            return answer;
        }
    }
    panic!("no probe was answered on {via:?}");
}

/// A TCP packet of `payload` bytes; a super-packet where that is more than 1240.
fn frame(payload: usize) -> Vec<u8> {
    let total = 40 + payload;
    let mut f = vec![0_u8; VNET_HDR_LEN + total];
    VnetHdr {
        needs_csum: true,
        gso: if payload > 1240 {
            GsoKind::TcpV4
        } else {
            GsoKind::None
        },
        ecn: false,
        hdr_len: 40,
        gso_size: 1240,
        csum_start: 20,
        csum_offset: 16,
    }
    .emit(&mut f);
    let p = &mut f[VNET_HDR_LEN..];
    p[0] = 0x45;
    p[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    p[8] = 64;
    p[9] = 6;
    p[12..16].copy_from_slice(&CLIENT);
    p[16..20].copy_from_slice(&[10, 96, 0, 10]);
    crate::packet::checksum::fill_v4_header(&mut p[..20]);
    p[20..24].copy_from_slice(&[0x30, 0x39, 0, 80]);
    p[24..28].copy_from_slice(&1000_u32.to_be_bytes());
    p[32] = 5 << 4;
    p[33] = 0x10;
    p[34..36].copy_from_slice(&[0xff, 0xff]);
    for (i, byte) in p[40..].iter_mut().enumerate() {
        *byte = (i % 251) as u8;
    }
    let sum = crate::packet::checksum::pseudo_header(
        std::net::IpAddr::from(CLIENT),
        std::net::IpAddr::from([10, 96, 0, 10]),
        6,
        (20 + payload) as u16,
    )
    .fold();
    p[36..38].copy_from_slice(&sum.to_be_bytes());
    f
}

fn payload(frames: &[Vec<u8>]) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|f| f[VNET_HDR_LEN + 40..].to_vec())
        .collect()
}

#[tokio::test]
async fn a_super_packet_crosses_a_stream_whole_and_udp_in_segments() {
    let (mut client, to_agent, agent, to_client) = pair();
    let stream = Via::Stream(to_agent.attached.any_stream().unwrap());
    probe(&mut client, &to_agent, &stream, true).await;
    assert_eq!(to_client.attached.direction(), Direction::Stream);

    let sent = frame(60_000);
    let mut outbound = Outbound::default();
    client.engine.route(&mut outbound, &sent);
    let frames = agent.received(60_040).await;
    assert_eq!(
        frames,
        std::slice::from_ref(&sent),
        "the very same frame, its header included"
    );

    let udp = Via::Udp(agent.address);
    let answer = probe(&mut client, &to_agent, &udp, true).await;
    assert!(matches!(answer.via, Via::Udp(from) if from == agent.address));
    assert_eq!(
        to_client.attached.direction(),
        Direction::Udp(client.address)
    );
    to_agent
        .attached
        .set_direction(Direction::Udp(agent.address));
    client.engine.route(&mut outbound, &sent);
    client.engine.flush(&mut outbound);
    let frames = agent.received(60_040).await;
    assert_eq!(payload(&frames), payload(&[sent]));
    assert!(
        frames.len() < 10,
        "{} frames: the segments were not joined",
        frames.len()
    );
}

#[tokio::test]
async fn the_agent_follows_its_client_and_a_probe_alone_moves_nothing() {
    let (mut client, to_agent, agent, to_client) = pair();
    let stream = Via::Stream(to_agent.attached.any_stream().unwrap());
    probe(&mut client, &to_agent, &stream, true).await;
    probe(&mut client, &to_agent, &Via::Udp(agent.address), false).await;
    assert_eq!(to_client.attached.direction(), Direction::Stream);

    to_agent
        .attached
        .set_direction(Direction::Udp(agent.address));
    let mut outbound = Outbound::default();
    client.engine.route(&mut outbound, &frame(100));
    client.engine.flush(&mut outbound);
    agent.received(140).await;
    assert_eq!(
        to_client.attached.direction(),
        Direction::Udp(client.address)
    );
}

#[tokio::test]
async fn junk_on_a_stream_ends_that_stream_alone() {
    use tokio::io::AsyncWriteExt;
    let (mut client, to_agent, agent, to_client) = pair();
    let stream = Via::Stream(to_agent.attached.any_stream().unwrap());
    probe(&mut client, &to_agent, &stream, true).await;
    let (mut junk, io) = tokio::io::duplex(1 << 16);
    junk.write_all(&[0xff; 4096]).await.unwrap();
    let result = stream::run(
        &agent.engine,
        &to_client,
        Arc::new(StreamQueue::new(1, 1 << 20)),
        io,
    );
    let error = tokio::time::timeout(Duration::from_secs(5), result)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.to_string().contains("frame"), "{error}");
    assert_eq!(to_client.attached.streams().len(), 1);
    probe(&mut client, &to_agent, &stream, false).await;
}
