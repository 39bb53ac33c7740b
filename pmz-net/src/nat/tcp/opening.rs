//! The SYN of a connection whose dial is on its way.

use smoltcp::wire::{TcpOption, TcpPacket};

use crate::tcp::Syn;

/// The SYN of a connection whose dial is on its way.
#[derive(Debug)]
pub(in super::super) struct Opening {
    pub(super) syn: Syn,
    /// The packet's headers, for an ICMP error to quote.
    pub(in super::super) quote: Vec<u8>,
}

impl Opening {
    /// Reads a SYN; `packet` is the IP packet that it came in.
    pub(in super::super) fn read(tcp: &TcpPacket<&[u8]>, packet: &[u8]) -> Option<Self> {
        const QUOTED: usize = 128;
        let mut syn = Syn {
            isn: tcp.seq_number().0.cast_unsigned(),
            mss: None,
            window_len: tcp.window_len(),
            window_scale: None,
            sack_permitted: false,
            timestamp: None,
            ecn: tcp.ece() && tcp.cwr(),
        };
        let mut rest = tcp.options();
        while !rest.is_empty() {
            let (next, option) = TcpOption::parse(rest).ok()?;
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => syn.mss = Some(mss),
                // RFC 7323, 2.3.
                TcpOption::WindowScale(scale) => syn.window_scale = Some(scale.min(14)),
                TcpOption::SackPermitted => syn.sack_permitted = true,
                TcpOption::TimeStamp { tsval, .. } => syn.timestamp = Some(tsval),
                _ => {}
            }
            rest = next;
        }
        Some(Self {
            syn,
            quote: packet[..packet.len().min(QUOTED)].to_vec(),
        })
    }

    pub(in super::super) fn isn(&self) -> u32 {
        self.syn.isn
    }
}
