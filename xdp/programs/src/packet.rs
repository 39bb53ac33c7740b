//! A packet's headers, up to where its transport begins.

use pmz_xdp_types::{Address, count};

use crate::skb::{Refused, Skb};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
pub(crate) const UDP_LITE: u8 = 136;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// More of them than anything sends (RFC 8200 section 4.1 names seven, one of them twice).
const MAX_EXTENSIONS: usize = 8;

const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
const ETHERTYPE_IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// RFC 791.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    pub(crate) version: u8,
    pub(crate) service: u8,
    pub(crate) length: u16,
    pub(crate) id: u16,
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: u16,
    pub(crate) source: u32,
    pub(crate) destination: u32,
}

/// RFC 8200.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv6 {
    pub(crate) version: [u8; 4],
    pub(crate) length: u16,
    pub(crate) next: u8,
    pub(crate) hops: u8,
    pub(crate) source: [u32; 4],
    pub(crate) destination: [u32; 4],
}

/// RFC 9293.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) source: u16,
    pub(crate) destination: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) offset: u8,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) checksum: u16,
    pub(crate) urgent: u16,
}

impl Tcp {
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 2;
    pub(crate) const RST: u8 = 4;
    pub(crate) const ACK: u8 = 16;
}

/// Of a packet in fragments, which one it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It is whole, or the first: its transport header is there.
    First,
    /// A later one: no ports, no checksum.
    Later,
}

#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) v4: bool,
    /// Where its IP header begins.
    pub(crate) start: u32,
    /// Where its transport begins.
    pub(crate) transport: u32,
    /// What stands there, unless it is a later fragment.
    pub(crate) protocol: u8,
    pub(crate) part: Part,
    /// Of a packet in fragments, where the word or half-word stands that is the same in all of them; else 0.
    pub(crate) fragment: u32,
    pub(crate) source: Address,
    pub(crate) destination: Address,
}

/// Reads the headers.
///
/// # Errors
/// The reason ([`count`]) for which the packet is none.
#[inline(always)]
pub(crate) fn parse(skb: Skb, start: u32) -> Result<Packet, u32> {
    match skb.protocol() {
        ETHERTYPE_IPV4 => parse_v4(skb, start),
        ETHERTYPE_IPV6 => parse_v6(skb, start),
        _ => Err(count::NOT_IP),
    }
}

#[inline(always)]
fn parse_v4(skb: Skb, start: u32) -> Result<Packet, u32> {
    let header: Ipv4 = skb.load(start).map_err(malformed)?;
    let length = u32::from(header.version & 0x0f) * 4;
    if header.version >> 4 != 4 || length < 20 || start + length > skb.len() {
        return Err(count::MALFORMED);
    }
    let later = header.fragment & 0x1fff_u16.to_be() != 0;
    let more = header.fragment & 0x2000_u16.to_be() != 0;
    Ok(Packet {
        v4: true,
        start,
        transport: start + length,
        protocol: header.protocol,
        part: if later { Part::Later } else { Part::First },
        fragment: if later || more { start + 4 } else { 0 },
        source: Address::v4(header.source),
        destination: Address::v4(header.destination),
    })
}

#[inline(always)]
fn parse_v6(skb: Skb, start: u32) -> Result<Packet, u32> {
    let header: Ipv6 = skb.load(start).map_err(malformed)?;
    let source = Address(header.source);
    let destination = Address(header.destination);
    if header.version[0] >> 4 != 6 || source.is_v4() || destination.is_v4() {
        return Err(count::MALFORMED);
    }
    let mut part = Part::First;
    let mut fragment = 0;
    let mut protocol = header.next;
    let mut transport = start + 40;
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING => {
                let extension: [u8; 4] = skb.load(transport).map_err(malformed)?;
                // Segments left: the destination is not where the packet goes, so it would pass for something
                // else here, and its transport checksum covers another address (RFC 8200 section 8.1).
                if protocol == ROUTING && extension[3] != 0 {
                    return Err(count::MALFORMED);
                }
                protocol = extension[0];
                transport += (u32::from(extension[1]) + 1) * 8;
            }
            FRAGMENT => {
                let extension: [u8; 4] = skb.load(transport).map_err(malformed)?;
                protocol = extension[0];
                fragment = transport + 4;
                transport += 8;
                if extension[2] != 0 || extension[3] & 0xf8 != 0 {
                    part = Part::Later;
                    break;
                }
            }
            _ => break,
        }
    }
    Ok(Packet {
        v4: false,
        start,
        transport,
        protocol,
        part,
        fragment,
        source,
        destination,
    })
}

#[inline(always)]
fn malformed(_: Refused) -> u32 {
    count::MALFORMED
}

impl Packet {
    /// Bytes of the IP packet.
    #[inline(always)]
    pub(crate) fn len(&self, skb: Skb) -> u32 {
        skb.len().wrapping_sub(self.start)
    }

    /// The type of its ICMP or ICMPv6 message, where it is one.
    #[inline(always)]
    pub(crate) fn icmp_type(&self, skb: Skb) -> Option<u8> {
        let expected = if self.v4 { ICMP } else { ICMPV6 };
        if self.protocol != expected || self.part == Part::Later {
            return None;
        }
        skb.load::<u8>(self.transport).ok()
    }

    /// Whether that type is an error's, which quotes a packet (RFC 792; RFC 4443 section 2.1).
    #[inline(always)]
    pub(crate) fn is_icmp_error(&self, icmp_type: u8) -> bool {
        if self.v4 {
            matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
        } else {
            icmp_type < 128
        }
    }
}
