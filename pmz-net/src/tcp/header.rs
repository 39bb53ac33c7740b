//! What a segment's header says, and how one is written.

use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
    TcpOption, TcpPacket, TcpSeqNumber,
};

/// Hop limit of what an endpoint sends.
const HOP_LIMIT: u8 = 64;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER_LEN: usize = 20;
/// Bytes that the timestamps take in each header: the option, aligned as RFC 7323's appendix A has it.
pub(super) const TIMESTAMPS_LEN: usize = 12;
/// The longest header that an endpoint writes: IPv6 and all options.
pub(crate) const MAX_HEADER_LEN: usize = IPV6_HEADER_LEN + 60;
/// RFC 7323, 2.3.
pub(super) const MAX_WINDOW_SHIFT: u8 = 14;

/// Congestion experienced, and the codepoint that allows to say so (RFC 3168, 5).
const CE: u8 = 0b11;
const ECT0: u8 = 0b10;

/// Sequence numbers of a block that arrived: its first, and the one behind its last.
pub(super) type WireBlock = (u32, u32);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timestamps {
    pub(super) value: u32,
    pub(super) echo: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) syn: bool,
    pub(super) ack: bool,
    pub(super) fin: bool,
    pub(super) rst: bool,
    pub(super) psh: bool,
    /// The receiver of data has seen a congestion mark (RFC 3168).
    pub(super) ece: bool,
    /// The sender of data has reduced its window.
    pub(super) cwr: bool,
}

/// A segment's header. Numbers are those of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: Flags,
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// Not scaled.
    pub(super) window: u16,
    pub(super) timestamps: Option<Timestamps>,
    pub(super) sack: [Option<WireBlock>; 3],
    /// In a SYN.
    pub(super) mss: Option<u16>,
    pub(super) window_shift: Option<u8>,
    pub(super) sack_permitted: bool,
    /// The packet carries a congestion mark, when received; may carry one, when sent.
    pub(super) ecn: bool,
}

/// Reads a packet: the header, and where its payload stands in it. `None` where it is malformed. The
/// packet has no IP options or extension headers.
pub(super) fn read(packet: &[u8]) -> Option<(Header, std::ops::Range<usize>)> {
    let (ip_len, end, ecn) = match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            (IPV4_HEADER_LEN, usize::from(ip.total_len()), ip.ecn())
        }
        6 => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            (IPV6_HEADER_LEN, ip.total_len(), ip.traffic_class() & 0b11)
        }
        _ => return None,
    };
    let tcp = TcpPacket::new_checked(packet.get(ip_len..end)?).ok()?;
    let mut header = Header {
        flags: Flags {
            syn: tcp.syn(),
            ack: tcp.ack(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            psh: tcp.psh(),
            ece: tcp.ece(),
            cwr: tcp.cwr(),
        },
        seq: tcp.seq_number().0.cast_unsigned(),
        ack: tcp.ack_number().0.cast_unsigned(),
        window: tcp.window_len(),
        ecn: ecn == CE,
        ..Header::default()
    };
    let payload = ip_len + usize::from(tcp.header_len())..end;
    header.read_options(tcp.options())?;
    Some((header, payload))
}

impl Header {
    /// `None` where an option is cut off or has no length: then nothing behind it can be told apart.
    fn read_options(&mut self, mut rest: &[u8]) -> Option<()> {
        while !rest.is_empty() {
            let (next, option) = TcpOption::parse(rest).ok()?;
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => self.mss = Some(mss),
                TcpOption::WindowScale(shift) => {
                    self.window_shift = Some(shift.min(MAX_WINDOW_SHIFT));
                }
                TcpOption::SackPermitted => self.sack_permitted = true,
                TcpOption::SackRange(blocks) => self.sack = blocks,
                TcpOption::TimeStamp { tsval, tsecr } => {
                    self.timestamps = Some(Timestamps {
                        value: tsval,
                        echo: tsecr,
                    });
                }
                TcpOption::NoOperation | TcpOption::Unknown { .. } => {}
            }
            rest = next;
        }
        Some(())
    }

    /// Bytes of the TCP header with these options.
    fn tcp_len(&self) -> usize {
        let mut len = TCP_HEADER_LEN;
        if self.mss.is_some() {
            len += 4;
        }
        if self.timestamps.is_some() {
            len += TIMESTAMPS_LEN;
        }
        if self.window_shift.is_some() {
            len += 4;
        }
        if self.sack_permitted {
            len += 4;
        }
        let blocks = self.sack.iter().flatten().count();
        if blocks > 0 {
            len += 4 + 8 * blocks;
        }
        len
    }

    /// Writes IP and TCP header for a payload of that length and gives their length. Each option stands
    /// where a receiver's 32-bit look at it is aligned. The TCP checksum is left at 0. `None` where the
    /// families of the addresses differ or `out` is too short.
    pub(super) fn write(
        &self,
        out: &mut [u8],
        src: SocketAddr,
        dst: SocketAddr,
        payload_len: usize,
    ) -> Option<usize> {
        let tcp_len = self.tcp_len();
        let ip_len = write_ip(out, src, dst, tcp_len + payload_len, self.ecn)?;
        let mut tcp = TcpPacket::new_unchecked(out.get_mut(ip_len..ip_len + tcp_len)?);
        tcp.set_src_port(src.port());
        tcp.set_dst_port(dst.port());
        tcp.set_seq_number(TcpSeqNumber(self.seq.cast_signed()));
        tcp.set_ack_number(TcpSeqNumber(self.ack.cast_signed()));
        tcp.clear_flags();
        tcp.set_header_len(tcp_len as u8);
        tcp.set_syn(self.flags.syn);
        tcp.set_ack(self.flags.ack);
        tcp.set_fin(self.flags.fin);
        tcp.set_rst(self.flags.rst);
        tcp.set_psh(self.flags.psh);
        tcp.set_ece(self.flags.ece);
        tcp.set_cwr(self.flags.cwr);
        tcp.set_window_len(self.window);
        tcp.set_checksum(0);
        tcp.set_urgent_at(0);
        self.write_options(tcp.options_mut());
        Some(ip_len + tcp_len)
    }

    fn write_options(&self, mut rest: &mut [u8]) {
        const PAD: TcpOption<'_> = TcpOption::NoOperation;
        if let Some(mss) = self.mss {
            rest = TcpOption::MaxSegmentSize(mss).emit(rest);
        }
        if self.sack_permitted {
            rest = PAD.emit(PAD.emit(rest));
            rest = TcpOption::SackPermitted.emit(rest);
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            rest = PAD.emit(PAD.emit(rest));
            rest = TcpOption::TimeStamp {
                tsval: value,
                tsecr: echo,
            }
            .emit(rest);
        }
        if let Some(shift) = self.window_shift {
            rest = PAD.emit(rest);
            rest = TcpOption::WindowScale(shift).emit(rest);
        }
        if self.sack.iter().any(Option::is_some) {
            rest = PAD.emit(PAD.emit(rest));
            TcpOption::SackRange(self.sack).emit(rest);
        }
    }
}

fn write_ip(
    out: &mut [u8],
    src: SocketAddr,
    dst: SocketAddr,
    payload_len: usize,
    ecn: bool,
) -> Option<usize> {
    let ecn = if ecn { ECT0 } else { 0 };
    match (src, dst) {
        (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
            let repr = Ipv4Repr {
                src_addr: *src.ip(),
                dst_addr: *dst.ip(),
                next_header: IpProtocol::Tcp,
                payload_len,
                hop_limit: HOP_LIMIT,
            };
            let mut packet = Ipv4Packet::new_unchecked(out.get_mut(..IPV4_HEADER_LEN)?);
            repr.emit(&mut packet, &ChecksumCapabilities::ignored());
            packet.set_ecn(ecn);
            packet.fill_checksum();
            Some(IPV4_HEADER_LEN)
        }
        (SocketAddr::V6(src), SocketAddr::V6(dst)) => {
            let repr = Ipv6Repr {
                src_addr: *src.ip(),
                dst_addr: *dst.ip(),
                next_header: IpProtocol::Tcp,
                payload_len,
                hop_limit: HOP_LIMIT,
            };
            let mut packet = Ipv6Packet::new_unchecked(out.get_mut(..IPV6_HEADER_LEN)?);
            repr.emit(&mut packet);
            packet.set_traffic_class(ecn);
            Some(IPV6_HEADER_LEN)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(v6: bool) -> [SocketAddr; 2] {
        let texts = match v6 {
            false => ["10.96.0.1:80", "10.1.0.2:4000"],
            true => ["[fd00:96::1]:80", "[fd00:1::2]:4000"],
        };
        texts.map(|text| text.parse().unwrap())
    }

    #[test]
    fn what_is_written_is_read_again() {
        let syn = Header {
            flags: Flags {
                syn: true,
                ack: true,
                ece: true,
                ..Flags::default()
            },
            seq: 0xffff_ffff,
            ack: 7,
            window: 65535,
            timestamps: Some(Timestamps { value: 1, echo: 2 }),
            mss: Some(1240),
            window_shift: Some(8),
            sack_permitted: true,
            ..Header::default()
        };
        let data = Header {
            flags: Flags {
                ack: true,
                psh: true,
                fin: true,
                cwr: true,
                ..Flags::default()
            },
            sack: [Some((1, 2)), Some((0xffff_fff0, 5)), None],
            timestamps: Some(Timestamps { value: 3, echo: 0 }),
            ..Header::default()
        };
        for v6 in [false, true] {
            let [src, dst] = addresses(v6);
            for header in [syn, data] {
                let mut packet = vec![0; MAX_HEADER_LEN];
                let len = header.write(&mut packet, src, dst, 3).unwrap();
                packet.truncate(len);
                packet.extend_from_slice(b"abc");
                assert_eq!(len % 4, 0);
                assert_eq!(read(&packet), Some((header, len..len + 3)));
            }
        }
    }

    #[test]
    fn a_mark_on_the_way_is_seen() {
        let [src, dst] = addresses(false);
        let header = Header {
            ecn: true,
            ..Header::default()
        };
        let mut packet = vec![0; MAX_HEADER_LEN];
        let len = header.write(&mut packet, src, dst, 0).unwrap();
        assert!(
            !read(&packet[..len]).unwrap().0.ecn,
            "allowed, and not made"
        );
        assert!(crate::packet::mark_congestion(&mut packet[..len]));
        assert!(read(&packet[..len]).unwrap().0.ecn);
    }

    #[test]
    fn no_prefix_of_a_packet_and_no_endless_option_is_read() {
        let [src, dst] = addresses(true);
        let header = Header {
            timestamps: Some(Timestamps::default()),
            ..Header::default()
        };
        let mut packet = vec![0; MAX_HEADER_LEN];
        let len = header.write(&mut packet, src, dst, 0).unwrap();
        for cut in 0..len {
            assert_eq!(read(&packet[..cut]), None);
        }
        // A length of 0 never gets any further.
        packet[len - TIMESTAMPS_LEN + 3] = 0;
        assert_eq!(read(&packet[..len]), None);
    }
}
