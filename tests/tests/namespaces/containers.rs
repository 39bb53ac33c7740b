//! Containers as Docker makes them: a network namespace behind a bridge of the laptop's, masqueraded, with a resolv.conf of
//! their own.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use pmz_cli::playground::addresses;
use pmz_cli::playground::machine::Machine;
use pmz_cli::playground::world::World;
use pmz_tests::lab::Programs;
use pmz_tests::{options, run, scene, script, status};

use crate::outside::{ADDRESS, Outside, query, server};
use crate::resolved::Resolved;
use crate::service;
use crate::steering::pmz;

const PORT: u16 = 53;
const REFUSED: u8 = 5;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// A bridge and a container at it, with what dockerd sets up for them.
const BRIDGE: &str = r#"
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link add docker0 type bridge
ip address add 172.17.0.1/16 dev docker0
ip link set docker0 up
mkdir -p /run/netns
ip netns add container
ip link add veth0 type veth peer name eth0 netns container
ip link set veth0 master docker0 up
ip -n container link set lo up
ip -n container address add 172.17.0.2/16 dev eth0
ip -n container link set eth0 up
ip -n container route add default via 172.17.0.1
"#;
const MASQUERADE: &str = "table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 172.17.0.0/16 oifname != docker0 masquerade
    }
}";

async fn bridge(world: &World, programs: &Programs) -> Result<()> {
    let laptop = world.playground().laptop();
    script(laptop, BRIDGE).await?;
    laptop.write_file("/run/masquerade", MASQUERADE.as_bytes())?;
    let mut nft = world.laptop(&programs.path("sbin/nft").to_string_lossy());
    nft.env("LD_LIBRARY_PATH", programs.libraries(&[""]));
    nft.args(["-f", "/run/masquerade"]);
    let ran = run(nft).await?;
    ensure!(ran.code == Some(0), "{ran:?}");
    Ok(())
}

/// A command in the container, whose resolv.conf names that server.
fn inside(world: &World, server: &str, program: &[&str]) -> Command {
    let enter = "echo nameserver $0 >/run/container.conf
        mount --bind /run/container.conf /etc/resolv.conf
        exec \"$@\"";
    let mut command = world.laptop("nsenter");
    command.args(["--net=/run/netns/container", "unshare", "-m"]);
    command.args(["sh", "-ec", enter, server]).args(program);
    command
}

/// Whether the container finds a service at its address, and an outside name in any case.
async fn finds(world: &World, server: &str) -> Result<bool> {
    let ask = async |name: &str| run(inside(world, server, &["getent", "ahostsv4", name])).await;
    let outside = ask("www.example.org").await?;
    ensure!(outside.stdout.contains(ADDRESS), "{server}: {outside:?}");
    let found = ask("echo.default.svc.cluster.local").await?;
    // getent(1): 2 is "not found".
    ensure!(matches!(found.code, Some(0 | 2)), "{server}: {found:?}");
    let echo = service(world, "default", "echo", 4)?.ip().to_string();
    Ok(found.stdout.contains(&echo))
}

/// The server that dockerd gives to containers: the machine's, and where that is on the loopback network, the first that
/// systemd-resolved knows besides.
async fn copied(laptop: &Machine) -> Result<String> {
    let first = "sed -n 's/^nameserver //p' $1 | head -n 1";
    let ask = async |file: &str| script(laptop, &format!("set -- {file}; {first}")).await;
    let server = ask("/etc/resolv.conf").await?;
    let server = match server.starts_with("127.") {
        true => ask("/run/systemd/resolve/resolv.conf").await?,
        false => server,
    };
    Ok(server.trim().to_owned())
}

/// A resolver at the container's loopback address that asks for it from the machine's network namespace, as dockerd
/// has it. It ends with this.
struct Embedded {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    const ADDRESS: &str = "127.0.0.11";

    fn start(laptop: &Machine, server: &str) -> Result<Self> {
        let at: IpAddr = Self::ADDRESS.parse()?;
        let inner = laptop.run_in(|| -> io::Result<UdpSocket> {
            setns(
                File::open("/run/netns/container")?,
                CloneFlags::CLONE_NEWNET,
            )?;
            UdpSocket::bind((at, PORT))
        })??;
        inner.set_read_timeout(Some(LOOK))?;
        let server: IpAddr = server.parse()?;
        let outer = laptop.in_netns(|| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((server, PORT))?;
            Ok(socket)
        })??;
        outer.set_read_timeout(Some(ANSWER))?;
        let end = Arc::new(AtomicBool::new(false));
        let ends = end.clone();
        let serve = move || {
            let mut buffer = [0; 1500];
            while !ends.load(Ordering::Relaxed) {
                if let Ok((length, from)) = inner.recv_from(&mut buffer)
                    && outer.send(&buffer[..length]).is_ok()
                    && let Ok(length) = outer.recv(&mut buffer)
                {
                    // The container may have ended.
                    let _ = inner.send_to(&buffer[..length], from);
                }
            }
        };
        Ok(Self {
            end,
            thread: Some(std::thread::spawn(serve)),
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a container that begins now finds by the servers that it has: those that are copied, and by a resolver of
/// dockerd's.
struct Expected {
    copied: bool,
    embedded: bool,
}

async fn containers(world: &World, way: &str, expected: Expected) -> Result<()> {
    let laptop = world.playground().laptop().clone();
    world.up(&["--dns", way], false).await?;
    let server = copied(&laptop).await?;
    let found = finds(world, &server).await?;
    ensure!(found == expected.copied, "{way}, by {server}: {found}");
    let embedded = Embedded::start(&laptop, &server)?;
    let found = finds(world, Embedded::ADDRESS).await?;
    ensure!(found == expected.embedded, "{way}, by dockerd: {found}");
    drop(embedded);

    let dns = status(world).await?["dns"].clone();
    let own = dns["server"].as_str().context("no server")?;
    ensure!(finds(world, own).await?, "{way}, by pmz's {own}");
    let program = world.pmz().get_args().last().map(ToOwned::to_owned);
    let program = program.context("no program")?;
    let program = program.to_str().context("no text")?;
    // Packets of those who know the address need no name.
    for host in ["echo.default.svc", "10.96.0.10"] {
        let url = format!("http://{host}/?echo_body=amazing");
        let got = run(inside(
            world,
            own,
            &[program, "playground-errand", "get", &url],
        ))
        .await?;
        ensure!(got.stdout.trim() == "\"amazing\"", "{way}, {host}: {got:?}");
    }
    stranger(world, own.parse()?).await.context("a stranger")?;
    pmz(world, &["down"]).await?;
    Ok(())
}

/// Who is on the same network, and sends what is for pmz's address to the laptop, is refused.
async fn stranger(world: &World, server: IpAddr) -> Result<()> {
    let node = world.playground().node();
    let [laptop, _] = addresses::LAPTOP;
    script(node, &format!("ip route replace {server} via {laptop}")).await?;
    let socket = node.in_netns(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
    socket.set_read_timeout(Some(ANSWER))?;
    for name in ["echo.default.svc", "www.example.org"] {
        socket.send_to(&query(1, name), (server, PORT))?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer)?;
        let answer = buffer.get(..length).context("no answer")?;
        ensure!(answer[3] & 0xf == REFUSED, "{name}: {answer:?}");
    }
    Ok(())
}

#[test]
fn containers_reach_services_and_find_those_whose_server_leads_to_pmz_by_ebpf_and_by_resolv_conf() {
    let test = "containers";
    let Some(programs) = Programs::of(test) else {
        return;
    };
    scene(
        test,
        || options(None),
        async |world| {
            let _outside = Outside::start(world.playground().node())?;
            let resolv = format!("echo nameserver {} >/etc/resolv.conf", server());
            script(world.playground().laptop(), &resolv).await?;
            bridge(world, &programs).await?;
            let caught = Expected {
                copied: false,
                embedded: true,
            };
            containers(world, "ebpf", caught).await?;
            let edited = Expected {
                copied: true,
                embedded: true,
            };
            containers(world, "resolvconf", edited).await
        },
    );
}

#[test]
fn containers_reach_services_and_find_those_whose_server_is_pmzs_by_systemd_resolved() {
    let test = "containers by systemd-resolved";
    let Some(programs) = Programs::of(test) else {
        return;
    };
    scene(
        test,
        || options(None),
        async |world| {
            let _resolved = Resolved::start(world, programs.clone()).await?;
            bridge(world, &programs).await?;
            let linked = Expected {
                copied: false,
                embedded: false,
            };
            containers(world, "resolved", linked).await
        },
    );
}
