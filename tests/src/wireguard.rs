//! WireGuard in user space by others, where it is installed: another implementation at one end of a tunnel.

use std::env;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ipnet::IpNet;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

/// A program that is a WireGuard device in user space, configured over a socket
/// ([wireguard.com/xplatform](https://www.wireguard.com/xplatform/)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireguardProgram {
    /// What it is called in the PATH.
    pub name: &'static str,
    /// Before the interface's name.
    arguments: &'static [&'static str],
}

/// The WireGuard project's own.
pub const WIREGUARD_GO: WireguardProgram = WireguardProgram {
    name: "wireguard-go",
    arguments: &["--foreground"],
};
/// Cloudflare's.
pub const BORINGTUN: WireguardProgram = WireguardProgram {
    name: "boringtun-cli",
    arguments: &["--foreground", "--disable-drop-privileges"],
};
/// Mullvad's.
pub const GOTATUN: WireguardProgram = WireguardProgram {
    name: "gotatun",
    arguments: &["--foreground", "--disable-drop-privileges"],
};
/// For starting and for ending.
const WITHIN: Duration = Duration::from_secs(5);
/// There is nothing to wait on for its socket.
const RETRY: Duration = Duration::from_millis(20);

/// A device of such a program's. It ends when dropped.
pub struct WireguardDevice {
    program: WireguardProgram,
    process: Child,
    interface: String,
}

/// What a device is told.
#[derive(Clone, Debug)]
pub struct WireguardConfig {
    /// Its own private key.
    pub private_key: [u8; 32],
    /// The UDP port at which it listens; 0 for any.
    pub listen_port: u16,
    /// Its one peer's public key.
    pub peer: [u8; 32],
    /// Where the peer is.
    pub endpoint: SocketAddr,
    /// The inner addresses that the peer may have.
    pub allowed: Vec<IpNet>,
}

impl WireguardProgram {
    /// Whether it is in the PATH.
    pub fn is_installed(&self) -> bool {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path).any(|folder| folder.join(self.name).is_file())
    }
}

impl WireguardDevice {
    /// Starts a device. `command` runs the program where it belongs, without arguments yet.
    ///
    /// # Errors
    /// Where it can't be run.
    pub fn start(program: WireguardProgram, mut command: Command, interface: &str) -> Result<Self> {
        command
            .args(program.arguments)
            .arg(interface)
            .env("LOG_LEVEL", "error")
            .env("WG_LOG_LEVEL", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command
            .spawn()
            .with_context(|| format!("start {}", program.name))?;
        Ok(Self {
            program,
            process,
            interface: interface.to_owned(),
        })
    }

    /// Where it is configured. The folder is that of the machine on which it runs.
    fn socket(&self) -> PathBuf {
        format!("/var/run/wireguard/{}.sock", self.interface).into()
    }

    /// Gives it its key and its peer, over the socket that `connect` opens for it.
    ///
    /// # Errors
    /// When it says no, or nothing.
    pub async fn configure(
        &self,
        config: &WireguardConfig,
        connect: impl Fn(&Path) -> io::Result<StdUnixStream>,
    ) -> Result<()> {
        timeout(WITHIN, self.tell(&config.text(), connect))
            .await
            .with_context(|| format!("{} does not answer", self.program.name))?
            .with_context(|| format!("configure {}", self.program.name))
    }

    fn remove_socket(&self) {
        let _ = std::fs::remove_file(self.socket());
    }

    async fn tell(
        &self,
        text: &str,
        connect: impl Fn(&Path) -> io::Result<StdUnixStream>,
    ) -> Result<()> {
        let path = self.socket();
        let stream = loop {
            match connect(&path) {
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
        stream.set_nonblocking(true)?;
        let mut stream = UnixStream::from_std(stream)?;
        stream.write_all(text.as_bytes()).await?;
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

impl Drop for WireguardDevice {
    fn drop(&mut self) {
        // SIGTERM lets it remove its socket.
        let pid = Pid::from_raw(self.process.id().cast_signed());
        let _ = kill(pid, Signal::SIGTERM);
        let end = Instant::now() + WITHIN;
        while Instant::now() < end {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(RETRY),
                // Not each of them removes its socket when it is told to end.
                Ok(Some(_)) | Err(_) => return self.remove_socket(),
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.remove_socket();
    }
}

impl WireguardConfig {
    /// The text of the cross-platform configuration protocol (wireguard.com/xplatform).
    fn text(&self) -> String {
        let mut text = format!(
            "set=1\nprivate_key={}\nlisten_port={}\nreplace_peers=true\npublic_key={}\nendpoint={}\n",
            hex(&self.private_key),
            self.listen_port,
            hex(&self.peer),
            self.endpoint,
        );
        for prefix in &self.allowed {
            let _ = writeln!(text, "allowed_ip={prefix}");
        }
        text.push('\n');
        text
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_its_key_and_its_peer() -> Result<()> {
        let config = WireguardConfig {
            private_key: [0x11; 32],
            listen_port: 51820,
            peer: [0xab; 32],
            endpoint: SocketAddr::from(([192, 0, 2, 2], 51820)),
            allowed: vec!["198.51.100.2/32".parse()?, "2001:db8::/32".parse()?],
        };
        let text = config.text();
        assert!(text.contains(&format!("\npublic_key={}\n", "ab".repeat(32))));
        assert!(text.contains(
            "\nendpoint=192.0.2.2:51820\nallowed_ip=198.51.100.2/32\nallowed_ip=2001:db8::/32\n\n"
        ));
        Ok(())
    }
}
