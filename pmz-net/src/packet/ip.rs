//! A view over the headers of an IP packet, version 4 and 6.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// RFC 8200 lets each extension header appear once, destination options twice, so that an honest
/// packet has at most five before its transport header.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Bytes of an IPv4 header without options.
pub(crate) const V4_HDR_LEN: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub(crate) const V6_HDR_LEN: usize = 40;

/// Which part of a datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentInfo {
    /// Where its payload begins in the datagram's, in bytes.
    pub offset: usize,
    /// Whether more fragments follow it.
    pub more: bool,
    /// Same for all fragments of a datagram; 16 bits on IPv4.
    pub id: u32,
    /// IPv6: where the byte stands that names the fragment header as the next one.
    pub(crate) next_header_at: usize,
    /// IPv6: where the fragment header begins.
    pub(crate) header_at: usize,
}

/// The headers of an IP packet, checked as far as this view reads them: no accessor can fail.
#[derive(Clone, Copy, Debug)]
pub struct IpView<'a> {
    bytes: &'a [u8],
    v4: bool,
    protocol: u8,
    transport: usize,
    total_len: usize,
    fragment: Option<FragmentInfo>,
}

impl<'a> IpView<'a> {
    /// Reads the headers of the packet that `bytes` begins with. Bytes behind the packet's own length
    /// (WireGuard pads) are ignored. `None` where the headers contradict themselves or the packet is cut off.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let view = Self::parse_quoted(bytes)?;
        if view.total_len > bytes.len() {
            return None;
        }
        Some(Self {
            bytes: bytes.get(..view.total_len)?,
            ..view
        })
    }

    /// Like [`IpView::parse`] for a packet that may be cut off behind its IP headers, as the one that an ICMP
    /// error quotes is.
    pub fn parse_quoted(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; V4_HDR_LEN] = bytes.first_chunk()?;
        let transport = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if transport < V4_HDR_LEN || transport > total_len || transport > bytes.len() {
            return None;
        }
        let flags = u16::from_be_bytes([header[6], header[7]]);
        let fragment = (flags & 0x3fff != 0).then(|| FragmentInfo {
            offset: usize::from(flags & 0x1fff) * 8,
            more: flags & 0x2000 != 0,
            id: u32::from(u16::from_be_bytes([header[4], header[5]])),
            next_header_at: 9,
            header_at: 0,
        });
        Some(Self {
            bytes,
            v4: true,
            protocol: header[9],
            transport,
            total_len,
            fragment,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; V6_HDR_LEN] = bytes.first_chunk()?;
        let total_len = V6_HDR_LEN + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut view = Self {
            bytes,
            v4: false,
            protocol: header[6],
            transport: V6_HDR_LEN,
            total_len,
            fragment: None,
        };
        let mut next_header_at = 6;
        for _ in 0..MAX_EXTENSION_HEADERS {
            let at = view.transport;
            let len = match view.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => 8 + usize::from(*bytes.get(at + 1)?) * 8,
                FRAGMENT => 8,
                _ => return Some(view),
            };
            let extension = bytes.get(at..at + len)?;
            if at + len > total_len {
                return None;
            }
            let is_fragment = view.protocol == FRAGMENT;
            view.protocol = extension[0];
            view.transport = at + len;
            if is_fragment {
                let field = u16::from_be_bytes([extension[2], extension[3]]);
                // A fragment that is the whole datagram is a packet like any other (RFC 6946).
                if field & 0xfff9 != 0 {
                    view.fragment = Some(FragmentInfo {
                        offset: usize::from(field & 0xfff8),
                        more: field & 1 != 0,
                        id: u32::from_be_bytes([
                            extension[4],
                            extension[5],
                            extension[6],
                            extension[7],
                        ]),
                        next_header_at,
                        header_at: at,
                    });
                    // What follows is the middle of a datagram, or its beginning, which only the whole makes sense of.
                    return Some(view);
                }
            }
            next_header_at = at;
        }
        None
    }

    /// The packet's bytes, without what may stand behind it.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the packet is IPv4; else it is IPv6.
    pub fn is_v4(&self) -> bool {
        self.v4
    }

    /// Where the packet says it comes from.
    pub fn src(&self) -> IpAddr {
        self.address(12, 8)
    }

    /// Where it goes.
    pub fn dst(&self) -> IpAddr {
        self.address(16, 24)
    }

    fn address(&self, v4_at: usize, v6_at: usize) -> IpAddr {
        if self.v4 {
            IpAddr::V4(Ipv4Addr::from(self.array::<4>(v4_at)))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.array::<16>(v6_at)))
        }
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes
            .get(at..)
            .and_then(|b| b.first_chunk())
            .copied()
            .unwrap_or([0; N])
    }

    /// The transport's protocol number, behind all extension headers.
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Where the transport header begins, counted from the IP header's first byte.
    pub fn transport_offset(&self) -> usize {
        self.transport
    }

    /// The bytes behind the IP headers: transport header and payload.
    pub fn transport(&self) -> &'a [u8] {
        self.bytes.get(self.transport..).unwrap_or_default()
    }

    /// The packet's length by its own header, in bytes.
    pub fn total_len(&self) -> usize {
        self.total_len
    }

    /// Time to live, or hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.array::<1>(if self.v4 { 8 } else { 7 })[0]
    }

    /// Type of service, or traffic class: DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        let [first, second] = self.array::<2>(0);
        if self.v4 {
            second
        } else {
            first << 4 | second >> 4
        }
    }

    /// Whether the packet is a part of a datagram.
    pub fn is_fragment(&self) -> bool {
        self.fragment.is_some()
    }

    /// Which part of a datagram the packet is, where it is one.
    pub fn fragment(&self) -> Option<FragmentInfo> {
        self.fragment
    }

    /// Source and destination port of TCP and UDP; `None` for other protocols and for fragments but the first.
    pub fn ports(&self) -> Option<(u16, u16)> {
        if !matches!(self.protocol, TCP | UDP) || self.fragment.is_some_and(|f| f.offset != 0) {
            return None;
        }
        let [a, b, c, d] = *self.transport().first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

/// Differs from process to process, so that nobody can choose ports that all fall into one bucket.
static HASH_SEED: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let state = RandomState::new();
    [state.hash_one(1), state.hash_one(2)]
});

/// A hash of the packet's flow: of addresses, protocol and ports, or of addresses and protocol alone where it is
/// a fragment, so that all fragments of a datagram stay together. Stable within the process. 0 for what is not IP.
pub fn flow_hash(packet: &[u8]) -> u32 {
    let Some(view) = IpView::parse_quoted(packet) else {
        return 0;
    };
    let ports = match (view.fragment, view.ports()) {
        (None, Some((src, dst))) => u64::from(src) << 16 | u64::from(dst),
        _ => 0,
    };
    let word = |b: [u8; 8]| u64::from_ne_bytes(b);
    let (a, b) = if view.v4 {
        (word(view.array(12)), 0)
    } else {
        (
            mix(word(view.array(8)), word(view.array(16)) ^ HASH_SEED[1]),
            mix(word(view.array(24)), word(view.array(32)) ^ HASH_SEED[0]),
        )
    };
    let hash = mix(a ^ HASH_SEED[0], b ^ HASH_SEED[1]);
    let hash = mix(
        hash ^ HASH_SEED[1],
        (ports << 8 | u64::from(view.protocol)) ^ HASH_SEED[0],
    );
    // Ports that follow each other differ in few bits, and under an unlucky seed one product leaves them
    // close together: a second one, by a constant with its bits well spread, does not.
    let hash = mix(hash, 0x9e37_79b9_7f4a_7c15);
    (hash >> 32) as u32 ^ hash as u32
}

/// The two halves of the product folded together: each bit of the result depends on all bits of both.
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b | 1);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests;
