//! The netlink socket to netfilter, and what it answers.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{SendTimeout, SndBuf};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendmsg,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::conntrack::{self, Flow};
use super::message::Batch;

/// `NLMSG_ERROR`, which also says that there was none.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HDR_LEN: usize = 16;

/// A socket that belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct NetfilterSocket(OwnedFd);

impl NetfilterSocket {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            flags,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, SendTimeout, &TimeVal::seconds(10))?;
        Ok(Self(fd))
    }

    /// Has the kernel do a transaction.
    ///
    /// # Errors
    /// The first thing that the kernel did not like, with what it was about. Nothing is changed then.
    pub(super) fn commit(&mut self, batch: Batch) -> io::Result<()> {
        let (bytes, subjects) = batch.finish();
        // A transaction is one message to the socket.
        let wanted = bytes.len() * 2;
        if nix::sys::socket::getsockopt(&self.0, SndBuf)? < wanted {
            setsockopt(&self.0, SndBuf, &wanted)?;
        }
        self.send(&bytes)?;
        self.receive(&subjects)
    }

    /// Has the kernel forget the UDP flows that `is_stale` picks.
    ///
    /// # Errors
    /// If the flows can't be listed. One that has ended by itself meanwhile is none.
    pub(super) fn forget_flows(&mut self, is_stale: impl Fn(&Flow) -> bool) -> io::Result<()> {
        self.send(&conntrack::dump_request())?;
        let mut stale = Vec::new();
        let mut buf = vec![0; 64 << 10];
        'dump: loop {
            // The rest of a dump is made while it is read: it is never waited for.
            let len = match recv(self.0.as_raw_fd(), &mut buf, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for message in messages(&buf[..len]) {
                match message.kind {
                    NLMSG_DONE => break 'dump,
                    NLMSG_ERROR => {
                        let error = message
                            .body
                            .first_chunk()
                            .map_or(0, |error| -i32::from_ne_bytes(*error));
                        return Err(io::Error::from_raw_os_error(error));
                    }
                    kind => stale.extend(conntrack::parse(kind, message.body).filter(&is_stale)),
                }
            }
        }
        for flow in stale {
            self.send(&conntrack::delete_request(&flow))?;
            let _ = recv(self.0.as_raw_fd(), &mut buf, MsgFlags::MSG_DONTWAIT);
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        sendmsg(
            self.0.as_raw_fd(),
            &[IoSlice::new(bytes)],
            &[],
            MsgFlags::empty(),
            Some(&kernel),
        )?;
        Ok(())
    }

    /// Reads what is there: the kernel has answered by the time sendmsg returns, each message that it
    /// refused and the last one in any case.
    fn receive(&self, subjects: &[String]) -> io::Result<()> {
        let mut buf = vec![0; 64 << 10];
        let mut acknowledged = false;
        loop {
            let len = match recv(self.0.as_raw_fd(), &mut buf, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => len,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (sequence, error) in answers(&buf[..len]) {
                if error != 0 {
                    return Err(self.refusal(subjects, sequence, error));
                }
                acknowledged |= sequence as usize == subjects.len();
            }
        }
        if !acknowledged {
            return Err(io::Error::other("nf_tables: the kernel does not answer"));
        }
        Ok(())
    }

    fn refusal(&self, subjects: &[String], sequence: u32, error: i32) -> io::Error {
        // Answers that are still there must not be taken for those of the next transaction.
        let mut rest = [0; 4096];
        while recv(self.0.as_raw_fd(), &mut rest, MsgFlags::MSG_DONTWAIT).is_ok() {}
        let subject = (sequence as usize)
            .checked_sub(1)
            .and_then(|i| subjects.get(i));
        let subject = subject.map_or("the transaction", String::as_str);
        let error = io::Error::from_raw_os_error(-error);
        io::Error::new(error.kind(), format!("nf_tables: {subject}: {error}"))
    }
}

/// Sequence number and error of each answer in a datagram.
fn answers(datagram: &[u8]) -> Vec<(u32, i32)> {
    let messages = messages(datagram);
    let error = |message: &Message<'_>| {
        Some((
            message.sequence,
            i32::from_ne_bytes(*message.body.first_chunk()?),
        ))
    };
    messages
        .iter()
        .filter(|message| message.kind == NLMSG_ERROR)
        .filter_map(error)
        .collect()
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

fn messages(mut datagram: &[u8]) -> Vec<Message<'_>> {
    let mut messages = Vec::new();
    while let Some(header) = datagram.first_chunk::<NLMSG_HDR_LEN>() {
        let u32_at =
            |i: usize| u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let len = u32_at(0) as usize;
        let Some(body) = datagram.get(NLMSG_HDR_LEN..len) else {
            break;
        };
        messages.push(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32_at(8),
            body,
        });
        let Some(rest) = datagram.get(len.next_multiple_of(4)..) else {
            break;
        };
        datagram = rest;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sequence: u32, error: i32) -> Vec<u8> {
        let mut bytes = 36u32.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&error.to_ne_bytes());
        bytes.resize(36, 0);
        bytes
    }

    #[test]
    fn answers_are_read_one_after_the_other_and_broken_ones_end_it() {
        let mut datagram = answer(1, 0);
        datagram.extend(answer(2, -17));
        assert_eq!(answers(&datagram), [(1, 0), (2, -17)]);
        datagram.truncate(50);
        assert_eq!(answers(&datagram), [(1, 0)]);
        assert!(answers(&[0; 64]).is_empty());
    }
}
