//! What Linux says of a TCP socket of its own: `TCP_INFO`, as `ss -ti` shows it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use serde::Serialize;

/// Some of `struct tcp_info` in linux/tcp.h. As a sender unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct View {
    /// Smoothed round trip, microseconds.
    pub rtt_us: u32,
    pub min_rtt_us: u32,
    /// Segments that were sent again.
    pub retransmits: u32,
    pub bytes_sent: u64,
    pub bytes_retransmitted: u64,
    /// How often it saw that segments overtook each other.
    pub reorderings: u32,
    /// Duplicates that the other end reported.
    pub dsack_duplicates: u32,
    /// Segments acknowledged with congestion experienced.
    pub congestion_marks: u32,
    /// Bits per second.
    pub delivery_bps: u64,
    /// Congestion window, segments.
    pub window: u32,
    /// Microseconds in which the other end's window held it back.
    pub window_limited_us: u64,
    /// As a receiver: round trip, microseconds.
    pub receiver_rtt_us: u32,
    /// As a receiver: segments that came out of order.
    pub out_of_order: u32,
    /// What both ends agreed on.
    pub timestamps: bool,
    pub sack: bool,
    pub scaling: bool,
    pub ecn: bool,
    /// Payload of the largest segment, sent and received, bytes; and what the other end was told.
    pub segment: u32,
    pub received_segment: u32,
    pub told_segment: u32,
    pub path_mtu: u32,
    /// Segments acknowledged selectively now.
    pub sacked: u32,
    /// Probes of a window that is closed, or of a silent connection, without an answer.
    pub probes: u8,
    /// The other end's window, bytes.
    pub offered_window: u32,
}

/// Bytes of the structure up to and with `tcpi_snd_wnd` (Linux 5.4).
const LEN: usize = 232;

impl View {
    /// What the kernel says now.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn of(stream: &impl AsFd) -> io::Result<Self> {
        let mut info = [0_u8; LEN];
        let mut len = LEN as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes to `info`.
        let result = unsafe {
            libc::getsockopt(
                stream.as_fd().as_raw_fd(),
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
            timestamps: info[5] & 1 != 0,
            sack: info[5] & 2 != 0,
            scaling: info[5] & 4 != 0,
            ecn: info[5] & 8 != 0,
            segment: u32_at(16),
            received_segment: u32_at(20),
            told_segment: u32_at(84),
            path_mtu: u32_at(60),
            sacked: u32_at(28),
            probes: info[3],
            offered_window: u32_at(228),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

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
        assert!(
            view.segment > 500 && view.path_mtu > view.segment,
            "{view:?}"
        );
        assert!(view.offered_window > 5000, "{view:?}");
    }
}
