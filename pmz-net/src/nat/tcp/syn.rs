//! The SYN of a connection whose dial is on its way.

use smoltcp::wire::{TcpOption, TcpPacket};

/// What a connection's SYN said, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SynOptions {
    pub(super) isn: u32,
    pub(super) mss: Option<u16>,
    pub(super) window_len: u16,
    pub(super) window_scale: Option<u8>,
    pub(super) sack_permitted: bool,
}

/// The SYN of a connection whose dial is on its way.
#[derive(Debug)]
pub(in super::super) struct Syn {
    pub(super) options: SynOptions,
    /// The packet's headers, for an ICMP error to quote.
    pub(in super::super) quote: Vec<u8>,
}

impl Syn {
    /// Reads a SYN; `packet` is the IP packet that it came in.
    pub(in super::super) fn read(tcp: &TcpPacket<&[u8]>, packet: &[u8]) -> Option<Self> {
        const QUOTED: usize = 128;
        let mut options = SynOptions {
            isn: tcp.seq_number().0.cast_unsigned(),
            mss: None,
            window_len: tcp.window_len(),
            window_scale: None,
            sack_permitted: false,
        };
        let mut rest = tcp.options();
        while !rest.is_empty() {
            let (next, option) = TcpOption::parse(rest).ok()?;
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
                // RFC 7323, 2.3.
                TcpOption::WindowScale(scale) => options.window_scale = Some(scale.min(14)),
                TcpOption::SackPermitted => options.sack_permitted = true,
                _ => {}
            }
            rest = next;
        }
        Some(Self {
            options,
            quote: packet[..packet.len().min(QUOTED)].to_vec(),
        })
    }

    pub(in super::super) fn isn(&self) -> u32 {
        self.options.isn
    }
}
