//! Errands: the small things that the tour does on the laptop, each in a process of its own there, so that
//! names are resolved and packets are sent as any program's. The playground must not need curl or ping.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

/// The hidden command.
pub(super) const ERRAND_COMMAND: &str = "playground-errand";

const TIMEOUT: Duration = Duration::from_secs(10);

/// Does one errand and prints what came of it, in one line.
pub(super) fn errand_main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<String> = args.map(|a| a.to_string_lossy().into_owned()).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["get", url] => get(url).map(|(text, _)| text),
        ["download", url] => download(url),
        ["udp", host, text] => udp(host, text),
        ["ping", host] => ping(host),
        _ => Err(anyhow::anyhow!("no such errand: {args:?}")),
    };
    match result {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut found = (host, port)
        .to_socket_addrs()
        .with_context(|| format!("resolve {host}"))?;
    found
        .next()
        .with_context(|| format!("{host} has no address"))
}

/// Sends a GET and reads the head of the answer; what of the body came with it is returned too.
fn request(url: &str) -> Result<(TcpStream, String, Vec<u8>)> {
    let rest = url
        .strip_prefix("http://")
        .context("only http:// is spoken here")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let stream = TcpStream::connect_timeout(&resolve(host, 80)?, TIMEOUT)
        .with_context(|| format!("connect to {host}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut stream = stream;
    write!(
        stream,
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut buffer = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let n = stream.read(&mut chunk)?;
        ensure!(n > 0, "{host} closed the connection before its answer");
        buffer.extend_from_slice(&chunk[..n]);
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = buffer.split_off(at + 4);
            let head = String::from_utf8_lossy(&buffer).into_owned();
            ensure!(
                head.starts_with("HTTP/1.1 200"),
                "{host} answered {}",
                head.lines().next().unwrap_or_default()
            );
            return Ok((stream, head, body));
        }
        ensure!(buffer.len() < 64 << 10, "{host} sends no end of headers");
    }
}

fn get(url: &str) -> Result<(String, String)> {
    let (stream, head, mut body) = request(url)?;
    stream.take(1 << 20).read_to_end(&mut body)?;
    Ok((String::from_utf8_lossy(&body).trim().to_owned(), head))
}

fn download(url: &str) -> Result<String> {
    let begun = Instant::now();
    let (mut stream, head, body) = request(url)?;
    let expected = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<u64>().ok())?
        })
        .context("the answer has no length")?;
    let mut total = body.len() as u64;
    let mut chunk = vec![0_u8; 256 << 10];
    loop {
        let n = stream.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        total += n as u64;
    }
    ensure!(total == expected, "{total} of {expected} bytes came");
    let seconds = begun.elapsed().as_secs_f64();
    let gbits = total as f64 * 8.0 / 1e9 / seconds;
    Ok(format!(
        "{} MB in {seconds:.2} s: {gbits:.2} Gbit/s",
        total / 1_000_000
    ))
}

fn udp(host: &str, text: &str) -> Result<String> {
    let to = resolve(host, 7)?;
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(to)?;
    let begun = Instant::now();
    socket.send(text.as_bytes())?;
    let mut answer = [0_u8; 2048];
    let n = socket
        .recv(&mut answer)
        .with_context(|| format!("no answer from {to}"))?;
    ensure!(
        &answer[..n] == text.as_bytes(),
        "another datagram came back"
    );
    Ok(format!(
        "\"{text}\" came back from {to} after {:.1} ms",
        ms(begun)
    ))
}

/// An ICMP echo by a raw socket: the laptop's user is root there.
fn ping(host: &str) -> Result<String> {
    let found = (host, 0)
        .to_socket_addrs()
        .with_context(|| format!("resolve {host}"))?;
    let to = found
        .filter_map(|a| match a.ip() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
        .next()
        .with_context(|| format!("{host} has no IPv4 address"))?;
    let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(&SocketAddr::from((to, 0)).into())?;
    let id = std::process::id() as u16;
    let mut echo = [8, 0, 0, 0, 0, 0, 0, 1, b'p', b'm', b'z', b'!'];
    echo[4..6].copy_from_slice(&id.to_be_bytes());
    let sum = pmz_net::packet::checksum::Sum::default()
        .with(&echo)
        .checksum();
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    let begun = Instant::now();
    socket.send(&echo)?;
    let mut answer = [0_u8; 256];
    loop {
        ensure!(begun.elapsed() < TIMEOUT, "no answer from {to}");
        let n = socket
            .read(&mut answer)
            .with_context(|| format!("no answer from {to}"))?;
        // A raw socket sees the IP header, and every ICMP message that comes from there.
        if let Some([kind, _, _, _, a, b, ..]) = answer.get(20..n)
            && *kind == 0
            && u16::from_be_bytes([*a, *b]) == id
        {
            return Ok(format!("{} answered after {:.1} ms", to, ms(begun)));
        }
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
