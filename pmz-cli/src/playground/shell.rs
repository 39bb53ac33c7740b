//! `pmz playground shell`: how another process finds a running playground and gets into its machines.
//!
//! A playground listens on an abstract Unix socket (no file, so nothing stays behind) that is named
//! after its process. Whoever connects, as root or as the playground's own user, names a machine and
//! gets its namespaces' descriptors.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::{Uid, geteuid};
use tokio::io::AsyncReadExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use super::machine::{Namespaces, command_in, recv_with_fds, send_with_fds};
use super::machines::{CONFIG_HOME, KUBECONFIG, LAPTOP, Machines};

/// What an abstract socket's name begins with; the process id follows.
const NAME: &str = "pmz-playground/";
/// How long either side waits for the other.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Who may wait at once.
const MAX_CLIENTS: usize = 16;
const MAX_NAME: usize = 256;

const FOUND: u8 = b'F';
const FAILED: u8 = b'E';

/// Whoever holds it lets others in.
#[derive(Debug)]
pub(super) struct Door {
    task: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets others into these machines.
pub(super) fn open(machines: &Arc<Machines>) -> Result<Door> {
    let listener = bind().context("the socket for `pmz playground shell`")?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    Ok(Door {
        task: tokio::spawn(serve(listener, Arc::downgrade(machines))),
    })
}

fn bind() -> io::Result<StdListener> {
    let pid = std::process::id();
    // A process may have several playgrounds: tests do.
    let suffixes =
        std::iter::once(String::new()).chain((2..100).map(|number| format!(".{number}")));
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for suffix in suffixes {
        result = StdListener::bind_addr(&SocketAddr::from_abstract_name(format!(
            "{NAME}{pid}{suffix}"
        ))?);
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Ok(_) | Err(_) => break,
        }
    }
    result
}

async fn serve(listener: UnixListener, machines: Weak<Machines>) {
    let mut clients = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while clients.len() >= MAX_CLIENTS {
            clients.join_next().await;
        }
        let machines = machines.clone();
        clients.spawn(async move {
            let answered = tokio::time::timeout(TIMEOUT, answer(stream, machines)).await;
            if let Ok(Err(error)) = answered {
                tracing::debug!(%error, "a client of the playground's socket");
            }
        });
    }
}

async fn answer(mut stream: UnixStream, machines: Weak<Machines>) -> Result<()> {
    let uid = Uid::from_raw(stream.peer_cred()?.uid());
    let allowed = uid.is_root() || uid == geteuid();
    let mut name = Vec::new();
    (&mut stream)
        .take(MAX_NAME as u64)
        .read_to_end(&mut name)
        .await?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let found = machines
        .upgrade()
        .filter(|_| allowed)
        .map(|machines| (machines.get(&name), machines.names()));
    let stream = stream.into_std()?;
    match found {
        Some((Some(machine), _)) => send_with_fds(&stream, &[FOUND], &machine.namespaces().fds())?,
        Some((None, names)) => refuse(
            &stream,
            &format!(
                "there is no machine {name} in the playground, but: {}",
                names.join(", ")
            ),
        )?,
        None => refuse(&stream, "the playground belongs to another user")?,
    }
    Ok(())
}

fn refuse(stream: &StdStream, reason: &str) -> io::Result<()> {
    send_with_fds(stream, &[&[FAILED], reason.as_bytes()].concat(), &[])
}

/// A command that runs `inside` (program and arguments; nothing: `$SHELL`) in a machine (none: the laptop)
/// of a running playground: for `exec`. `program` is the pmz binary, as in [`super::Options`]; `process` is
/// the playground's, where there are several.
///
/// # Errors
/// Each says what to do: no playground is running, or several are; this is not root; there is no such
/// machine.
pub fn shell_command(
    program: &Path,
    machine: Option<&str>,
    inside: &[OsString],
    process: Option<u32>,
) -> Result<Command> {
    let machine = machine.unwrap_or(LAPTOP);
    if !geteuid().is_root() {
        let program = std::env::current_exe().unwrap_or_else(|_| "pmz".into());
        bail!(
            "entering a machine needs root: sudo {} playground shell {machine}",
            program.display()
        );
    }
    let unix = std::fs::read_to_string("/proc/net/unix").context("/proc/net/unix")?;
    let socket = choose(listening(&unix), process)?;
    let namespaces = Arc::new(ask(&socket, machine)?);
    let shell = || std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (wanted, args) = match inside.split_first() {
        Some((wanted, args)) => (wanted.clone(), args),
        None => (shell(), inside),
    };
    let mut command = command_in(program, &namespaces, &wanted);
    command.args(args);
    if machine == LAPTOP {
        command.env("KUBECONFIG", KUBECONFIG);
        command.env("XDG_CONFIG_HOME", CONFIG_HOME);
    }
    Ok(command)
}

/// The names of the sockets of running playgrounds, in what /proc/net/unix says.
fn listening(proc_net_unix: &str) -> Vec<String> {
    let names = proc_net_unix
        .lines()
        .filter_map(|line| line.rsplit(' ').next()?.strip_prefix('@'));
    let mut names: Vec<_> = names
        .filter(|name| name.starts_with(NAME))
        .map(str::to_owned)
        .collect();
    // A connection has the name of the listener that took it.
    names.sort();
    names.dedup();
    names
}

fn process_of(socket: &str) -> Option<u32> {
    let number = socket.strip_prefix(NAME)?;
    number.split('.').next()?.parse().ok()
}

fn choose(mut sockets: Vec<String>, process: Option<u32>) -> Result<String> {
    if let Some(process) = process {
        sockets.retain(|socket| process_of(socket) == Some(process));
        return sockets
            .into_iter()
            .next()
            .with_context(|| format!("process {process} is not a playground"));
    }
    match sockets.as_slice() {
        [] => bail!("no playground is running. Start one in another terminal: pmz playground"),
        [socket] => Ok(socket.clone()),
        _ => {
            let processes: Vec<_> = sockets
                .iter()
                .filter_map(|s| process_of(s))
                .map(|p| p.to_string())
                .collect();
            bail!(
                "several playgrounds are running: say which by its process id, with --playground: {}",
                processes.join(", ")
            )
        }
    }
}

fn ask(socket: &str, machine: &str) -> Result<Namespaces> {
    let mut stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(socket)?)
        .context("the playground")?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // Anybody can listen at such a name; what comes from there is entered as root.
    let peer = getsockopt(&stream, PeerCredentials)?;
    let genuine = peer.uid() == 0 && u32::try_from(peer.pid()).ok() == process_of(socket);
    ensure!(
        genuine,
        "the playground at @{socket} is not root's; it is not entered"
    );
    ensure!(
        machine.len() < MAX_NAME,
        "there is no machine of such a long name"
    );
    stream.write_all(machine.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = [0];
    let (len, fds): (usize, Vec<OwnedFd>) = recv_with_fds(&stream, &mut answer)?;
    match answer[..len] {
        [FOUND] => Namespaces::from_fds(fds),
        [] => bail!("the playground has just ended"),
        [_] | [..] => {
            let mut reason = String::new();
            stream.read_to_string(&mut reason)?;
            bail!(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_playgrounds_are_found_among_other_sockets() {
        let unix = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 20117 /run/x.sock
0000000000000000: 00000002 00000000 00010000 0001 01 20118 @pmz-playground/42
0000000000000000: 00000003 00000000 00000000 0001 03 20119 @pmz-playground/42
0000000000000000: 00000002 00000000 00010000 0001 01 20120 @pmz-playground/43.2
0000000000000000: 00000003 00000000 00000000 0001 03 20121
";
        let found = listening(unix);
        assert_eq!(found, ["pmz-playground/42", "pmz-playground/43.2"]);
        assert_eq!(
            choose(found.clone(), Some(43)).unwrap(),
            "pmz-playground/43.2"
        );
        assert!(choose(found.clone(), Some(44)).is_err());
        let error = choose(found, None).unwrap_err().to_string();
        assert!(error.contains("42, 43"), "{error}");
        assert!(
            choose(vec![], None)
                .unwrap_err()
                .to_string()
                .contains("no playground is running")
        );
    }
}
