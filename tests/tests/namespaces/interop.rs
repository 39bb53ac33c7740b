//! On UDP the messages are plain WireGuard: another implementation can be the other end.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::x25519::{PublicKey, StaticSecret};
use pmz_cli::playground::addresses;
use pmz_cli::playground::world::World;
use pmz_net::route::Netlink;
use pmz_net::session::codec::{encode, read_frame};
use pmz_net::session::{Answer, MAX_FRAME, PROTOCOL, Welcome};
use pmz_tests::{
    Http, WIREGUARD_GO, WireguardConfig, WireguardDevice, options, scene, skipped, udp,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::hostile::{control, hello};
use crate::service;

const INTERFACE: &str = "wg0";
/// What is left of 1500 bytes with WireGuard around it, as wg-quick has it.
const MTU: u16 = 1420;
const ANSWER: Duration = Duration::from_secs(5);
const BLOB: usize = 20_000_000;

#[test]
fn wireguard_go_is_the_other_end_of_an_agents_session() {
    if !WIREGUARD_GO.is_installed() {
        let why = format!("{} is not installed", WIREGUARD_GO.name);
        skipped("wireguard-go as the other end", &why);
        return;
    }
    scene(
        "wireguard-go as the other end",
        || options(None),
        async |world| {
            let key = StaticSecret::from(rand::random::<[u8; 32]>());
            let (_control, welcome) = session(world, PublicKey::from(&key).to_bytes()).await?;
            let _device = device(world, &key, &welcome).await?;
            for family in [4, 6] {
                through_the_tunnel(world, &welcome, family)
                    .await
                    .with_context(|| format!("IPv{family}"))?;
            }
            Ok(())
        },
    );
}

/// A session for that public key, as long as the stream lives.
async fn session(world: &World, key: [u8; 32]) -> Result<(TcpStream, Welcome)> {
    let mut stream = control(world).await?;
    stream.write_all(&encode(&hello(PROTOCOL, key))?).await?;
    let answer = timeout(ANSWER, read_frame::<Answer>(&mut stream, MAX_FRAME)).await??;
    let Some(Answer::Welcome(welcome)) = answer else {
        anyhow::bail!("{answer:?}");
    };
    Ok((stream, *welcome))
}

/// The laptop's device, with what the agent granted: addresses, routes, the agent's key and its node port.
async fn device(world: &World, key: &StaticSecret, welcome: &Welcome) -> Result<WireguardDevice> {
    let laptop = world.playground().laptop();
    let device =
        WireguardDevice::start(WIREGUARD_GO, laptop.command(WIREGUARD_GO.name), INTERFACE)?;
    let peer = STANDARD.decode(&welcome.public_key)?;
    let networks = &welcome.networks;
    let prefixes = [&networks.services.prefixes[..], &networks.pods.prefixes[..]].concat();
    let config = WireguardConfig {
        private_key: key.to_bytes(),
        listen_port: 0,
        peer: peer
            .try_into()
            .map_err(|_| anyhow::anyhow!("no key of 32 bytes"))?,
        endpoint: SocketAddr::new(addresses::NODE[0], addresses::AGENT_NODE_PORT),
        allowed: prefixes.clone(),
    };
    let connect = |path: &std::path::Path| laptop.run_in(|| UnixStream::connect(path))?;
    device.configure(&config, connect).await?;

    let netlink = laptop.in_netns(Netlink::open)??;
    let links = netlink.link_names().await?;
    let link = links.iter().find(|(_, name)| *name == INTERFACE);
    let index = *link.context("it made no interface")?.0;
    netlink.bring_up(index, MTU).await?;
    for address in &welcome.addresses {
        netlink.add_address(index, *address).await?;
    }
    for prefix in prefixes {
        let own = |a: &&std::net::IpAddr| a.is_ipv4() == prefix.addr().is_ipv4();
        let source = welcome.addresses.iter().find(own);
        netlink
            .add_route(index, prefix, source.copied(), None)
            .await?;
    }
    Ok(device)
}

/// TCP in both directions, with every byte checked, and UDP.
async fn through_the_tunnel(world: &World, welcome: &Welcome, family: u8) -> Result<()> {
    let echo = service(world, "default", "echo", family)?;
    let answer = Http::get(world, echo, "/?echo_body=amazing").await?;
    ensure!(answer.text().await? == "\"amazing\"");

    let blob = service(world, "default", "blob", family)?;
    let mut download = Http::get(world, blob, &format!("/{BLOB}?seed=7")).await?;
    let mut bytes = Vec::with_capacity(BLOB);
    timeout(ANSWER * 4, download.body.read_to_end(&mut bytes))
        .await
        .context("no end of the download")??;
    ensure!(bytes.len() == BLOB, "{} bytes", bytes.len());
    let mut upload = pmz_tests::connect(world, blob).await?;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {BLOB}\r\n\r\n"
    );
    upload.write_all(head.as_bytes()).await?;
    timeout(ANSWER * 4, upload.write_all(&bytes))
        .await
        .context("no end of the upload")??;
    let said: serde_json::Value = serde_json::from_str(&Http::answer(upload).await?.text().await?)?;
    let sum = Sha256::digest(&bytes);
    let sum = sum.iter().map(|b| format!("{b:02x}")).collect::<String>();
    ensure!(said["sha256"] == sum, "{said}");

    let own = welcome
        .addresses
        .iter()
        .find(|a| a.is_ipv4() == (family == 4))
        .context("no address")?;
    let socket = udp(world, *own)?;
    let server = service(world, "default", "udp-echo", family)?;
    socket.send_to(b"hello", server).await?;
    let mut back = [0; 16];
    let (len, from) = timeout(ANSWER, socket.recv_from(&mut back))
        .await
        .context("no echo")??;
    ensure!(from == server && &back[..len] == b"hello");
    Ok(())
}
