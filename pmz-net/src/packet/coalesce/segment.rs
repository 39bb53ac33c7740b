//! What is known of a packet that could be part of a super-packet.

use super::super::checksum::{transport_ok, v4_header_ok};
use super::super::ip::{IpView, TCP, UDP, V4_HDR_LEN, V6_HDR_LEN};
use super::super::{MAX_PACKET, tcp};

const UDP_HDR_LEN: usize = 8;

/// Behind a segment with one of these nothing is joined.
pub(super) const ENDS_SUPER_PACKET: u8 = tcp::URG | tcp::PSH | tcp::RST | tcp::SYN | tcp::FIN;

/// Who talks to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) v4: bool,
    pub(super) protocol: u8,
    pub(super) ports: (u16, u16),
    /// Source, then destination, as they stand in the header.
    pub(super) addresses: [u8; 32],
}

impl Flow {
    pub(super) fn of(view: &IpView<'_>) -> Option<Self> {
        Some(Self {
            ports: view.ports()?,
            ..Self::without_ports(view)
        })
    }

    pub(super) fn without_ports(view: &IpView<'_>) -> Self {
        let from = if view.is_v4() { 12..20 } else { 8..40 };
        let from = view.bytes().get(from).unwrap_or_default();
        let mut addresses = [0; 32];
        addresses[..from.len()].copy_from_slice(from);
        Self {
            v4: view.is_v4(),
            protocol: view.protocol(),
            ports: (0, 0),
            addresses,
        }
    }
}

/// A packet that could be part of a super-packet.
pub(super) struct Segment<'a> {
    pub(super) packet: &'a [u8],
    pub(super) v4: bool,
    /// Where the transport header begins.
    pub(super) transport: usize,
    pub(super) headers: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
}

impl<'a> Segment<'a> {
    /// `None` where the packet can't be joined with any other.
    pub(super) fn of(view: &IpView<'a>, udp: bool, trusted: bool) -> Option<Self> {
        let packet = view.bytes();
        let transport = view.transport_offset();
        let v4 = view.is_v4();
        // IPv6 counts its length without its header, so that a packet can be longer than a buffer.
        if packet.len() > MAX_PACKET {
            return None;
        }
        // Options and extension headers would have to stand on the super-packet's segments again.
        if transport != if v4 { V4_HDR_LEN } else { V6_HDR_LEN } {
            return None;
        }
        let (kind, header_len) = match view.protocol() {
            TCP => (Kind::Tcp, tcp::Header::parse(view.transport())?.len()),
            UDP if udp => {
                let header: &[u8; UDP_HDR_LEN] = view.transport().first_chunk()?;
                let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
                let has_checksum = header[6..8] != [0, 0];
                if len != view.transport().len() || !has_checksum {
                    return None;
                }
                (Kind::Udp, UDP_HDR_LEN)
            }
            _ => return None,
        };
        // The super-packet's new checksums would make a damaged packet look sound.
        if (v4 && !v4_header_ok(&packet[..transport])) || (!trusted && !transport_ok(view)) {
            return None;
        }
        Some(Self {
            packet,
            v4,
            transport,
            headers: transport + header_len,
            kind,
        })
    }

    pub(super) fn payload(&self) -> &'a [u8] {
        &self.packet[self.headers..]
    }

    pub(super) fn flags(&self) -> u8 {
        match self.kind {
            Kind::Tcp => self.packet[self.transport + tcp::FLAGS_AT],
            Kind::Udp => 0,
        }
    }

    /// Whether a super-packet may grow behind this segment.
    pub(super) fn may_be_first(&self) -> bool {
        !self.payload().is_empty() && self.flags() & ENDS_SUPER_PACKET == 0
    }

    pub(super) fn v4_id(&self) -> u16 {
        u16::from_be_bytes([self.packet[4], self.packet[5]])
    }
}
