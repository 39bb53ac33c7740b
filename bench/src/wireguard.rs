//! wireguard-go, where it is installed: a process at each end, told its keys over its own socket.

use std::env;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use boringtun::x25519::{PublicKey, StaticSecret};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::lab::{Lab, Side};

const PROGRAM: &str = "wireguard-go";
const PORT: u16 = 51820;
/// For starting and for ending.
const WITHIN: Duration = Duration::from_secs(5);
/// There is nothing to wait on for its socket.
const RETRY: Duration = Duration::from_millis(20);

/// A tunnel between the lab's two sides. It ends when dropped.
pub(crate) struct WireguardGo {
    _ends: [End; 2],
    pub(crate) server_address: IpAddr,
}

struct End {
    process: Child,
    interface: String,
}

/// Whether the program is in the PATH.
pub(crate) fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file())
}

impl WireguardGo {
    /// To be called on a thread that outlives the tunnel: the processes end with it.
    pub(crate) async fn between(lab: &Lab) -> Result<Self> {
        let inner = [
            Ipv4Addr::new(198, 51, 100, 1),
            Ipv4Addr::new(198, 51, 100, 2),
        ];
        let keys: [StaticSecret; 2] = [rand::random::<[u8; 32]>(), rand::random()].map(Into::into);
        let client = End::start(&lab.client, 'c')?;
        let server = End::start(&lab.server, 's')?;
        for (end, side, own, other) in [(&client, &lab.client, 0, 1), (&server, &lab.server, 1, 0)]
        {
            let there = [lab.client.address, lab.server.address][other];
            let configuration = configuration(
                &keys[own],
                &PublicKey::from(&keys[other]),
                SocketAddr::new(there, PORT),
                inner[other],
            );
            timeout(WITHIN, end.configure(&configuration))
                .await
                .with_context(|| format!("{PROGRAM} does not answer"))?
                .with_context(|| format!("configure {PROGRAM}"))?;
            side.links.up(&end.interface).await?;
            let address = IpNet::new(inner[own].into(), 24)?;
            side.links.add_address(&end.interface, address).await?;
        }
        Ok(Self {
            _ends: [client, server],
            server_address: inner[1].into(),
        })
    }
}

/// What the device is told (wireguard.com/xplatform).
fn configuration(
    key: &StaticSecret,
    peer: &PublicKey,
    endpoint: SocketAddr,
    allowed: Ipv4Addr,
) -> String {
    format!(
        "set=1\nprivate_key={}\nlisten_port={PORT}\nreplace_peers=true\npublic_key={}\n\
         endpoint={endpoint}\nallowed_ip={allowed}/32\n\n",
        hex(&key.to_bytes()),
        hex(peer.as_bytes())
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl End {
    fn start(side: &Side, end: char) -> Result<Self> {
        // Its socket's name is the interface's, in a folder that all namespaces share.
        let interface = format!("wgb{end}{}", std::process::id());
        let netns = side.netns.clone();
        let mut command = Command::new(PROGRAM);
        command
            .args(["--foreground", &interface])
            .env("LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec this only calls setns and prctl; it allocates nothing and takes no
        // lock.
        unsafe {
            command.pre_exec(move || {
                setns(&netns, CloneFlags::CLONE_NEWNET)?;
                prctl::set_pdeathsig(Signal::SIGTERM)?;
                Ok(())
            });
        }
        let process = command
            .spawn()
            .with_context(|| format!("start {PROGRAM}"))?;
        Ok(Self { process, interface })
    }

    fn socket(&self) -> PathBuf {
        format!("/var/run/wireguard/{}.sock", self.interface).into()
    }

    async fn configure(&self, configuration: &str) -> Result<()> {
        let mut stream = loop {
            match UnixStream::connect(self.socket()).await {
                Ok(stream) => break stream,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                    ) =>
                {
                    sleep(RETRY).await;
                }
                Err(error) => bail!(error),
            }
        };
        stream.write_all(configuration.as_bytes()).await?;
        let mut answer = Vec::new();
        // It ends with an empty line, and the connection stays open.
        while !answer.ends_with(b"\n\n") {
            ensure!(answer.len() < 4096, "its answer has no end");
            ensure!(stream.read_buf(&mut answer).await? > 0, "it says nothing");
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(
            answer.lines().any(|line| line == "errno=0"),
            "it says {}",
            answer.trim()
        );
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // SIGTERM lets it remove its socket.
        let pid = Pid::from_raw(self.process.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let end = Instant::now() + WITHIN;
        while Instant::now() < end {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(RETRY),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(self.socket());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_its_key_and_its_peer() {
        let key = StaticSecret::from([0x11; 32]);
        let peer = PublicKey::from([0xab; 32]);
        let text = configuration(
            &key,
            &peer,
            SocketAddr::from(([192, 0, 2, 2], PORT)),
            Ipv4Addr::new(198, 51, 100, 2),
        );
        assert!(text.contains(&format!("\npublic_key={}\n", "ab".repeat(32))));
        assert!(text.contains("\nendpoint=192.0.2.2:51820\nallowed_ip=198.51.100.2/32\n\n"));
    }
}
