//! What Linux says of a TCP socket of its own: `TCP_INFO`, as `ss -ti` shows it.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nix::libc;
use serde::Serialize;

/// Some of `struct tcp_info` in linux/tcp.h. As a sender unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct View {
    /// Smoothed round trip, microseconds.
    pub(crate) rtt_us: u32,
    pub(crate) min_rtt_us: u32,
    /// Segments that were sent again.
    pub(crate) retransmits: u32,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_retransmitted: u64,
    /// How often it saw that segments overtook each other.
    pub(crate) reorderings: u32,
    /// Duplicates that the other end reported.
    pub(crate) dsack_duplicates: u32,
    /// Segments acknowledged with congestion experienced.
    pub(crate) congestion_marks: u32,
    /// Bits per second.
    pub(crate) delivery_bps: u64,
    /// Congestion window, segments.
    pub(crate) window: u32,
    /// Microseconds in which the other end's window held it back.
    pub(crate) window_limited_us: u64,
    /// As a receiver: round trip, microseconds.
    pub(crate) receiver_rtt_us: u32,
    /// As a receiver: segments that came out of order.
    pub(crate) out_of_order: u32,
}

/// Bytes of the structure up to and with `tcpi_rcv_ooopack` (Linux 5.4), rounded up.
const LEN: usize = 232;

impl View {
    /// What the kernel says now.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub(crate) fn of(stream: &TcpStream) -> io::Result<Self> {
        let mut info = [0_u8; LEN];
        let mut len = LEN as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes to `info`.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        match result {
            0 => Ok(Self::parse(&info)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn parse(info: &[u8; LEN]) -> Self {
        let u32_at = |at: usize| {
            let bytes = info[at..].first_chunk();
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        let u64_at = |at: usize| {
            let bytes = info[at..].first_chunk();
            bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        Self {
            rtt_us: u32_at(68),
            window: u32_at(80),
            receiver_rtt_us: u32_at(92),
            retransmits: u32_at(100),
            min_rtt_us: u32_at(148),
            delivery_bps: u64_at(160).saturating_mul(8),
            window_limited_us: u64_at(176),
            congestion_marks: u32_at(196),
            bytes_sent: u64_at(200),
            bytes_retransmitted: u64_at(208),
            dsack_duplicates: u32_at(216),
            reorderings: u32_at(220),
            out_of_order: u32_at(224),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernel_tells_of_a_connection_over_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 5000]).unwrap();
        server.read_exact(&mut [0; 5000]).unwrap();
        let view = View::of(&client).unwrap();
        assert_eq!(view.bytes_sent, 5000);
        assert_eq!(view.bytes_retransmitted, 0);
        assert!(view.rtt_us > 0 && view.min_rtt_us > 0, "{view:?}");
        assert!(view.rtt_us < 1_000_000, "{view:?}");
        assert!(view.window > 0 && view.window < 1000, "{view:?}");
    }
}
