//! The virtio-net header that stands before each packet on a TUN opened with IFF_VNET_HDR
//! (`struct virtio_net_hdr` in linux/virtio_net.h, 10 bytes, host byte order).

/// Bytes of the header on a TUN.
pub const VNET_HDR_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of super-packet follows the header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GsoKind {
    /// An ordinary packet.
    #[default]
    None,
    /// TCP over IPv4, to be cut by `gso_size`.
    TcpV4,
    /// TCP over IPv6, to be cut by `gso_size`.
    TcpV6,
    /// UDP of either family, each segment a datagram of its own.
    UdpL4,
}

/// A parsed virtio-net header. Offsets count from the first byte of the IP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHdr {
    /// The transport checksum holds only the pseudo-header's sum; the rest is still to be added.
    pub needs_csum: bool,
    /// Whether and how the packet is to be cut.
    pub gso: GsoKind,
    /// The super-packet carries CWR, which belongs to its first segment only.
    pub ecn: bool,
    /// Bytes of IP and transport header together; only meaningful for a super-packet.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the checksummed part begins.
    pub csum_start: u16,
    /// Where, counted from `csum_start`, the checksum goes.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Reads the header; `None` where the buffer is too short or the GSO type is one that a TUN never
    /// gives with the offloads that pmz turns on.
    pub fn parse(buf: &[u8]) -> Option<Self> {
        let b: &[u8; VNET_HDR_LEN] = buf.first_chunk()?;
        let gso = match b[1] & !GSO_ECN {
            GSO_NONE => GsoKind::None,
            GSO_TCPV4 => GsoKind::TcpV4,
            GSO_TCPV6 => GsoKind::TcpV6,
            GSO_UDP_L4 => GsoKind::UdpL4,
            _ => return None,
        };
        let u16_at = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
        Some(Self {
            needs_csum: b[0] & NEEDS_CSUM != 0,
            gso,
            ecn: b[1] & GSO_ECN != 0,
            hdr_len: u16_at(2),
            gso_size: u16_at(4),
            csum_start: u16_at(6),
            csum_offset: u16_at(8),
        })
    }

    /// Writes the header into the first [`VNET_HDR_LEN`] bytes of `buf`.
    ///
    /// # Panics
    /// If `buf` is shorter than the header.
    pub fn emit(&self, buf: &mut [u8]) {
        let gso = match self.gso {
            GsoKind::None => GSO_NONE,
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::UdpL4 => GSO_UDP_L4,
        };
        buf[0] = if self.needs_csum { NEEDS_CSUM } else { 0 };
        buf[1] = gso | if self.ecn { GSO_ECN } else { 0 };
        buf[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
        buf[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        buf[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
        buf[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
    }

    /// Whether the packet behind the header is a super-packet.
    pub fn is_super_packet(&self) -> bool {
        self.gso != GsoKind::None
    }
}
