//! Finding a UDP datagram in a frame.

use pmz_xdp_types::Address;
use pmz_xdp_types::guard::{V4_PREFIX, V6_PREFIX};

use super::frame::Frame;
use crate::packet::{Ipv4, Ipv6, UDP};

const ETHERNET: u32 = 14;
const UDP_HEADER: u32 = 8;
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
/// IEEE 802.1Q and 802.1ad.
const VLAN: [u16; 2] = [0x8100_u16.to_be(), 0x88a8_u16.to_be()];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
/// As many as RFC 8200 section 4.1 has before a transport, but for security.
const MAX_EXTENSIONS: usize = 3;

const V4_MASK: u32 = (u32::MAX << (32 - V4_PREFIX)).to_be();
const V6_MASK: u32 = (u32::MAX << (64 - V6_PREFIX)).to_be();

/// A UDP datagram to the tunnel's port.
pub(super) struct Datagram {
    /// Where its payload begins.
    pub(super) start: u32,
    /// Bytes of it, as its header says.
    pub(super) length: u32,
    /// The prefix that its source is in.
    pub(super) source: Address,
}

impl Datagram {
    /// Looks for one. Fragments are none: who joins them is behind.
    #[inline(always)]
    pub(super) fn find(frame: &impl Frame, port: u32) -> Option<Self> {
        let mut start = ETHERNET;
        let mut ethertype = frame.read::<u16>(12)?;
        if VLAN.contains(&ethertype) {
            ethertype = frame.read::<u16>(16)?;
            start += 4;
        }
        let v4 = match ethertype {
            ETHERTYPE_IPV4 => true,
            ETHERTYPE_IPV6 => false,
            _ => return None,
        };
        let (transport, source) = if v4 {
            udp_v4(frame, start)?
        } else {
            udp_v6(frame, start)?
        };
        let (to, datagram) = Self::at(frame, transport, source)?;
        (to == port).then_some(datagram)
    }

    /// The one whose UDP header stands there, and the port that it is to.
    #[inline(always)]
    pub(super) fn at(frame: &impl Frame, transport: u32, source: Address) -> Option<(u32, Self)> {
        let [_, to, length, _] = frame.read::<[u16; 4]>(transport)?;
        let datagram = Self {
            start: transport + UDP_HEADER,
            length: u32::from(u16::from_be(length)).saturating_sub(UDP_HEADER),
            source,
        };
        Some((u32::from(u16::from_be(to)), datagram))
    }
}

/// Where UDP begins, and the source's prefix.
#[inline(always)]
fn udp_v4(frame: &impl Frame, start: u32) -> Option<(u32, Address)> {
    let header = frame.read::<Ipv4>(start)?;
    let length = u32::from(header.version & 0x0f) * 4;
    // More fragments, or one behind the first.
    let fragment = header.fragment & 0x3fff_u16.to_be() != 0;
    if header.version >> 4 != 4 || length < 20 || fragment || header.protocol != UDP {
        return None;
    }
    Some((start + length, v4_source(&header)))
}

#[inline(always)]
fn udp_v6(frame: &impl Frame, start: u32) -> Option<(u32, Address)> {
    let header = frame.read::<Ipv6>(start)?;
    if header.version[0] >> 4 != 6 {
        return None;
    }
    let source = v6_source(&header);
    let mut protocol = header.next;
    let mut transport = start + 40;
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(protocol, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS) {
            break;
        }
        let [next, length] = frame.read::<[u8; 2]>(transport)?;
        protocol = next;
        transport += (u32::from(length) + 1) * 8;
    }
    (protocol == UDP).then_some((transport, source))
}

/// The prefix that the source is in.
#[inline(always)]
pub(super) fn v4_source(header: &Ipv4) -> Address {
    Address::v4(header.source & V4_MASK)
}

/// The prefix that the source is in.
#[inline(always)]
pub(super) fn v6_source(header: &Ipv6) -> Address {
    let [first, second, ..] = header.source;
    Address([first, second & V6_MASK, 0, 0])
}
