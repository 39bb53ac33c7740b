//! A name server as the laptop has it without pmz: on the lan, by UDP and TCP. It knows the names below `example.org`.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use pmz_cli::playground::addresses;
use pmz_cli::playground::machine::Machine;
use socket2::SockRef;

/// What each of its names leads to.
pub(crate) const ADDRESS: &str = "198.51.100.7";
const ZONE: &[u8] = b"\x07example\x03org\x00";

const PORT: u16 = 53;
/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

const A: u16 = 1;
const HEADER: usize = 12;
/// A response, recursion available; the code is added.
const FLAGS: u16 = 0x8180;
const NXDOMAIN: u16 = 3;

/// It ends with this.
pub(crate) struct Outside {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Outside {
    /// Serves at both of the node's addresses.
    pub(crate) fn start(node: &Machine) -> Result<Self> {
        let mut outside = Self {
            end: Arc::default(),
            threads: Vec::new(),
        };
        for ip in addresses::NODE {
            let at = SocketAddr::new(ip, PORT);
            let (udp, tcp) = node.in_netns(|| -> io::Result<_> {
                Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?))
            })??;
            udp.set_read_timeout(Some(LOOK))?;
            // Limits accept(2), too (socket(7)).
            SockRef::from(&tcp).set_read_timeout(Some(LOOK))?;
            outside.serve(move |end| datagrams(&udp, end));
            outside.serve(move |end| connections(&tcp, end));
        }
        Ok(outside)
    }

    fn serve(&mut self, serve: impl FnOnce(&AtomicBool) + Send + 'static) {
        let end = self.end.clone();
        self.threads.push(std::thread::spawn(move || serve(&end)));
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn datagrams(socket: &UdpSocket, end: &AtomicBool) {
    let mut buffer = [0; 512];
    while !end.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer)
            && let Some(answer) = answer(&buffer[..length])
        {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn connections(listener: &TcpListener, end: &AtomicBool) {
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
                let answer = answer(&query).ok_or(io::ErrorKind::InvalidData)?;
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

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(*query.get(end)?);
    }
    end += 1;
    let name = query.get(HEADER..end)?.to_ascii_lowercase();
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let known = name.ends_with(ZONE);
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
