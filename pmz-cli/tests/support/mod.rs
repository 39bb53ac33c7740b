//! What the tests on real namespaces share.

#![allow(dead_code, unreachable_pub)]

use std::path::Path;

/// The binary whose hidden commands are a machine's init and the way into it.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_pmz"))
}

/// Whether the test can make namespaces; says why not, by name, where it can't.
pub fn root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        // The test harness keeps to itself what a test that passes prints by macros.
        let _ = writeln!(
            io::stderr(),
            "skipped: {test}: making namespaces needs root"
        );
    }
    root
}

/// Leaves the test where it can't be root.
#[macro_export]
macro_rules! needs_root {
    ($test:expr) => {
        if !support::root($test) {
            return;
        }
    };
}

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use pmz_cli::playground::machine::Machine;
use pmz_cli::playground::{Options, Playground};

/// A playground whose machines are held by the binary under test.
pub async fn playground(link: Option<&str>) -> Playground {
    let options = Options {
        program: program().to_owned(),
        link: link.map(|link| link.parse().unwrap()),
        ..Options::default()
    };
    Playground::start(options).await.unwrap()
}

/// How long any answer may take here.
pub const LIMIT: Duration = Duration::from_secs(10);

/// Connects from a machine.
pub fn connect(from: &Machine, to: &str) -> io::Result<TcpStream> {
    let to: SocketAddr = to.parse().unwrap();
    let stream = from.in_netns(|| TcpStream::connect_timeout(&to, LIMIT))??;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Asks an HTTP server; gives status and body.
pub fn http(from: &Machine, to: &str, request: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = connect(from, to)?;
    let len = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    Ok((status, answer.split_off(end + 4)))
}

/// Asks an HTTP server for JSON.
pub fn get_json(from: &Machine, to: &str, path: &str) -> serde_json::Value {
    let (status, body) = http(from, to, &format!("GET {path}"), b"").unwrap();
    assert_eq!(status, 200);
    serde_json::from_slice(&body).unwrap()
}

/// A UDP socket of a machine, connected.
pub fn udp(from: &Machine, to: &str) -> io::Result<UdpSocket> {
    let to: SocketAddr = to.parse().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.in_netns(|| UdpSocket::bind(any))??;
    socket.connect(to)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}
