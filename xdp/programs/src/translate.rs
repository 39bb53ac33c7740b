//! An address in a packet becomes another one, and every checksum that covers it stays right.

use pmz_xdp_types::Address;

use crate::packet::{ICMPV6, Ipv4, Ipv6, Packet, Part, TCP, UDP, UDP_LITE};
use crate::skb::{Covers, Refused, Skb, difference};

/// Which of a header's addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Source,
    Destination,
}

impl Field {
    #[inline(always)]
    const fn v4(self) -> u32 {
        match self {
            Self::Source => 12,
            Self::Destination => 16,
        }
    }

    #[inline(always)]
    const fn v6(self) -> u32 {
        match self {
            Self::Source => 8,
            Self::Destination => 24,
        }
    }
}

/// Where the transport checksum stands that covers the addresses, by the transport's header.
#[inline(always)]
fn checksum(packet: &Packet) -> Option<(u32, Covers)> {
    if packet.part == Part::Later {
        return None;
    }
    match packet.protocol {
        TCP => Some((16, Covers::PseudoHeader)),
        UDP => Some((6, Covers::PseudoHeaderIfAny)),
        UDP_LITE => Some((6, Covers::PseudoHeader)),
        // ICMP's does not (RFC 792), ICMPv6's does (RFC 4443 section 2.3).
        ICMPV6 if !packet.v4 => Some((2, Covers::PseudoHeader)),
        _ => None,
    }
}

/// Puts `new` in the place of `old` in the packet's own header.
///
/// Super-packets and checksums that a device is to finish need nothing more: the segments get their header
/// from this one, and what stands in the checksum's place then is the sum of the pseudo-header, which the
/// helper corrects likewise.
///
/// # Errors
/// If the kernel refused; the packet may be half changed then, and must be dropped.
#[inline(always)]
pub(crate) fn header(
    skb: Skb,
    packet: &Packet,
    field: Field,
    old: &Address,
    new: &Address,
) -> Result<(), Refused> {
    if packet.v4 {
        let (old, new) = (old.0[3], new.0[3]);
        skb.store(packet.start + field.v4(), &new)?;
        skb.fix_header_sum(packet.start + 10, old, new)?;
    } else {
        skb.store_summed(packet.start + field.v6(), &new.0)?;
    }
    if let Some((offset, covers)) = checksum(packet) {
        // The first twelve bytes of IPv4 addresses are equal and cancel out.
        skb.fix_sum(
            packet.transport + offset,
            difference(&old.0, &new.0),
            covers,
        )?;
    }
    Ok(())
}

/// The address in the header that an ICMP error quotes, where it has a whole one of the packet's family.
#[inline(always)]
pub(crate) fn quoted(skb: Skb, packet: &Packet, field: Field) -> Option<Address> {
    let start = packet.transport + 8;
    if packet.v4 {
        let header: Ipv4 = skb.load(start).ok()?;
        if header.version >> 4 != 4 {
            return None;
        }
        Some(Address::v4(match field {
            Field::Source => header.source,
            Field::Destination => header.destination,
        }))
    } else {
        let header: Ipv6 = skb.load(start).ok()?;
        let address = Address(match field {
            Field::Source => header.source,
            Field::Destination => header.destination,
        });
        (header.version[0] >> 4 == 6 && !address.is_v4()).then_some(address)
    }
}

/// Puts `new` in the place of `old` in the header that an ICMP error quotes.
///
/// The transport checksum in the quotation stays as it was: who gets an error looks for the socket by addresses
/// and ports, and can't check a sum over data that is cut off (mostly the checksum itself is cut off).
///
/// # Errors
/// As [`header`].
#[inline(always)]
pub(crate) fn quotation(
    skb: Skb,
    packet: &Packet,
    field: Field,
    old: &Address,
    new: &Address,
) -> Result<(), Refused> {
    let start = packet.transport + 8;
    if packet.v4 {
        // The quoted header's checksum changes against the address, so the message's own stays right.
        let (old, new) = (old.0[3], new.0[3]);
        skb.store(start + field.v4(), &new)?;
        skb.fix_header_sum(start + 10, old, new)
    } else {
        skb.store(start + field.v6(), &new.0)?;
        skb.fix_sum(
            packet.transport + 2,
            difference(&old.0, &new.0),
            Covers::Message,
        )
    }
}
