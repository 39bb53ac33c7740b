//! Ending this machine's TCP connections from an address, by sock_diag(7): programs that only read would
//! wait for ever for an end that no longer knows them.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// The kernel answers at once, or something is wrong with it.
const ANSWER_WITHIN_S: i64 = 1;
/// More than one datagram of the kernel's dumps ever is.
const BUFFER: usize = 64 << 10;

/// Ends all TCP connections of this thread's network namespace that are established from one of these
/// addresses to any that is none of them; those that are still being opened are left to try again. Their
/// programs get ECONNABORTED, and their other ends a reset. Gives the number.
///
/// # Errors
/// Where the kernel can't do it (CONFIG_INET_DIAG_DESTROY) or the right is missing (CAP_NET_ADMIN).
pub fn abort_connections(from: &[IpAddr]) -> io::Result<usize> {
    let mut diag = Diag::open()?;
    let mut ended = 0;
    for (family, any) in [
        (AF_INET, SocketId::new_v4()),
        // Sockets of both families have IPv4 as mapped addresses.
        (AF_INET6, SocketId::new_v6()),
    ] {
        for id in diag.dump(family, any)? {
            let is_ours = |address: IpAddr| from.contains(&address.to_canonical());
            if !is_ours(id.source_address) || is_ours(id.destination_address) {
                continue;
            }
            match diag.destroy(family, id) {
                Ok(()) => ended += 1,
                // It has ended by itself meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

struct Diag {
    socket: Socket,
    /// Messages that were received and not looked at.
    received: VecDeque<NetlinkMessage<SockDiagMessage>>,
}

impl Diag {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // SAFETY: the socket outlives this borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        let limit = TimeVal::seconds(ANSWER_WITHIN_S);
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
        Ok(Self {
            socket,
            received: VecDeque::new(),
        })
    }

    fn dump(&mut self, family: u8, any: SocketId) -> io::Result<Vec<SocketId>> {
        self.ask(NLM_F_DUMP, None, family, any)?;
        let mut found = Vec::new();
        loop {
            match self.next()?.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    found.push(response.header.socket_id);
                }
                NetlinkPayload::Done(_) => return Ok(found),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
    }

    fn destroy(&mut self, family: u8, id: SocketId) -> io::Result<()> {
        self.ask(NLM_F_ACK, Some(SOCK_DESTROY), family, id)?;
        loop {
            if let NetlinkPayload::Error(answer) = self.next()?.payload {
                // An acknowledgement is an error without a code.
                return match answer.code {
                    None => Ok(()),
                    Some(_) => Err(answer.to_io()),
                };
            }
        }
    }

    fn ask(
        &mut self,
        flags: u16,
        message_type: Option<u16>,
        family: u8,
        socket_id: SocketId,
    ) -> io::Result<()> {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::ESTABLISHED
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::CLOSING
                | StateFlags::LAST_ACK,
            socket_id,
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        if let Some(message_type) = message_type {
            message.header.message_type = message_type;
        }
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.received.clear();
        self.socket.send(&bytes, 0).map(drop)
    }

    fn next(&mut self) -> io::Result<NetlinkMessage<SockDiagMessage>> {
        while self.received.is_empty() {
            let mut buffer = Vec::with_capacity(BUFFER);
            self.socket.recv(&mut buffer, 0)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                let len = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(len..).unwrap_or_default();
                self.received.push_back(message);
            }
        }
        self.received
            .pop_front()
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
