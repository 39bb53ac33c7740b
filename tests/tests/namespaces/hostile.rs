//! What doesn't keep to the protocol is closed with a reason, and disturbs nobody.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pmz_cli::playground::addresses;
use pmz_cli::playground::world::World;
use pmz_net::route::Netlink;
use pmz_net::session::codec::{encode, read_frame};
use pmz_net::session::{Answer, Hello, MAX_FRAME, Open, PROTOCOL, RefusalReason};
use pmz_tests::{Log, connect, options, scene, status, udp};
use rand::RngCore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::{pod, service};

/// Packets with a foreign source address: many more than probes in that time.
const FOREIGN: u64 = 100;
const ANSWER: Duration = Duration::from_secs(5);

/// A connection to the agent's control port, from its own loopback as port-forwards come.
pub(crate) async fn control(world: &World) -> Result<TcpStream> {
    let agent = format!("pmz/{}", world.agents()[0].pod());
    let machine = world.playground().pod(&agent).context("no agent pod")?;
    let to = SocketAddr::from(([127, 0, 0, 1], 7600));
    let socket = machine.in_netns(tokio::net::TcpSocket::new_v4)??;
    Ok(socket.connect(to).await?)
}

pub(crate) fn hello(protocol: u32, key: [u8; 32]) -> Open {
    Open::Control(Hello {
        protocol,
        version: "9.9.9".into(),
        public_key: STANDARD.encode(key),
        capabilities: Vec::new(),
        resume: None,
        addresses: Vec::new(),
        client: "a test".into(),
    })
}

/// The reason for which these bytes are refused; the connection is closed after it.
async fn refusal(world: &World, bytes: &[u8]) -> Result<RefusalReason> {
    let mut stream = control(world).await?;
    stream.write_all(bytes).await?;
    let answered = async {
        let answer = read_frame::<Answer>(&mut stream, MAX_FRAME).await?;
        let Some(Answer::Refused(refusal)) = answer else {
            anyhow::bail!("the answer is {answer:?}");
        };
        ensure!(!refusal.message.is_empty(), "no message");
        // A reset is as closed as an end.
        let rest = stream.read(&mut [0]).await.unwrap_or(0);
        ensure!(rest == 0, "something follows the refusal");
        Ok(refusal.reason)
    };
    timeout(ANSWER, answered).await.context("no answer")?
}

#[test]
fn nonsense_on_every_port_is_closed_with_a_reason_and_disturbs_no_session() {
    let log = Log::new("nonsense");
    let options = || {
        let mut options = options(None)?;
        options.agent_log = Some(log.path());
        Ok(options)
    };
    scene("nonsense", options, async |world| {
        world.up(&[], false).await?;
        let db = pod(world, "db-0", 5432, 4)?;
        let mut session = connect(world, db).await?;
        echo(&mut session, b"before\n").await?;

        let mut malformed = 9_u32.to_be_bytes().to_vec();
        malformed.extend(b"{\"open\":1");
        ensure!(refusal(world, &malformed).await? == RefusalReason::Malformed);
        let oversized = 0x7fff_ffff_u32.to_be_bytes();
        ensure!(refusal(world, &oversized).await? == RefusalReason::Malformed);
        let mut random = [0; 4096];
        rand::rng().fill_bytes(&mut random);
        random[0] |= 0x80;
        ensure!(refusal(world, &random).await? == RefusalReason::Malformed);
        let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        ensure!(refusal(world, http).await? == RefusalReason::Malformed);
        let old = encode(&hello(PROTOCOL + 7, [7; 32]))?;
        ensure!(refusal(world, &old).await? == RefusalReason::Version);
        let carrier = Open::Carrier {
            protocol: PROTOCOL,
            token: "guessed".into(),
            index: 0,
        };
        ensure!(refusal(world, &encode(&carrier)?).await? == RefusalReason::Session);
        // One that ends within a frame gets no answer, and is in the log all the same.
        drop_half_a_frame(world).await?;
        for reason in [
            "not the message expected here",
            "2147483647 bytes was announced",
            "speaks protocol",
            "ended inside a frame",
        ] {
            log.says(reason, ANSWER).await?;
        }

        let key = [9; 32];
        let first = welcomed(world, key).await?;
        ensure!(refusal(world, &encode(&hello(PROTOCOL, key))?).await? == RefusalReason::Session);
        random_datagrams(world).await?;

        echo(&mut session, b"after\n").await?;
        drop(first);
        let status = status(world).await?;
        ensure!(status["state"] == "connected", "{status}");
        ensure!(status["reconnects"] == 0, "{status}");
        Ok(())
    });
}

async fn drop_half_a_frame(world: &World) -> Result<()> {
    let mut stream = control(world).await?;
    stream.write_all(&[0, 0, 1, 0, b'{']).await?;
    stream.shutdown().await?;
    let _ = timeout(ANSWER, stream.read_to_end(&mut Vec::new()))
        .await
        .context("half a frame is not given up")?;
    Ok(())
}

/// A session with that key, as long as the stream lives.
async fn welcomed(world: &World, key: [u8; 32]) -> Result<TcpStream> {
    let mut stream = control(world).await?;
    stream.write_all(&encode(&hello(PROTOCOL, key))?).await?;
    let answer = timeout(ANSWER, read_frame::<Answer>(&mut stream, MAX_FRAME)).await??;
    ensure!(matches!(answer, Some(Answer::Welcome(_))), "{answer:?}");
    Ok(stream)
}

/// To the tunnel's port: noise, and noise that begins as each of WireGuard's messages does.
async fn random_datagrams(world: &World) -> Result<()> {
    let to = SocketAddr::new(addresses::NODE[0], addresses::AGENT_NODE_PORT);
    let socket = udp(world, addresses::LAPTOP[0])?;
    let mut bytes = [0; 1400];
    for number in 0..2000_usize {
        rand::rng().fill_bytes(&mut bytes);
        if number % 2 == 0 {
            bytes[..4].copy_from_slice(&[(number / 2 % 5) as u8, 0, 0, 0]);
        }
        let len = [148, 92, 64, 32, number % 1400][number % 5];
        socket.send_to(&bytes[..len], to).await?;
    }
    Ok(())
}

async fn echo(stream: &mut TcpStream, line: &[u8]) -> Result<()> {
    stream.write_all(line).await?;
    let mut back = vec![0; line.len()];
    timeout(ANSWER, stream.read_exact(&mut back))
        .await
        .context("no echo")??;
    ensure!(back == line, "{back:?}");
    Ok(())
}

#[test]
fn a_packet_with_somebody_elses_source_address_is_dropped_and_counted() {
    let log = Log::new("foreign-source");
    let options = || {
        let mut options = options(None)?;
        options.agent_log = Some(log.path());
        Ok(options)
    };
    scene("foreign source address", options, async |world| {
        world.up(&[], false).await?;
        let foreign: IpAddr = "10.99.77.66".parse()?;
        let netlink = world.playground().laptop().in_netns(Netlink::open)??;
        let names = netlink.link_names().await?;
        let device = names.iter().find(|(_, name)| *name == "pmz0");
        let (index, _) = device.context("no pmz0")?;
        netlink.add_address(*index, foreign).await?;

        let server = service(world, "default", "udp-echo", 4)?;
        let honest: IpAddr = status(world).await?["addresses"][0]
            .as_str()
            .context("no address")?
            .parse()?;
        let (honest, foreign) = (udp(world, honest)?, udp(world, foreign)?);
        ensure!(
            answers(&honest, server, Duration::from_secs(5)).await?,
            "no echo at all"
        );
        let before = packets_sent(world).await?;
        for _ in 0..FOREIGN {
            foreign.send_to(b"mine?", server).await?;
        }
        let answered = answers(&foreign, server, Duration::from_secs(1)).await?;
        ensure!(!answered, "an answer");
        // They did go into the tunnel.
        let sent = packets_sent(world).await? - before;
        ensure!(sent >= FOREIGN, "only {sent} packets went");
        ensure!(
            answers(&honest, server, Duration::from_secs(5)).await?,
            "no echo any more"
        );
        // The agent tells what it dropped, once in 5 s at the most; one datagram more asked for an answer.
        let counted = format!("wrong_source: {}", FOREIGN + 1);
        log.says(&counted, Duration::from_secs(10)).await
    });
}

async fn packets_sent(world: &World) -> Result<u64> {
    let status = status(world).await?;
    status["packets"]["sent"].as_u64().context("no count")
}

async fn answers(socket: &UdpSocket, server: SocketAddr, within: Duration) -> Result<bool> {
    socket.send_to(b"mine?", server).await?;
    let answer = timeout(within, socket.recv_from(&mut [0; 16])).await;
    Ok(matches!(answer, Ok(Ok((5, from))) if from == server))
}
