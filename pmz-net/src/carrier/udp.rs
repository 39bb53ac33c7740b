//! The UDP carrier: one socket, batches cut by UDP_SEGMENT and joined by UDP_GRO where the kernel can
//! (quinn-udp finds out at run time and degrades).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};

/// Datagrams that one system call may carry (UDP_MAX_SEGMENTS of Linux before 6.9).
pub const MAX_SEGMENTS: usize = 64;
/// The largest payload of a batch: what one UDP/IPv6 datagram could hold.
pub const MAX_BATCH: usize = 65_487;

/// Bytes that a received batch may take; the kernel joins up to 64 KiB.
const RECV_BUFFER: usize = 65_536;
/// Buffers filled by one system call.
const RECV_BUFFERS: usize = 8;
/// Bytes that may wait in the socket: some milliseconds at 10 Gbit/s, in which the receiving thread may
/// not be running.
const SOCKET_BUFFER: usize = 4 << 20;
/// The kernel counts what it needs beside the bytes, and says twice what was asked for (socket(7)).
const SAID: usize = 2 * SOCKET_BUFFER;
/// How long a sender waits for room in the socket's buffer before the batch is lost, in milliseconds.
const SEND_WAIT_MS: u16 = 50;

/// A UDP socket for WireGuard messages of any number of peers.
pub struct UdpCarrier {
    socket: UdpSocket,
    state: UdpSocketState,
    dual_stack: bool,
    send_failures: AtomicU64,
}

impl UdpCarrier {
    /// Takes a bound socket; it becomes non-blocking and fragments no more.
    ///
    /// # Errors
    /// Where the socket refuses its options.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // Above net.core.rmem_max only CAP_NET_ADMIN gets it; without, it is what that allows.
        if getsockopt(&socket, sockopt::RcvBuf)? < SAID
            && setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER).is_err()
        {
            setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER)?;
        }
        let dual_stack = socket.local_addr()?.is_ipv6();
        Ok(Self {
            socket,
            state,
            dual_stack,
            send_failures: AtomicU64::new(0),
        })
    }

    /// Binds a socket of both families, or of IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// Where neither can be bound.
    pub fn bind(port: u16) -> io::Result<UdpSocket> {
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
            .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends `contents`, datagrams of `segment` bytes each (the last may be shorter), to one address.
    ///
    /// # Errors
    /// Where the kernel refuses: no route, a firewall, or no room for [`SEND_WAIT_MS`]. Each failure is
    /// counted.
    pub fn send(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        let result = self.send_all(to, contents, segment);
        if result.is_err() {
            self.send_failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn send_all(&self, to: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        // A kernel or card without segmentation takes one datagram a call.
        let per_call = self.state.max_gso_segments().clamp(1, MAX_SEGMENTS) * segment.max(1);
        for part in contents.chunks(per_call) {
            let transmit = Transmit {
                destination: self.to_family(to),
                ecn: None,
                contents: part,
                segment_size: Some(segment),
                src_ip: None,
            };
            match self
                .state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
            {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    poll(&mut fds, PollTimeout::from(SEND_WAIT_MS))?;
                    self.state
                        .try_send(UdpSockRef::from(&self.socket), &transmit)?;
                }
                // The first send after a card turned out not to segment: quinn-udp has noted it.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    self.state
                        .try_send(UdpSockRef::from(&self.socket), &transmit)?;
                }
                // An ICMP error for an earlier datagram; this one was not sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.state
                        .try_send(UdpSockRef::from(&self.socket), &transmit)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what is there, without waiting. Each batch is given to `each`: who sent it, and the
    /// datagrams one after the other.
    ///
    /// # Errors
    /// `WouldBlock` where nothing is there; else as recvmsg(2).
    pub fn recv(
        &self,
        buffers: &mut RecvBuffers,
        mut each: impl FnMut(SocketAddr, std::slice::Chunks<'_, u8>),
    ) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); RECV_BUFFERS];
        let mut chunks = buffers.0.chunks_exact_mut(RECV_BUFFER);
        let mut slices: [IoSliceMut<'_>; RECV_BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = self
            .state
            .recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)?;
        for (slice, meta) in slices.iter().zip(&metas).take(count) {
            if let (Some(bytes), true) = (slice.get(..meta.len), meta.stride > 0) {
                each(canonical(meta.addr), bytes.chunks(meta.stride));
            }
        }
        Ok(())
    }

    /// How often a send failed.
    pub fn send_failures(&self) -> u64 {
        self.send_failures.load(Ordering::Relaxed)
    }

    fn to_family(&self, address: SocketAddr) -> SocketAddr {
        match (address, self.dual_stack) {
            (SocketAddr::V4(v4), true) => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            (SocketAddr::V4(_) | SocketAddr::V6(_), _) => address,
        }
    }
}

impl AsFd for UdpCarrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What [`UdpCarrier::recv`] reads into: 512 KiB, taken once.
pub struct RecvBuffers(Box<[u8]>);

impl Default for RecvBuffers {
    fn default() -> Self {
        Self(vec![0; RECV_BUFFER * RECV_BUFFERS].into_boxed_slice())
    }
}

/// An IPv4 address is one, also when a socket of both families shows it mapped into IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_arrives_as_the_datagrams_that_it_was_made_of() {
        let (a, b) = (
            UdpCarrier::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap(),
            UdpCarrier::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap(),
        );
        let sent: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        a.send(b.local_addr().unwrap(), &sent, 1200).unwrap();
        let (mut got, mut sizes) = (Vec::new(), Vec::new());
        let mut buffers = RecvBuffers::default();
        while got.len() < sent.len() {
            let mut fds = [PollFd::new(b.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, 2000_u16).unwrap(), 1, "nothing came in 2 s");
            b.recv(&mut buffers, |from, datagrams| {
                assert_eq!(from, a.local_addr().unwrap());
                for d in datagrams {
                    got.extend_from_slice(d);
                    sizes.push(d.len());
                }
            })
            .unwrap();
        }
        assert_eq!(got, sent);
        assert_eq!(sizes, [vec![1200; 8], vec![400]].concat());
    }
}
