//! Segments as the tests see them: read and written by code that shares nothing with what is tested.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use pmz_net::tcp::{Connection, Written};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
pub(crate) const ECE: u8 = 64;
pub(crate) const CWR: u8 = 128;

/// Codepoints of the IP header's ECN field.
pub(crate) const ECT0: u8 = 2;
pub(crate) const CE: u8 = 3;

/// A TCP segment, and the ECN field of the packet it travels in.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    /// Value and echo.
    pub(crate) stamps: Option<(u32, u32)>,
    pub(crate) sack: Vec<(u32, u32)>,
    /// Bytes of options behind all others, as they are.
    pub(crate) raw_options: Vec<u8>,
    pub(crate) ecn: u8,
    pub(crate) payload: Vec<u8>,
}

impl Segment {
    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it takes.
    pub(crate) fn len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    fn options(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(mss) = self.mss {
            out.extend([2, 4]);
            out.extend(mss.to_be_bytes());
        }
        if self.sack_permitted {
            out.extend([4, 2]);
        }
        if let Some(shift) = self.scale {
            out.extend([3, 3, shift]);
        }
        if let Some((value, echo)) = self.stamps {
            out.extend([8, 10]);
            out.extend(value.to_be_bytes());
            out.extend(echo.to_be_bytes());
        }
        if !self.sack.is_empty() {
            out.extend([5, 2 + 8 * self.sack.len() as u8]);
            for (start, end) in &self.sack {
                out.extend(start.to_be_bytes());
                out.extend(end.to_be_bytes());
            }
        }
        out.extend(&self.raw_options);
        while out.len() % 4 != 0 {
            out.push(1);
        }
        out.truncate(40);
        out
    }

    /// The whole IP packet. Checksums are left at 0: an endpoint sees only packets whose were right.
    pub(crate) fn packet(&self, src: SocketAddr, dst: SocketAddr) -> Vec<u8> {
        let options = self.options();
        let tcp_len = 20 + options.len() + self.payload.len();
        let mut out = Vec::with_capacity(40 + tcp_len);
        match (src.ip(), dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                out.extend([0x45, self.ecn]);
                out.extend(((20 + tcp_len) as u16).to_be_bytes());
                out.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                out.extend([0x60, self.ecn << 4, 0, 0]);
                out.extend((tcp_len as u16).to_be_bytes());
                out.extend([6, 64]);
                out.extend(src.octets());
                out.extend(dst.octets());
            }
            _ => panic!("addresses of two families"),
        }
        out.extend(src.port().to_be_bytes());
        out.extend(dst.port().to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend(self.ack.to_be_bytes());
        out.extend([((20 + options.len()) / 4 * 16) as u8, self.flags]);
        out.extend(self.window.to_be_bytes());
        out.extend([0; 4]);
        out.extend(options);
        out.extend(&self.payload);
        out
    }

    /// Reads what an endpoint wrote; panics where that is no TCP packet.
    pub(crate) fn read(packet: &[u8]) -> Self {
        let (ip_len, ecn, total) = match packet[0] >> 4 {
            4 => {
                let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
                assert_eq!((packet[0], packet[9]), (0x45, 6), "no TCP");
                (20, packet[1] & 3, total)
            }
            6 => {
                let len = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
                assert_eq!(packet[6], 6, "no TCP");
                (40, packet[1] >> 4 & 3, 40 + len)
            }
            other => panic!("IP version {other}"),
        };
        assert_eq!(total, packet.len(), "the IP header's length");
        let tcp = &packet[ip_len..];
        let word = |at: usize| u32::from_be_bytes(tcp[at..at + 4].try_into().unwrap());
        let header_len = usize::from(tcp[12] >> 4) * 4;
        let mut segment = Self {
            seq: word(4),
            ack: word(8),
            flags: tcp[13],
            window: u16::from_be_bytes([tcp[14], tcp[15]]),
            ecn,
            payload: tcp[header_len..].to_vec(),
            ..Self::default()
        };
        let mut rest = &tcp[20..header_len];
        while let Some(&kind) = rest.first() {
            if kind <= 1 {
                rest = &rest[1..];
                continue;
            }
            let len = usize::from(rest[1]);
            let body = &rest[2..len];
            let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            match kind {
                2 => segment.mss = Some(u16::from_be_bytes([body[0], body[1]])),
                3 => segment.scale = Some(body[0]),
                4 => segment.sack_permitted = true,
                5 => {
                    let blocks = (0..body.len()).step_by(8);
                    segment.sack = blocks.map(|at| (word(at), word(at + 4))).collect();
                }
                8 => segment.stamps = Some((word(0), word(4))),
                other => panic!("option {other}"),
            }
            rest = &rest[len..];
        }
        segment
    }

    /// Reads what may be anything; the fields that stand in every header.
    pub(crate) fn read_hostile(packet: &[u8]) -> Option<Self> {
        let ip_len = match packet.first()? >> 4 {
            4 => 20,
            6 => 40,
            _ => return None,
        };
        let tcp = packet.get(ip_len..)?;
        let word = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
        let header_len = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            seq: word(4)?,
            ack: word(8)?,
            flags: *tcp.get(13)?,
            window: u16::from_be_bytes([*tcp.get(14)?, *tcp.get(15)?]),
            payload: tcp.get(header_len..)?.to_vec(),
            ..Self::default()
        })
    }

    /// Cut into segments of at most `size` bytes of payload, as a device that offloads segmentation does it.
    pub(crate) fn cut(self, size: usize) -> Vec<Self> {
        if self.payload.len() <= size {
            return vec![self];
        }
        let count = self.payload.len().div_ceil(size);
        let pieces = self.payload.chunks(size).enumerate();
        pieces
            .map(|(index, payload)| {
                let mut flags = self.flags;
                if index > 0 {
                    flags &= !CWR;
                }
                if index + 1 < count {
                    flags &= !(FIN | PSH);
                }
                Self {
                    flags,
                    seq: self.seq.wrapping_add((index * size) as u32),
                    payload: payload.to_vec(),
                    ..self.clone()
                }
            })
            .collect()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (SYN, "S"),
            (FIN, "F"),
            (RST, "R"),
            (PSH, "P"),
            (ACK, "."),
            (ECE, "E"),
            (CWR, "W"),
        ];
        for (_, name) in names.iter().filter(|(flag, _)| self.has(*flag)) {
            f.write_str(name)?;
        }
        write!(f, " {}+{}", self.seq, self.payload.len())?;
        write!(f, " ack {} win {}", self.ack, self.window)?;
        if let Some(mss) = self.mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(scale) = self.scale {
            write!(f, " scale {scale}")?;
        }
        if let Some((value, echo)) = self.stamps {
            write!(f, " ts {value}/{echo}")?;
        }
        if !self.sack.is_empty() {
            write!(f, " sack {:?}", self.sack)?;
        }
        Ok(())
    }
}

/// Puts a segment's payload behind its headers, where the connection left it out.
pub(crate) fn complete(connection: &Connection, written: Written, out: &mut [u8]) -> usize {
    let len = written.header_len + written.payload_len;
    if let Some(pieces) = connection.payload() {
        out[written.header_len..len].copy_from_slice(&pieces.concat());
    }
    len
}

/// `a - b` in sequence space.
pub(crate) fn distance(a: u32, b: u32) -> i64 {
    i64::from(a.wrapping_sub(b).cast_signed())
}
