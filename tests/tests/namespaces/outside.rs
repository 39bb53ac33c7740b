//! A name server as the laptop has it without pmz: on the lan, by UDP and TCP. It knows all names of some zones.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use pmz_cli::playground::addresses;
use pmz_cli::playground::machine::Machine;
use socket2::SockRef;

/// What each of its names leads to.
pub(crate) const ADDRESS: &str = "198.51.100.7";
/// What it knows from the beginning: what tests ask for, and what pmz does.
const ZONES: [&str; 2] = ["example.org", "root-servers.net"];

const PORT: u16 = 53;
/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// An address that a server had is free by then.
const FREE_WITHIN: Duration = Duration::from_secs(10);

const A: u16 = 1;
const HEADER: usize = 12;
/// A response, recursion available; the code is added.
const FLAGS: u16 = 0x8180;
const NXDOMAIN: u16 = 3;

/// By which transports it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transports {
    Both,
    /// Nobody is at the port by UDP.
    Tcp,
    /// It takes queries and never answers.
    Silent,
}

/// It ends with this.
pub(crate) struct Outside {
    end: Arc<AtomicBool>,
    zones: Zones,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Clone)]
struct Zones(Arc<Mutex<Vec<String>>>);

impl Outside {
    /// Serves at both of the node's addresses.
    pub(crate) fn start(node: &Machine) -> Result<Self> {
        let at = addresses::NODE.map(|ip| SocketAddr::new(ip, PORT));
        Self::at(node, &at, Transports::Both)
    }

    /// Serves at these addresses of a machine.
    pub(crate) fn at(machine: &Machine, at: &[SocketAddr], by: Transports) -> Result<Self> {
        let zones = ZONES.map(str::to_owned).to_vec();
        let mut outside = Self {
            end: Arc::default(),
            zones: Zones(Arc::new(Mutex::new(zones))),
            threads: Vec::new(),
        };
        for at in at {
            let (udp, tcp) = machine.in_netns(|| -> io::Result<_> {
                let udp = (by != Transports::Tcp).then(|| free(|| UdpSocket::bind(at)));
                Ok((udp.transpose()?, free(|| TcpListener::bind(at))?))
            })??;
            if let Some(udp) = udp {
                udp.set_read_timeout(Some(LOOK))?;
                outside.serve(move |end, zones| {
                    if by == Transports::Silent {
                        return ignore(&udp, end);
                    }
                    datagrams(&udp, end, zones);
                });
            }
            // Limits accept(2), too (socket(7)).
            SockRef::from(&tcp).set_read_timeout(Some(LOOK))?;
            outside.serve(move |end, zones| connections(&tcp, end, zones));
        }
        Ok(outside)
    }

    /// From now on it has this name and all below it.
    pub(crate) fn learn(&self, zone: &str) {
        let mut zones = self.zones.0.lock().unwrap_or_else(PoisonError::into_inner);
        zones.push(zone.to_owned());
    }

    /// It has it no longer.
    pub(crate) fn forget(&self, zone: &str) {
        let mut zones = self.zones.0.lock().unwrap_or_else(PoisonError::into_inner);
        zones.retain(|known| known != zone);
    }

    fn serve(&mut self, serve: impl FnOnce(&AtomicBool, &Zones) + Send + 'static) {
        let (end, zones) = (self.end.clone(), self.zones.clone());
        self.threads
            .push(std::thread::spawn(move || serve(&end, &zones)));
    }
}

/// Binds once the address is free: a process that another test is just starting has copies of the sockets of the server
/// before, until it executes.
fn free<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + FREE_WITHIN;
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(LOOK);
            }
            bound => return bound,
        }
    }
}

/// The node's server at which programs ask first.
pub(crate) fn server() -> IpAddr {
    let [server, _] = addresses::NODE;
    server
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Zones {
    fn know(&self, name: &str) -> bool {
        let zones = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        zones.iter().any(|zone| {
            let above = name.strip_suffix(zone.as_str());
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
    }
}

fn ignore(socket: &UdpSocket, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        // Nothing is said to it.
        let _ = socket.recv_from(&mut [0; 512]);
    }
}

fn datagrams(socket: &UdpSocket, end: &AtomicBool, zones: &Zones) {
    let mut buffer = [0; 512];
    while !end.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && let Some(answer) = answer(&buffer[..length], zones)
        {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn connections(listener: &TcpListener, end: &AtomicBool, zones: &Zones) {
    while !end.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            continue;
        };
        let mut serve = || -> io::Result<()> {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            loop {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query)?;
                let answer = answer(&query, zones).ok_or(io::ErrorKind::InvalidData)?;
                let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
                stream.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
            }
        };
        // Its end, mostly.
        let _ = serve();
    }
}

/// A query for addresses (RFC 1035, section 4.1).
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = [id, 0x0100, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend([A, 1].map(u16::to_be_bytes).concat());
    query
}

fn answer(query: &[u8], zones: &Zones) -> Option<Vec<u8>> {
    let mut end = HEADER;
    let mut labels = Vec::new();
    while *query.get(end)? != 0 {
        let next = end + 1 + usize::from(*query.get(end)?);
        labels.push(String::from_utf8_lossy(query.get(end + 1..next)?).to_ascii_lowercase());
        end = next;
    }
    end += 1;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let known = zones.know(&labels.join("."));
    let answers = u16::from(known && kind == A);
    let flags = FLAGS + if known { 0 } else { NXDOMAIN };
    let mut reply = query.get(..2)?.to_vec();
    reply.extend([flags, 1, answers, 0, 0].map(u16::to_be_bytes).concat());
    reply.extend(query.get(HEADER..end + 4)?);
    if answers > 0 {
        let address: Ipv4Addr = ADDRESS.parse().ok()?;
        // The question's name; address, internet; a minute; four bytes.
        reply.extend([0xc00c, A, 1, 0, 60, 4].map(u16::to_be_bytes).concat());
        reply.extend(address.octets());
    }
    Some(reply)
}
