//! Sockets that a user may have, with settings that a user may not make.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBufForce, SndBufForce};
use socket2::{Domain, Protocol, Socket, Type};

use super::message::{Family, Refusal};

/// Bytes of kernel buffer each way: at 3 Gbit/s, 20 ms of a scheduler that has something else to do.
const BUFFER: usize = 8 << 20;

/// Buffers that the peer could not get by itself are given out at the rate at which a daemon changes
/// networks, not at which somebody could fill the kernel's memory.
const BURST: u32 = 16;
const ONE_EVERY: Duration = Duration::from_secs(5);

/// How many more sockets may be given out now.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_secs() / ONE_EVERY.as_secs();
        let earned = u32::try_from(earned).unwrap_or(BURST);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

/// A bound UDP socket with large buffers.
pub(super) fn open_udp(family: Family) -> io::Result<OwnedFd> {
    let (domain, at) = match family {
        Family::V4 => (Domain::IPV4, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        Family::V6 => (Domain::IPV6, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if family == Family::V6 {
        // IPv4 peers are reached by mapped addresses: one socket serves both families.
        socket.set_only_v6(false)?;
    }
    setsockopt(&socket, RcvBufForce, &BUFFER)?;
    setsockopt(&socket, SndBufForce, &BUFFER)?;
    socket.bind(&at.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets a TCP socket's congestion control; where the kernel has it as a module, root's asking loads it.
pub(super) fn set_congestion(socket: OwnedFd, algorithm: &str) -> Result<(), Refusal> {
    let socket = Socket::from(socket);
    let tcp = socket.protocol().is_ok_and(|p| p == Some(Protocol::TCP));
    if !tcp {
        return Err(Refusal::Invalid {
            message: "congestion control of something that is no TCP".to_owned(),
        });
    }
    socket
        .set_tcp_congestion(algorithm.as_bytes())
        .map_err(|error| Refusal::Failed {
            message: format!("set the congestion control {algorithm}: {error}"),
        })
}

/// Whether the kernel has a congestion control, or can load it.
pub(super) fn has_congestion(algorithm: &str) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
    socket.is_ok_and(|socket| socket.set_tcp_congestion(algorithm.as_bytes()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_given_out_in_a_burst_and_then_slowly() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!((0..100).filter(|_| allowance.take(start)).count(), 16);
        assert!(allowance.take(start + Duration::from_secs(6)));
        assert!(!allowance.take(start + Duration::from_secs(6)));
        assert_eq!(
            (0..100)
                .filter(|_| allowance.take(start + Duration::from_secs(3600)))
                .count(),
            16
        );
    }

    #[test]
    fn congestion_control_is_set_on_tcp_sockets_only() {
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        assert!(matches!(
            set_congestion(file, "cubic"),
            Err(Refusal::Invalid { .. })
        ));
        let udp: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        assert!(matches!(
            set_congestion(udp, "cubic"),
            Err(Refusal::Invalid { .. })
        ));
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(matches!(
            set_congestion(unix.into(), "cubic"),
            Err(Refusal::Invalid { .. })
        ));
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let before = Socket::from(OwnedFd::from(tcp.try_clone().unwrap()));
        set_congestion(tcp.try_clone().unwrap().into(), "reno").unwrap();
        let name = before.tcp_congestion().unwrap();
        assert!(name.starts_with(b"reno"), "{name:?}");
    }
}
