//! Where caught queries arrive.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

const BACKLOG: i32 = 128;

/// Sockets on free ports of all addresses, all non-blocking. What does not come from this machine itself never gets to
/// them. Those of UDP tell at which address a datagram arrived.
#[derive(Debug)]
pub struct CaptureSockets {
    /// For queries to IPv4 servers.
    pub v4: (UdpSocket, TcpListener),
    /// For queries to IPv6 servers, where the machine has IPv6.
    pub v6: Option<(UdpSocket, TcpListener)>,
}

impl CaptureSockets {
    /// Opens them in the calling thread's network namespace.
    pub(crate) fn open(v6: bool) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let (udp, tcp) = pair(any)?;
        setsockopt(&udp, Ipv4PacketInfo, &true)?;
        let v4 = (udp.into(), tcp.into());
        let v6 = v6.then(|| -> io::Result<_> {
            let (udp, tcp) = pair(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))?;
            setsockopt(&udp, Ipv6RecvPacketInfo, &true)?;
            // Addresses that a route alone makes local are no source without it.
            udp.set_freebind_v6(true)?;
            Ok((udp.into(), tcp.into()))
        });
        Ok(Self {
            v4,
            // A kernel without IPv6, or with it turned off.
            v6: v6.and_then(Result::ok),
        })
    }

    /// Their ports, UDP's first.
    pub(super) fn ports(&self) -> io::Result<[Option<[u16; 2]>; 2]> {
        let of = |(udp, tcp): &(UdpSocket, TcpListener)| -> io::Result<[u16; 2]> {
            Ok([udp.local_addr()?.port(), tcp.local_addr()?.port()])
        };
        Ok([Some(of(&self.v4)?), self.v6.as_ref().map(of).transpose()?])
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// Where there are no descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let copy = |(udp, tcp): &(UdpSocket, TcpListener)| -> io::Result<_> {
            Ok((udp.try_clone()?, tcp.try_clone()?))
        };
        Ok(Self {
            v4: copy(&self.v4)?,
            v6: self.v6.as_ref().map(copy).transpose()?,
        })
    }

    /// For another process, in the order in which [`CaptureSockets::from_descriptors`] wants them.
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        [Some(self.v4), self.v6]
            .into_iter()
            .flatten()
            .flat_map(|(udp, tcp)| [OwnedFd::from(udp), OwnedFd::from(tcp)])
            .collect()
    }

    /// From another process; `None` where these are too few or too many.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || Some((descriptors.next()?.into(), descriptors.next()?.into()));
        let (v4, v6) = (next()?, next());
        descriptors.next().is_none().then_some(Self { v4, v6 })
    }
}

fn pair(at: SocketAddr) -> io::Result<(Socket, Socket)> {
    let open = |kind: Type, protocol: Protocol| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Before it has a port at which something could arrive.
        socket.attach_filter(&from_loopback())?;
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        Ok(socket)
    };
    let tcp = open(Type::STREAM, Protocol::TCP)?;
    tcp.listen(BACKLOG)?;
    Ok((open(Type::DGRAM, Protocol::UDP)?, tcp))
}

/// Lets in what arrives by the loopback device, and nothing else. Sockets bound to that device could not answer programs
/// that send from another address of the machine. (Classic BPF, linux/filter.h; connections inherit it.)
fn from_loopback() -> [SockFilter; 4] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The loopback device's number in every network namespace (`LOOPBACK_IFINDEX`, net/flow.h).
    const LOOPBACK: u32 = 1;
    let device = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX) as u32;
    [
        SockFilter::new(LOAD_WORD, 0, 0, device),
        SockFilter::new(IF_EQUAL, 0, 1, LOOPBACK),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
