//! A super-packet that grows.

use super::super::checksum::{fill_v4_header, pseudo_header_of};
use super::super::ip::{IpView, TCP, V4_HDR_LEN, V6_HDR_LEN};
use super::super::{GsoKind, MAX_FRAME, MAX_PACKET, VNET_HDR_LEN, VnetHdr, tcp};
use super::segment::{ENDS_SUPER_PACKET, Flow, Kind, Segment};

/// The kernel's `UDP_GRO_CNT_MAX`; more would not pass through a TUN on all kernels.
const MAX_DATAGRAMS: u16 = 64;

/// A super-packet that may still grow.
pub(super) struct Slot {
    /// A virtio-net header and the packet; the header is written when the slot is closed.
    frame: Box<[u8]>,
    pub(super) flow: Flow,
    /// Bytes of the packet so far.
    len: usize,
    /// Bytes of its IP and transport header.
    headers: usize,
    /// Payload bytes of the first segment: those of all but the last.
    size: usize,
    segments: u16,
    /// IPv4: whether all segments had the same identification, known from the second one on.
    fixed_id: bool,
}

/// What becomes of a packet whose flow has an open super-packet.
pub(super) enum Join {
    /// It belongs to its end.
    Append,
    /// It belongs to its end, and is its last.
    AppendAndClose,
    /// It does not belong there.
    No,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            frame: vec![0; MAX_FRAME].into_boxed_slice(),
            flow: Flow {
                v4: true,
                protocol: 0,
                ports: (0, 0),
                addresses: [0; 32],
            },
            len: 0,
            headers: 0,
            size: 0,
            segments: 0,
            fixed_id: false,
        }
    }

    fn packet(&self) -> &[u8] {
        &self.frame[VNET_HDR_LEN..VNET_HDR_LEN + self.len]
    }

    pub(super) fn begin(&mut self, flow: Flow, segment: &Segment<'_>) {
        self.flow = flow;
        self.len = segment.packet.len();
        self.headers = segment.headers;
        self.size = segment.payload().len();
        self.segments = 1;
        self.fixed_id = false;
        self.frame[VNET_HDR_LEN..VNET_HDR_LEN + self.len].copy_from_slice(segment.packet);
    }

    /// Whether the segment, which is of the same flow, continues the super-packet.
    pub(super) fn fit(&self, segment: &Segment<'_>) -> Join {
        let payload = segment.payload().len();
        let fits = segment.headers == self.headers
            && payload > 0
            && payload <= self.size
            && self.len + payload <= MAX_PACKET
            && self.same_ip_header(segment)
            && match segment.kind {
                Kind::Tcp => self.same_tcp_header(segment),
                Kind::Udp => true,
            };
        if !fits {
            return Join::No;
        }
        let full = segment.kind == Kind::Udp && self.segments + 1 == MAX_DATAGRAMS;
        let ends = segment.flags() & ENDS_SUPER_PACKET != 0;
        if payload < self.size || full || ends {
            Join::AppendAndClose
        } else {
            Join::Append
        }
    }

    fn same_ip_header(&self, segment: &Segment<'_>) -> bool {
        let (ours, theirs) = (self.packet(), segment.packet);
        if !segment.v4 {
            // Traffic class, flow label, hop limit.
            return ours[..4] == theirs[..4] && ours[7] == theirs[7];
        }
        // Type of service, flags, time to live.
        let same = ours[1] == theirs[1] && ours[6..8] == theirs[6..8] && ours[8] == theirs[8];
        let first_id = u16::from_be_bytes([ours[4], ours[5]]);
        let counts_up = segment.v4_id() == first_id.wrapping_add(self.segments);
        let dont_fragment = ours[6] & 0x40 != 0;
        let stays = dont_fragment && segment.v4_id() == first_id;
        // A datagram that can't be fragmented needs no identification of its own (RFC 6864).
        same && match self.segments {
            1 => counts_up || stays,
            _ if self.fixed_id => stays,
            _ => counts_up,
        }
    }

    fn same_tcp_header(&self, segment: &Segment<'_>) -> bool {
        let ours = &self.packet()[segment.transport..self.headers];
        let theirs = &segment.packet[segment.transport..segment.headers];
        let (Some(first), Some(header)) = (tcp::Header::parse(ours), tcp::Header::parse(theirs))
        else {
            return false;
        };
        let payload = (self.len - self.headers) as u32;
        let may_differ = tcp::CWR | tcp::FIN | tcp::PSH;
        header.flags() & tcp::CWR == 0
            && (first.flags() ^ header.flags()) & !may_differ == 0
            && header.seq() == first.seq().wrapping_add(payload)
            && header.ack() == first.ack()
            && ours[tcp::MIN_HDR_LEN..] == theirs[tcp::MIN_HDR_LEN..]
    }

    pub(super) fn append(&mut self, segment: &Segment<'_>) {
        if self.segments == 1 && segment.v4 {
            let first = &self.packet()[4..6];
            self.fixed_id = first == &segment.packet[4..6];
        }
        let payload = segment.payload();
        let at = VNET_HDR_LEN + self.len;
        self.frame[at..at + payload.len()].copy_from_slice(payload);
        self.len += payload.len();
        self.segments += 1;
        if segment.kind == Kind::Tcp {
            let flags = segment.flags() & (tcp::FIN | tcp::PSH);
            self.frame[VNET_HDR_LEN + segment.transport + tcp::FLAGS_AT] |= flags;
        }
    }

    /// The frame, complete. A single segment is as it was.
    pub(super) fn close(&mut self) -> &mut [u8] {
        let frame = &mut self.frame[..VNET_HDR_LEN + self.len];
        if self.segments == 1 {
            VnetHdr::default().emit(frame);
            return frame;
        }
        let transport = if self.flow.v4 { V4_HDR_LEN } else { V6_HDR_LEN };
        let packet = &mut frame[VNET_HDR_LEN..];
        if self.flow.v4 {
            packet[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
            fill_v4_header(&mut packet[..V4_HDR_LEN]);
        } else {
            packet[4..6].copy_from_slice(&((self.len - V6_HDR_LEN) as u16).to_be_bytes());
        }
        let transport_len = self.len - transport;
        let (gso, csum_offset) = match (self.flow.protocol, self.flow.v4) {
            (TCP, true) => (GsoKind::TcpV4, tcp::CHECKSUM_AT),
            (TCP, false) => (GsoKind::TcpV6, tcp::CHECKSUM_AT),
            _ => {
                packet[transport + 4..transport + 6]
                    .copy_from_slice(&(transport_len as u16).to_be_bytes());
                (GsoKind::UdpL4, 6)
            }
        };
        let ecn = gso != GsoKind::UdpL4 && packet[transport + tcp::FLAGS_AT] & tcp::CWR != 0;
        let at = transport + csum_offset;
        if let Some(view) = IpView::parse(packet) {
            let pseudo = pseudo_header_of(&view, transport_len).fold();
            packet[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        }
        let header = VnetHdr {
            needs_csum: true,
            gso,
            ecn,
            hdr_len: self.headers as u16,
            gso_size: self.size as u16,
            csum_start: transport as u16,
            csum_offset: csum_offset as u16,
        };
        header.emit(frame);
        frame
    }
}

// Lengths within a super-packet fit their 16 bits.
const _: () = assert!(MAX_PACKET <= u16::MAX as usize);
