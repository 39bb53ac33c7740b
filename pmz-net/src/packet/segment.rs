//! Cutting a super-packet into the packets that a network takes, as the kernel's `tcp_gso_segment` and
//! `__udp_gso_segment` do.

use super::checksum::{Sum, fill_v4_header, pseudo_header_of, transport_ok};
use super::ip::{IpView, TCP, UDP, V6_HDR_LEN};
use super::tcp;
use super::{GsoKind, VNET_HDR_LEN, VnetHdr};

/// Bytes of a UDP header.
const UDP_HDR_LEN: usize = 8;

/// The kernel gives no TCP super-packet of smaller segments (`TCP_MIN_GSO_SIZE`); a frame from another machine that
/// does would be a way to make much work out of few bytes.
const MIN_TCP_GSO_SIZE: usize = 8;

/// The kernel's `UDP_MAX_SEGMENTS`.
const MAX_UDP_SEGMENTS: usize = 128;

/// Yields the packets that a frame holds, one after the other, each complete: lengths, identification, sequence
/// number, flags and checksums.
#[derive(Clone, Debug)]
pub struct Segmenter<'a> {
    /// The whole packet, or, where its payload stands elsewhere, its headers.
    packet: &'a [u8],
    /// The payload of a super-packet, in pieces.
    payload: [&'a [u8]; 2],
    cut: Cut,
    v4: bool,
    /// Where the transport header begins.
    transport: usize,
    /// Bytes of all headers together.
    headers: usize,
    /// Payload bytes of each segment but the last.
    per_segment: usize,
    /// Payload bytes already yielded.
    offset: usize,
    /// Segments already yielded.
    index: u16,
    /// Of the pseudo-header all but the length.
    pseudo: Sum,
    done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The packet goes on as it is.
    Whole,
    /// As [`Cut::Whole`], with the checksum from `start` to the end put at `at`.
    Complete {
        start: usize,
        at: usize,
    },
    Tcp,
    Udp,
}

impl<'a> Segmenter<'a> {
    /// `frame` is a virtio-net header and an IP packet; `mtu` is the largest IP packet to be yielded, in bytes.
    ///
    /// TCP may be cut anywhere, so a super-packet whose segments are larger than `mtu` and an ordinary packet that is
    /// are cut smaller. Datagrams and all else can't be: they come out larger than `mtu`, for the caller to refuse.
    ///
    /// `None` where the frame contradicts itself, or the headers alone fill `mtu`.
    pub fn new(frame: &'a [u8], mtu: u16) -> Option<Self> {
        let vnet = VnetHdr::parse(frame)?;
        let view = IpView::parse(frame.get(VNET_HDR_LEN..)?)?;
        let whole = Self {
            packet: view.bytes(),
            payload: [&[]; 2],
            cut: Cut::Whole,
            v4: view.is_v4(),
            transport: view.transport_offset(),
            headers: view.total_len(),
            per_segment: 0,
            offset: 0,
            index: 0,
            pseudo: pseudo_header_of(&view, 0),
            done: false,
        };
        let mtu = usize::from(mtu);
        let gso_size = usize::from(vnet.gso_size);
        match vnet.gso {
            GsoKind::None => {
                if let Some(cut) = whole.cut_to_mtu(&vnet, &view, mtu) {
                    return Some(cut);
                }
                if !vnet.needs_csum {
                    return Some(whole);
                }
                let start = usize::from(vnet.csum_start);
                let at = start + usize::from(vnet.csum_offset);
                if at + 2 > view.total_len() {
                    return None;
                }
                Some(Self {
                    cut: Cut::Complete { start, at },
                    ..whole
                })
            }
            GsoKind::TcpV4 | GsoKind::TcpV6 => {
                if view.is_v4() != (vnet.gso == GsoKind::TcpV4) || gso_size < MIN_TCP_GSO_SIZE {
                    return None;
                }
                whole.cut_tcp(&view, gso_size, mtu)
            }
            GsoKind::UdpL4 => whole.cut_udp(&view, gso_size),
        }
    }

    /// As [`Segmenter::new`] for a TCP super-packet whose payload stands elsewhere, in two pieces: `head` is its
    /// virtio-net header and all other headers.
    pub fn gathered(head: &'a [u8], payload: [&'a [u8]; 2], mtu: u16) -> Option<Self> {
        let vnet = VnetHdr::parse(head)?;
        let packet = head.get(VNET_HDR_LEN..)?;
        let view = IpView::parse_quoted(packet)?;
        let headers = packet.len();
        let header = tcp::Header::parse(packet.get(view.transport_offset()..)?)?;
        let kind = match view.is_v4() {
            true => GsoKind::TcpV4,
            false => GsoKind::TcpV6,
        };
        let whole = headers + payload[0].len() + payload[1].len();
        let gso_size = usize::from(vnet.gso_size);
        let room = usize::from(mtu)
            .checked_sub(headers)
            .filter(|room| *room > 0)?;
        if view.protocol() != TCP
            || view.is_fragment()
            || vnet.gso != kind
            || gso_size < MIN_TCP_GSO_SIZE
            || view.total_len() != whole
            || view.transport_offset() + header.len() != headers
            || header.flags() & (tcp::SYN | tcp::RST) != 0
        {
            return None;
        }
        Some(Self {
            packet,
            payload,
            cut: Cut::Tcp,
            v4: view.is_v4(),
            transport: view.transport_offset(),
            headers,
            per_segment: gso_size.min(room),
            offset: 0,
            index: 0,
            pseudo: pseudo_header_of(&view, 0),
            done: false,
        })
    }

    fn cut_tcp(self, view: &IpView<'_>, gso_size: usize, mtu: usize) -> Option<Self> {
        if view.protocol() != TCP || view.is_fragment() {
            return None;
        }
        let header = tcp::Header::parse(view.transport())?;
        if header.flags() & (tcp::SYN | tcp::RST) != 0 {
            return None;
        }
        let headers = self.transport + header.len();
        let room = mtu.checked_sub(headers).filter(|room| *room > 0)?;
        Some(Self {
            cut: Cut::Tcp,
            payload: [&self.packet[headers..], &[]],
            headers,
            per_segment: gso_size.min(room),
            ..self
        })
    }

    fn cut_udp(self, view: &IpView<'_>, gso_size: usize) -> Option<Self> {
        let headers = self.transport + UDP_HDR_LEN;
        let payload = view.total_len().checked_sub(headers)?;
        if view.protocol() != UDP
            || view.is_fragment()
            || gso_size == 0
            || payload.div_ceil(gso_size) > MAX_UDP_SEGMENTS
        {
            return None;
        }
        Some(Self {
            cut: Cut::Udp,
            payload: [&self.packet[headers..], &[]],
            headers,
            per_segment: gso_size,
            ..self
        })
    }

    /// The way of an ordinary TCP packet that is larger than `mtu`.
    fn cut_to_mtu(&self, vnet: &VnetHdr, view: &IpView<'_>, mtu: usize) -> Option<Self> {
        if view.total_len() <= mtu || view.protocol() != TCP {
            return None;
        }
        // New checksums would make a damaged packet look sound.
        if !vnet.needs_csum && !transport_ok(view) {
            return None;
        }
        self.clone().cut_tcp(view, usize::MAX, mtu)
    }

    /// Length of the longest packet still to come, in bytes: all but the last have it.
    pub fn max_len(&self) -> usize {
        match self.cut {
            Cut::Whole | Cut::Complete { .. } => self.packet.len(),
            Cut::Tcp | Cut::Udp => self.headers + self.per_segment.min(self.left()),
        }
    }

    /// How many packets are still to come.
    pub fn remaining(&self) -> usize {
        match self.cut {
            _ if self.done => 0,
            Cut::Whole | Cut::Complete { .. } => 1,
            Cut::Tcp | Cut::Udp => self.left().div_ceil(self.per_segment).max(1),
        }
    }

    /// Writes the next packet to the beginning of `out` and returns its length. `None` after the last one, and, with
    /// nothing lost, where `out` is too short ([`Segmenter::max_len`]).
    pub fn next_into(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.done {
            return None;
        }
        match self.cut {
            Cut::Whole | Cut::Complete { .. } => self.whole_into(out),
            Cut::Tcp | Cut::Udp => self.segment_into(out),
        }
    }

    fn whole_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let out = out.get_mut(..self.packet.len())?;
        out.copy_from_slice(self.packet);
        if let Cut::Complete { start, at } = self.cut {
            let checksum = Sum::default().with(&out[start..]).checksum_not_zero();
            out[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        self.done = true;
        Some(out.len())
    }

    fn segment_into(&mut self, out: &mut [u8]) -> Option<usize> {
        let left = self.left();
        let payload = left.min(self.per_segment);
        let last = payload == left;
        let len = self.headers + payload;
        let out = out.get_mut(..len)?;
        let (headers, body) = out.split_at_mut(self.headers);
        headers.copy_from_slice(&self.packet[..self.headers]);
        self.copy_payload(body);

        let (ip, transport) = headers.split_at_mut(self.transport);
        self.patch_ip(ip, len);
        let checksum_at = match self.cut {
            Cut::Udp => {
                let udp_len = (UDP_HDR_LEN + payload) as u16;
                transport[4..6].copy_from_slice(&udp_len.to_be_bytes());
                6
            }
            _ => {
                self.patch_tcp(transport, last);
                tcp::CHECKSUM_AT
            }
        };
        transport[checksum_at..checksum_at + 2].fill(0);
        let checksum = self
            .pseudo
            .with_u16((len - self.transport) as u16)
            .with(&out[self.transport..])
            .checksum_not_zero();
        let at = self.transport + checksum_at;
        out[at..at + 2].copy_from_slice(&checksum.to_be_bytes());

        self.offset += payload;
        self.index = self.index.wrapping_add(1);
        self.done = last;
        Some(len)
    }

    /// Payload bytes still to be yielded.
    fn left(&self) -> usize {
        self.payload[0].len() + self.payload[1].len() - self.offset
    }

    /// Fills `body` with the payload from the offset on.
    fn copy_payload(&self, body: &mut [u8]) {
        let [first, second] = self.payload;
        let here = first.get(self.offset..).unwrap_or_default();
        let n = here.len().min(body.len());
        let (front, back) = body.split_at_mut(n);
        front.copy_from_slice(&here[..n]);
        if !back.is_empty() {
            let from = self.offset.saturating_sub(first.len());
            back.copy_from_slice(&second[from..from + back.len()]);
        }
    }

    fn patch_ip(&self, ip: &mut [u8], len: usize) {
        if self.v4 {
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(self.index);
            ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            fill_v4_header(ip);
        } else {
            ip[4..6].copy_from_slice(&((len - V6_HDR_LEN) as u16).to_be_bytes());
        }
    }

    fn patch_tcp(&self, header: &mut [u8], last: bool) {
        let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let seq = seq.wrapping_add(self.offset as u32);
        header[4..8].copy_from_slice(&seq.to_be_bytes());
        if !last {
            header[tcp::FLAGS_AT] &= !(tcp::FIN | tcp::PSH);
        }
        if self.index > 0 {
            header[tcp::FLAGS_AT] &= !tcp::CWR;
        }
        if self.offset > 0 && header[tcp::FLAGS_AT] & tcp::URG != 0 {
            // The pointer counts from the segment's own sequence number; behind the urgent data it has no meaning.
            let pointer = usize::from(u16::from_be_bytes([header[18], header[19]]));
            match pointer.checked_sub(self.offset) {
                Some(pointer) if pointer > 0 => {
                    header[18..20].copy_from_slice(&(pointer as u16).to_be_bytes());
                }
                _ => {
                    header[tcp::FLAGS_AT] &= !tcp::URG;
                    header[18..20].fill(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
