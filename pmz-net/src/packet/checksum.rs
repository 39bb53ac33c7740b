//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use std::net::IpAddr;

use super::ip::{IpView, V4_HDR_LEN};
use super::{VNET_HDR_LEN, VnetHdr};

/// A ones-complement sum that is still being added up. Its words are in the byte order of the machine, which the
/// sum does not mind (RFC 1071, 2.B).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes. Each slice but the last must be of even length, as words don't span two of them.
    #[must_use]
    pub fn with(self, data: &[u8]) -> Self {
        let mut lanes = [0u64; 8];
        let mut blocks = data.chunks_exact(32);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                let word = word.first_chunk().copied().unwrap_or_default();
                *lane += u64::from(u32::from_ne_bytes(word));
            }
        }
        let mut sum = lanes.into_iter().fold(self.0, add);
        let mut words = blocks.remainder().chunks_exact(2);
        for word in &mut words {
            let word = word.first_chunk().copied().unwrap_or_default();
            sum = add(sum, u64::from(u16::from_ne_bytes(word)));
        }
        if let [last] = words.remainder() {
            sum = add(sum, u64::from(u16::from_ne_bytes([*last, 0])));
        }
        Self(sum)
    }

    /// Adds one word.
    #[must_use]
    pub fn with_u16(self, word: u16) -> Self {
        Self(add(self.0, u64::from(word.to_be())))
    }

    /// The sum, folded to 16 bits: what a pseudo-header's place in a partial checksum holds.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        u16::from_be(sum as u16)
    }

    /// The checksum: the complement of the folded sum.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }

    /// As [`Sum::checksum`] with 0xffff in the place of 0: in UDP 0 says that there is no checksum, and in the other
    /// protocols both mean the same.
    pub fn checksum_not_zero(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u64::from(carry)
}

/// The sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1). `len` counts transport header and payload.
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: u16) -> Sum {
    let sum = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            Sum::default().with(&src.octets()).with(&dst.octets())
        }
        (src, dst) => Sum::default().with(&octets(src)).with(&octets(dst)),
    };
    sum.with_u16(u16::from(protocol)).with_u16(len)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// The pseudo-header's sum of a packet, its addresses taken from its bytes.
pub(crate) fn pseudo_header_of(view: &IpView<'_>, len: usize) -> Sum {
    let addresses = if view.is_v4() { 12..20 } else { 8..40 };
    Sum::default()
        .with(view.bytes().get(addresses).unwrap_or_default())
        .with_u16(u16::from(view.protocol()))
        .with_u16(len as u16)
}

/// The checksum after a 16-bit word of what it covers went from `old` to `new` (RFC 1624, equation 3).
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !Sum::default()
        .with_u16(!checksum)
        .with_u16(!old)
        .with_u16(new)
        .fold()
}

/// As [`update`] for a run of words: both slices must have the same even length and stand at an even place.
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8]) -> u16 {
    let old = Sum::default().with(old).fold();
    let new = Sum::default().with(new).fold();
    update(checksum, old, new)
}

/// Writes an IPv4 header's checksum. `header` is the header with its options, no more.
pub fn fill_v4_header(header: &mut [u8]) {
    if header.len() < V4_HDR_LEN {
        return;
    }
    header[10..12].fill(0);
    let checksum = Sum::default().with(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether an IPv4 header's checksum is right. `header` is the header with its options, no more.
pub fn v4_header_ok(header: &[u8]) -> bool {
    Sum::default().with(header).fold() == 0xffff
}

/// Whether the checksum of the packet's TCP, UDP or ICMPv6 part is right; a missing one (UDP over IPv4) is. True for
/// protocols without a pseudo-header, which this does not look at.
pub fn transport_ok(view: &IpView<'_>) -> bool {
    use super::ip::{ICMPV6, TCP, UDP};
    let transport = view.transport();
    if !matches!(view.protocol(), TCP | UDP | ICMPV6) || view.is_fragment() {
        return true;
    }
    if view.protocol() == UDP && view.is_v4() && transport.get(6..8) == Some(&[0, 0]) {
        return true;
    }
    pseudo_header_of(view, transport.len())
        .with(transport)
        .fold()
        == 0xffff
}

/// Finishes a checksum that holds only its pseudo-header's sum, in place, and clears the flag. `frame` is a
/// virtio-net header and the packet. Returns false, with nothing changed, where
/// that is no IP packet or the header points outside it.
pub fn complete(frame: &mut [u8]) -> bool {
    let Some(mut header) = VnetHdr::parse(frame) else {
        return false;
    };
    if !header.needs_csum {
        return true;
    }
    let packet = frame.get_mut(VNET_HDR_LEN..).unwrap_or_default();
    let Some(end) = IpView::parse(packet).map(|view| view.total_len()) else {
        return false;
    };
    let Some(covered) = packet.get_mut(usize::from(header.csum_start)..end) else {
        return false;
    };
    let at = usize::from(header.csum_offset);
    if covered.len() < at + 2 {
        return false;
    }
    let checksum = Sum::default().with(covered).checksum_not_zero();
    covered[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    header.needs_csum = false;
    header.emit(frame);
    true
}

#[cfg(test)]
mod tests;
