//! From which port a connection to a service begins.
//!
//! Left to itself, Linux looks at all even ports of `net.ipv4.ip_local_port_range`, 14,116 of them by default, before
//! it takes an odd one, and a connection that was closed from here keeps its port from the same service for a minute.
//! After so many of them in a minute each further connect(2) took 2 ms, during which the NAT did nothing for anybody,
//! and after 28,232 it failed (measured on Linux 6.18). To a socket that is bound to its port beforehand the kernel
//! gives the port again at once, where both ends use TCP's timestamps: those tell the old connection's segments from
//! the new one's (`tcp_twsk_unique` in net/ipv4/tcp_ipv4.c, RFC 6191), and the search is a draw.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use rand::Rng;
use socket2::{Domain, Protocol, Socket, Type};

/// Ports that are used as long as they do. The node's conntrack remembers each pair of a port and a service for two
/// minutes after its connection, in a table that all pods share: the fewer pairs, the better.
const USUAL: u16 = 4096;
/// Draws from the usual ports, and from all after that, before the kernel is to look for one. With 80 % of a range in use
/// towards one service these fail with a probability of 3 % and of 2 * 10^-5.
const DRAWS: [usize; 2] = [16, 48];

/// The ports of this network namespace that a connection may begin from.
#[derive(Debug)]
pub(super) struct SourcePorts {
    /// The usual ones and all. None where the range is not known: then the kernel chooses.
    ranges: Option<[RangeInclusive<u16>; 2]>,
    /// Kept for others (`net.ipv4.ip_local_reserved_ports`).
    reserved: Vec<RangeInclusive<u16>>,
}

impl SourcePorts {
    /// Those of the calling thread's namespace, which are the same for IPv6.
    pub(super) fn of_namespace() -> Self {
        let setting = |name| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
        let range = setting("ip_local_port_range");
        let reserved = setting("ip_local_reserved_ports");
        Self {
            ranges: range.as_deref().and_then(parse).map(with_usual),
            reserved: reserved.as_deref().map_or_else(Vec::new, parse_reserved),
        }
    }

    /// A TCP socket that doesn't block and has begun to connect: it becomes writable when that has ended.
    ///
    /// # Errors
    /// As socket(2) and connect(2).
    pub(super) fn dial(&self, service: SocketAddr) -> io::Result<Socket> {
        for (range, draws) in self.ranges.iter().flatten().zip(DRAWS) {
            for _ in 0..draws {
                let Some(port) = self.draw(range) else {
                    continue;
                };
                match dial_from(service, Some(port)) {
                    Err(e) if is_taken(&e) => {}
                    other => return other,
                }
            }
        }
        dial_from(service, None)
    }

    /// A port of these, unless it is kept for others.
    fn draw(&self, range: &RangeInclusive<u16>) -> Option<u16> {
        let port = rand::rng().random_range(range.clone());
        let kept = self.reserved.iter().any(|kept| kept.contains(&port));
        (!kept).then_some(port)
    }
}

/// A part of these ports that others don't guess, and all.
fn with_usual(all: RangeInclusive<u16>) -> [RangeInclusive<u16>; 2] {
    let (first, last) = (*all.start(), *all.end());
    let more = (USUAL - 1).min(last - first);
    let from = rand::rng().random_range(first..=last - more);
    [from..=from + more, all]
}

fn parse(range: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = range.trim().split_once(char::is_whitespace)?;
    let (first, last) = (first.parse().ok()?, last.trim().parse().ok()?);
    (0 < first && first <= last).then_some(first..=last)
}

/// Ports and ranges of them between commas. What is none of these keeps nothing.
fn parse_reserved(list: &str) -> Vec<RangeInclusive<u16>> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).collect()
}

/// Somebody listens on the port, or the service knows it from another connection.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}

fn dial_from(service: SocketAddr, port: Option<u16>) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(service),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if let Some(port) = port {
        // Connections to different services may begin from one port.
        socket.set_reuse_address(true)?;
        let any: IpAddr = match service {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        socket.bind(&SocketAddr::new(any, port).into())?;
    }
    match socket.connect(&service.into()) {
        Ok(()) => Ok(socket),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn port(socket: &Socket) -> u16 {
        let address = socket.local_addr().unwrap();
        address.as_socket().unwrap().port()
    }

    #[test]
    fn the_range_is_read_as_the_kernel_writes_it_and_anything_else_is_none() {
        assert_eq!(parse("32768\t60999\n"), Some(32768..=60999));
        for odd in ["9 8", "0 0", "", "1", "1 2 3", "x y", "1 65536"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn ports_that_are_kept_for_others_are_read_as_the_kernel_writes_them() {
        assert_eq!(
            parse_reserved("8080,9148-9150\n"),
            [8080..=8080, 9148..=9150]
        );
        assert!(parse_reserved("\n").is_empty());
        assert_eq!(parse_reserved("x,7,70000"), [7..=7]);
    }

    #[test]
    fn a_port_that_is_kept_for_others_is_never_drawn() {
        let ports = SourcePorts {
            ranges: None,
            reserved: vec![7..=8],
        };
        let mut drawn = (0..100).filter_map(|_| ports.draw(&(6..=9)));
        assert!(drawn.all(|port| port == 6 || port == 9));
        assert_eq!(
            (ports.draw(&(6..=6)), ports.draw(&(8..=8))),
            (Some(6), None)
        );
    }

    #[test]
    fn the_usual_ports_are_a_part_of_all_or_all_where_there_are_not_more() {
        let [usual, all] = with_usual(32768..=60999);
        assert_eq!(all, 32768..=60999);
        assert_eq!(usual.len(), usize::from(USUAL));
        assert!(all.contains(usual.start()) && all.contains(usual.end()));
        assert_eq!(with_usual(1..=4096)[0], 1..=4096);
        assert_eq!(with_usual(65535..=65535)[0], 65535..=65535);
    }

    #[test]
    fn two_connections_begin_from_one_port_only_where_their_services_differ() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let services = [(); 2].map(|()| TcpListener::bind(address).unwrap());
            let [first, second] = services.each_ref().map(|s| s.local_addr().unwrap());
            let chosen = SourcePorts::of_namespace().dial(first).unwrap();
            let taken = port(&chosen);
            let ports = SourcePorts {
                ranges: Some([taken..=taken, taken..=taken]),
                reserved: Vec::new(),
            };
            assert_eq!(port(&ports.dial(second).unwrap()), taken);
            // No draw is of use here, and the kernel finds another one.
            assert_ne!(port(&ports.dial(first).unwrap()), taken);
        }
    }
}
