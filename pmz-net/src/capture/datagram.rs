//! Datagrams with the address at which they arrived, and from which they leave.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg,
};

/// What has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes of it that are in the buffer.
    pub length: usize,
    /// Who has sent it.
    pub from: SocketAddr,
    /// The address that it was sent to.
    pub at: IpAddr,
}

/// Takes the next datagram from one of [`super::CaptureSockets`].
///
/// # Errors
/// As recvmsg(2); `WouldBlock` where there is none.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let mut into = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message =
        recvmsg::<SockaddrStorage>(fd, &mut into, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let at = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    });
    let from = message.address.as_ref().and_then(socket_address);
    match (from, at) {
        (Some(from), Some(at)) => Ok(Datagram {
            length: message.bytes,
            from,
            at,
        }),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a datagram without addresses",
        )),
    }
}

/// Sends a datagram from one of the addresses that this machine has.
///
/// # Errors
/// As sendmsg(2).
pub fn send(socket: &impl AsFd, bytes: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let content = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    match (to, from) {
        (SocketAddr::V4(to), IpAddr::V4(from)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(from).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(fd, &content, &control, flags, Some(&SockaddrIn::from(to)))?;
        }
        (SocketAddr::V6(to), IpAddr::V6(from)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(fd, &content, &control, flags, Some(&SockaddrIn6::from(to)))?;
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    Ok(())
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::V6((*v6).into()))
}
