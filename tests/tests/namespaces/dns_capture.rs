//! Names by eBPF programs that catch queries, and the choice of another way.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::addresses;
use pmz_cli::playground::machine::Machine;
use pmz_cli::playground::world::World;
use pmz_tests::{Ran, eventually, options, run, scene, script, skipped, status, udp};
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::deaths::KILL_PMZ;
use crate::outside::{ADDRESS, Outside, query};
use crate::steering::pmz;

const SOON: Duration = Duration::from_secs(5);
const RESOLV_CONF: &str = "cat /etc/resolv.conf";
/// What the laptop's programs hear of names that are not the cluster's.
pub(crate) const OUTSIDE_NAMES: &str = "cat /etc/resolv.conf; getent ahosts www.example.org; \
    for name in nobody.example.org nobody.invalid; do getent hosts $name || echo $?; done";

/// Gives the laptop a name server of its own.
async fn outside(world: &World) -> Result<Outside> {
    let outside = Outside::start(world.playground().node())?;
    let [server, _] = addresses::NODE;
    let resolv = format!("echo nameserver {server} >/etc/resolv.conf");
    script(world.playground().laptop(), &resolv).await?;
    Ok(outside)
}

/// A service's names lead libc's resolver to both of its addresses.
pub(crate) async fn cluster_names(laptop: &Machine) -> Result<()> {
    for name in [
        "echo.default.svc",
        "echo.default.svc.cluster.local",
        "echo.default",
    ] {
        let found = script(laptop, &format!("getent ahosts {name}")).await?;
        let both = found.contains("10.96.0.10 ") && found.contains("fd00:10:96::a ");
        ensure!(both, "{name}: {found}");
    }
    Ok(())
}

async fn on_laptop(world: &World, program: &str, arguments: &[&str]) -> Result<Ran> {
    let mut command = world.laptop(program);
    command.args(arguments);
    run(command).await
}

#[test]
fn programs_of_all_kinds_find_cluster_names_and_outside_names_by_ebpf() {
    scene(
        "DNS by eBPF",
        || options(None),
        async |world| {
            let _outside = outside(world).await?;
            let laptop = world.playground().laptop().clone();
            let before = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(before.contains(ADDRESS), "{before}");
            world.up(&["--dns", "ebpf"], false).await?;
            let dns = status(world).await?["dns"].clone();
            ensure!(dns["how"] == "ebpf" && dns["missing"].is_null(), "{dns}");
            let told = pmz(world, &["status"]).await?.stdout;
            ensure!(told.contains("by eBPF programs"), "{told}");
            let after = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(after == before, "{before}\n{after}");
            cluster_names(&laptop).await?;
            by_python(world).await?;

            let down = pmz(world, &["down"]).await?;
            ensure!(down.code == Some(0), "{down:?}");
            let after = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(after == before, "{before}\n{after}");
            let gone = on_laptop(world, "getent", &["hosts", "echo.default.svc"]).await?;
            ensure!(gone.code == Some(2), "{gone:?}");
            Ok(())
        },
    );
}

/// UDP connected and not, TCP, and IPv6 sockets to either kind of server: each prints what it was told, and by whom.
const BY_PYTHON: &str = r#"
import socket, struct, sys
v4, v6 = sys.argv[1:]
def query(name):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)
def told(answer):
    return ".".join(str(byte) for byte in answer[-4:])
def connected(family, server, name):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect((server, 53))
    s.send(query(name))
    answer, by = s.recvfrom(512)
    assert by == s.getpeername(), (by, s.getpeername())
    return told(answer), by[0]
def loose(family, server, name):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.sendto(query(name), (server, 53))
    answer, by = s.recvfrom(512)
    return told(answer), by[0]
def stream(family, server, name):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(5)
    s.connect((server, 53))
    q = query(name)
    s.sendall(struct.pack("!H", len(q)) + q)
    f = s.makefile("rb")
    length, = struct.unpack("!H", f.read(2))
    return told(f.read(length)), s.getpeername()[0]
for way in connected, loose, stream:
    for family, server in (socket.AF_INET, v4), (socket.AF_INET6, v6), (socket.AF_INET6, "::ffff:" + v4):
        for name in "echo.default.svc.cluster.local", "www.example.org":
            address, by = way(family, server, name)
            assert by == server, (way, by, server)
            print(way.__name__, server, address)
print("and", *sorted({a[4][0] for a in socket.getaddrinfo("echo.default.svc", 80)}))
"#;

async fn by_python(world: &World) -> Result<()> {
    let [v4, v6] = addresses::NODE.map(|node| node.to_string());
    let python = on_laptop(world, "python3", &["-c", BY_PYTHON, &v4, &v6]).await;
    let Ok(ran) = python else {
        skipped("DNS by eBPF, by python", "there is no python3 here");
        return Ok(());
    };
    ensure!(ran.code == Some(0), "{ran:?}");
    let mut expected = String::new();
    for way in ["connected", "loose", "stream"] {
        for server in [&v4, &v6, &format!("::ffff:{v4}")] {
            for address in ["10.96.0.10", ADDRESS] {
                expected.push_str(&format!("{way} {server} {address}\n"));
            }
        }
    }
    expected.push_str("and 10.96.0.10 fd00:10:96::a\n");
    ensure!(ran.stdout == expected, "{}\nnot\n{expected}", ran.stdout);
    Ok(())
}

/// No query is longer under way, to the name server and back, on a machine that has other things to do.
const WAY: Duration = Duration::from_millis(250);
/// Queries that are answered before pmz is killed.
const FIRST: usize = 1000;
/// Between two queries.
const PACE: Duration = Duration::from_millis(1);

#[test]
fn killed_during_a_thousand_queries_a_second_pmz_costs_those_under_way_and_no_later_one() {
    scene(
        "killed under queries",
        || options(None),
        async |world| {
            let _outside = outside(world).await?;
            let laptop = world.playground().laptop().clone();
            let before = script(&laptop, OUTSIDE_NAMES).await?;
            world.up(&["--dns", "ebpf"], false).await?;
            let socket = udp(world, Ipv4Addr::UNSPECIFIED.into())?;
            let answered = AtomicUsize::new(0);
            let load = Load::run(&socket, &answered);
            let kill = async {
                eventually("answers", SOON, async || {
                    Ok((answered.load(Ordering::Relaxed) >= FIRST).then_some(()))
                })
                .await?;
                let begun = Instant::now();
                let pids = script(&laptop, KILL_PMZ).await?;
                // Killed is not gone.
                let gone = format!("for pid in {}; do ! [ -e /proc/$pid ]; done", pids.trim());
                eventually("both gone", SOON, async || {
                    Ok(script(&laptop, &gone).await.ok())
                })
                .await?;
                anyhow::Ok((begun, Instant::now()))
            };
            let (load, killed) = tokio::join!(load, kill);
            let (load, (begun, over)) = (load?, killed?);
            let lost = load.lost();
            println!(
                "{} queries, {} of them lost in the {:?} of the kill",
                load.sent.len(),
                lost.len(),
                over - begun
            );
            ensure!(load.sent.len() > 2000, "{} queries", load.sent.len());
            let others = lost.iter().filter(|at| **at + WAY < begun || **at > over);
            let others: Vec<_> = others.map(|at| *at - load.sent[0]).collect();
            ensure!(others.is_empty(), "lost at other times: {others:?}");
            let late = load
                .unread
                .iter()
                .filter(|id| load.sent[usize::from(**id)] > over);
            ensure!(
                late.count() == 0,
                "pmz has answered what was sent after its end"
            );
            let after = script(&laptop, OUTSIDE_NAMES).await?;
            ensure!(after == before, "{before}\n{after}");
            Ok(())
        },
    );
}

/// Queries by one socket, when each was sent, and which were answered.
struct Load {
    sent: Vec<Instant>,
    answered: HashSet<u16>,
    /// Those whose answers came when pmz was there, and were read when nobody was left to say whose they are. No resolver
    /// takes them; how long they lay there is this test's own doing.
    unread: HashSet<u16>,
}

impl Load {
    const QUERIES: u16 = 3000;

    async fn run(socket: &UdpSocket, answered: &AtomicUsize) -> Result<Self> {
        let [server, _] = addresses::NODE;
        let server = SocketAddr::new(server, 53);
        let mut load = Self {
            sent: Vec::new(),
            answered: HashSet::new(),
            unread: HashSet::new(),
        };
        let mut ticks = interval(PACE);
        // What a pause has held up would be a burst that no socket has room for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; 512];
        while load.sent.len() < usize::from(Self::QUERIES) {
            tokio::select! {
                _ = ticks.tick() => {
                    let id = u16::try_from(load.sent.len())?;
                    load.sent.push(Instant::now());
                    socket.send_to(&query(id, "www.example.org"), server).await?;
                }
                heard = socket.recv_from(&mut buffer) => {
                    load.take(heard?, &buffer, server)?;
                    answered.store(load.answered.len(), Ordering::Relaxed);
                }
            }
        }
        while load.answered.len() + load.unread.len() < load.sent.len() {
            match timeout(SOON / 5, socket.recv_from(&mut buffer)).await {
                Ok(heard) => load.take(heard?, &buffer, server)?,
                Err(_) => break,
            }
        }
        Ok(load)
    }

    fn take(
        &mut self,
        heard: (usize, SocketAddr),
        buffer: &[u8],
        server: SocketAddr,
    ) -> Result<()> {
        let (length, from) = heard;
        let address: Ipv4Addr = ADDRESS.parse()?;
        let answer = buffer.get(..length).context("no answer")?;
        ensure!(answer.ends_with(&address.octets()), "{answer:?}");
        let id = u16::from_be_bytes([answer[0], answer[1]]);
        if from == server {
            self.answered.insert(id);
        } else {
            ensure!(from.ip().is_loopback(), "an answer from {from}");
            self.unread.insert(id);
        }
        Ok(())
    }

    /// When the queries were sent that have no answer.
    fn lost(&self) -> Vec<Instant> {
        let queries = (0..).zip(&self.sent);
        let lost =
            queries.filter(|(id, _)| !self.answered.contains(id) && !self.unread.contains(id));
        lost.map(|(_, at)| *at).collect()
    }
}

#[test]
fn another_way_is_taken_where_the_user_wants_it_and_what_is_not_there_is_refused() {
    scene(
        "ways of DNS",
        || options(None),
        async |world| {
            let _outside = outside(world).await?;
            let laptop = world.playground().laptop().clone();
            let before = script(&laptop, RESOLV_CONF).await?;
            for (arguments, words) in [
                (
                    &["--dns", "ebpf", "--ebpf", "off"][..],
                    "Give one of the two",
                ),
                (&["--dns", "resolved"], "systemd-resolved"),
            ] {
                let ran = pmz(world, &[&["up"], arguments].concat()).await?;
                ensure!(ran.code != Some(0) && ran.stderr.contains(words), "{ran:?}");
                ensure!(
                    script(&laptop, RESOLV_CONF).await? == before,
                    "{arguments:?}"
                );
            }

            // Without eBPF it is resolv.conf, and status says why.
            world.up(&["--ebpf", "off"], false).await?;
            let dns = status(world).await?["dns"].clone();
            let why = dns["missing"].as_str().unwrap_or_default();
            ensure!(
                dns["how"] == "resolv.conf" && why.contains("--ebpf off"),
                "{dns}"
            );
            let edited = script(&laptop, RESOLV_CONF).await?;
            ensure!(edited != before, "{edited}");
            finds(world, "echo.default.svc", "10.96.0.10").await?;
            finds(world, "www.example.org", ADDRESS).await?;
            pmz(world, &["down"]).await?;
            ensure!(
                script(&laptop, RESOLV_CONF).await? == before,
                "not put back"
            );

            let mut up = world.pmz();
            up.arg("up").env("PMZ_DNS", "resolvconf");
            ensure!(run(up).await?.code == Some(0), "PMZ_DNS");
            let dns = status(world).await?["dns"].clone();
            ensure!(
                dns["how"] == "resolv.conf" && dns["missing"].is_null(),
                "{dns}"
            );
            pmz(world, &["down"]).await?;
            off(world, &before).await
        },
    );
}

/// Nothing is led to pmz, which answers who asks it.
async fn off(world: &World, before: &str) -> Result<()> {
    world.up(&["--dns", "off"], false).await?;
    let dns = status(world).await?["dns"].clone();
    ensure!(dns["how"] == "off", "{dns}");
    let now = script(world.playground().laptop(), RESOLV_CONF).await?;
    ensure!(now == before, "{now}");
    let unknown = on_laptop(world, "getent", &["hosts", "echo.default.svc"]).await?;
    ensure!(unknown.code == Some(2), "{unknown:?}");
    let server: IpAddr = dns["server"].as_str().context("no server")?.parse()?;
    let socket = udp(world, Ipv4Addr::UNSPECIFIED.into())?;
    let question = query(1, "echo.default.svc");
    socket.send_to(&question, (server, 53)).await?;
    let mut buffer = [0; 512];
    let length = timeout(SOON, socket.recv(&mut buffer)).await??;
    let answer = buffer.get(..length).context("no answer")?;
    let address = [10, 96, 0, 10];
    ensure!(answer.windows(4).any(|it| it == address), "{answer:?}");
    Ok(())
}

async fn finds(world: &World, name: &str, address: &str) -> Result<()> {
    eventually(name, SOON, async || {
        let ran = on_laptop(world, "getent", &["ahostsv4", name]).await?;
        Ok(ran.stdout.contains(address).then_some(()))
    })
    .await
}
