//! The kernel's side of flows: sockets made, connected and watched, and what their errors mean.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::ports::SourcePorts;

/// Why a client is told that its packet went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    Network,
    Host,
    Port,
    Prohibited,
}

/// What an error of a socket says about the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Somebody is there and said no.
    Refused,
    Unreachable(Unreachable),
    /// This process has no descriptors, ports or memory left.
    Exhausted,
}

impl Failure {
    pub(super) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Self::Refused,
            Some(libc::ENETUNREACH | libc::EAFNOSUPPORT | libc::ENETDOWN) => {
                Self::Unreachable(Unreachable::Network)
            }
            Some(libc::EHOSTUNREACH | libc::ETIMEDOUT | libc::EHOSTDOWN | libc::EINVAL) => {
                Self::Unreachable(Unreachable::Host)
            }
            Some(
                libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::ENOMEM
                | libc::EAGAIN
                | libc::EADDRNOTAVAIL,
            ) => Self::Exhausted,
            _ => Self::Unreachable(Unreachable::Prohibited),
        }
    }
}

/// A middlebox on the way to a service forgets an idle connection after minutes.
const KEEPALIVE: Duration = Duration::from_secs(240);

/// Begins to connect to a service; the socket becomes writable when that has ended.
pub(super) fn dial_tcp(service: SocketAddr, from: &SourcePorts) -> io::Result<Socket> {
    let socket = from.dial(service)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(socket)
}

/// A UDP socket that talks to this service alone.
pub(super) fn dial_udp(service: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(service),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    socket.connect(&service.into())?;
    // Without it (before Linux 5.0) datagrams come one by one.
    let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    Ok(socket)
}

/// Has the kernel cut what is sent on this UDP socket into datagrams of this size; 0: no more.
///
/// # Errors
/// Where the kernel or the way to the service can't (before Linux 4.18).
pub(super) fn cut_sends(socket: &Socket, size: u16) -> io::Result<()> {
    Ok(setsockopt(
        socket,
        sockopt::UdpGsoSegment,
        &i32::from(size),
    )?)
}

/// An unprivileged echo socket (`net.ipv4.ping_group_range`). The kernel chooses the identifier.
pub(super) fn dial_echo(destination: IpAddr) -> io::Result<Socket> {
    let protocol = match destination {
        IpAddr::V4(_) => Protocol::ICMPV4,
        IpAddr::V6(_) => Protocol::ICMPV6,
    };
    let destination = SocketAddr::new(destination, 0);
    let socket = Socket::new(
        Domain::for_address(destination),
        Type::DGRAM.nonblocking().cloexec(),
        Some(protocol),
    )?;
    socket.connect(&destination.into())?;
    Ok(socket)
}

/// Sends without SIGPIPE.
pub(super) fn send(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(bytes, libc::MSG_NOSIGNAL)
}

/// Receives a datagram, or several of one size that the kernel has joined; how many bytes, and that size.
/// `control` is scratch room.
pub(super) fn recv_joined(
    socket: &Socket,
    buf: &mut [u8],
    control: &mut [u8],
) -> io::Result<(usize, Option<usize>)> {
    let mut buf = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut buf, Some(control), flags)?;
    let size = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
        _ => None,
    });
    Ok((message.bytes, size))
}

/// Scratch room for [`recv_joined`].
pub(super) fn control_room() -> Vec<u8> {
    nix::cmsg_space!(i32)
}

/// Receives into initialised memory.
pub(super) fn recv(socket: &Socket, buf: &mut [u8]) -> io::Result<usize> {
    io::Read::read(&mut &*socket, buf)
}
