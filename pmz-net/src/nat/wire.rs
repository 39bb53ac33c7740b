//! What the NAT reads of an inner packet's headers, and how it writes them.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr,
};

/// Hop limit of what the NAT sends into the tunnel.
const HOP_LIMIT: u8 = 64;
/// More extension headers than this before the transport header, and a packet is dropped.
const MAX_EXTENSIONS: usize = 8;

/// Where things are in a whole IP packet. All offsets are within the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IpView {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: IpProtocol,
    /// Where the transport header begins.
    pub(super) l4: usize,
    /// Where the packet ends; bytes behind it are padding.
    pub(super) end: usize,
}

/// What a packet is, as far as its IP headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Whole(IpView),
    Fragment,
}

/// Reads the IP headers; `None` where they are malformed or of a kind that nobody handles.
pub(super) fn parse(packet: &[u8]) -> Option<Parsed> {
    match packet.first()? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<Parsed> {
    let header = Ipv4Packet::new_checked(packet).ok()?;
    let (l4, end) = (header.header_len() as usize, header.total_len() as usize);
    if l4 < IPV4_HEADER_LEN || l4 > end {
        return None;
    }
    if header.more_frags() || header.frag_offset() != 0 {
        return Some(Parsed::Fragment);
    }
    Some(Parsed::Whole(IpView {
        src: header.src_addr().into(),
        dst: header.dst_addr().into(),
        protocol: header.next_header(),
        l4,
        end,
    }))
}

fn parse_v6(packet: &[u8]) -> Option<Parsed> {
    let header = Ipv6Packet::new_checked(packet).ok()?;
    let end = header.total_len();
    let mut protocol = header.next_header();
    let mut l4 = IPV6_HEADER_LEN;
    for _ in 0..MAX_EXTENSIONS {
        match protocol {
            IpProtocol::Ipv6Frag => return Some(Parsed::Fragment),
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts => {
                let next = *packet.get(l4)?;
                let units = usize::from(*packet.get(l4 + 1)?);
                l4 += 8 * (units + 1);
                protocol = next.into();
            }
            // Source routing has no meaning here, and RFC 5095 tells what it did.
            IpProtocol::Ipv6Route => return None,
            _ => {
                return (l4 <= end).then_some(Parsed::Whole(IpView {
                    src: header.src_addr().into(),
                    dst: header.dst_addr().into(),
                    protocol,
                    l4,
                    end,
                }));
            }
        }
    }
    None
}

/// Bytes of an IP header without options for this family.
pub(super) fn ip_header_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => IPV4_HEADER_LEN,
        IpAddr::V6(_) => IPV6_HEADER_LEN,
    }
}

/// Writes an IP header without options at the start of `out` and returns its length.
/// `None` where the families differ or `out` is too short.
pub(super) fn emit_ip(
    out: &mut [u8],
    src: IpAddr,
    dst: IpAddr,
    next_header: IpProtocol,
    payload_len: usize,
) -> Option<usize> {
    let repr = match (src, dst) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => IpRepr::Ipv4(Ipv4Repr {
            src_addr,
            dst_addr,
            next_header,
            payload_len,
            hop_limit: HOP_LIMIT,
        }),
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => IpRepr::Ipv6(Ipv6Repr {
            src_addr,
            dst_addr,
            next_header,
            payload_len,
            hop_limit: HOP_LIMIT,
        }),
        _ => return None,
    };
    let len = repr.header_len();
    repr.emit(out.get_mut(..len)?, &ChecksumCapabilities::default());
    Some(len)
}

/// Makes the packet one without IP options or extension headers, in place, and returns it.
pub(super) fn without_options<'a>(packet: &'a mut [u8], view: &IpView) -> Option<&'a mut [u8]> {
    let plain = ip_header_len(view.dst);
    let start = view.l4.checked_sub(plain)?;
    let packet = packet.get_mut(start..view.end)?;
    if start > 0 {
        let payload_len = packet.len() - plain;
        emit_ip(packet, view.src, view.dst, view.protocol, payload_len)?;
    }
    Some(packet)
}

/// Makes the packet, which begins with an unfragmented packet's header, a fragment of it.
pub(super) fn emit_v4_fragment(packet: &mut [u8], offset: usize, more: bool, ident: u32) {
    let len = packet.len() as u16;
    let mut header = Ipv4Packet::new_unchecked(packet);
    header.set_total_len(len);
    header.set_ident(ident as u16);
    header.set_dont_frag(false);
    header.set_more_frags(more);
    header.set_frag_offset(offset as u16);
    header.fill_checksum();
}

/// As [`emit_v4_fragment`]; the fragment header's place is behind the IPv6 header.
pub(super) fn emit_v6_fragment(packet: &mut [u8], offset: usize, more: bool, ident: u32) {
    let ip = IPV6_HEADER_LEN;
    let payload_len = (packet.len() - ip) as u16;
    let mut header = Ipv6Packet::new_unchecked(&mut packet[..]);
    let next: u8 = header.next_header().into();
    header.set_next_header(IpProtocol::Ipv6Frag);
    header.set_payload_len(payload_len);
    let offset_and_more = (offset as u16) | u16::from(more);
    packet[ip] = next;
    packet[ip + 1] = 0;
    packet[ip + 2..ip + 4].copy_from_slice(&offset_and_more.to_be_bytes());
    packet[ip + 4..ip + 8].copy_from_slice(&ident.to_be_bytes());
}

/// The address as smoltcp has it.
pub(super) fn smol(address: IpAddr) -> IpAddress {
    address.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(payload: &[u8], protocol: IpProtocol) -> Vec<u8> {
        let mut packet = vec![0; 20 + payload.len()];
        let (src, dst) = ("10.1.0.2".parse().unwrap(), "10.96.0.1".parse().unwrap());
        emit_ip(&mut packet, src, dst, protocol, payload.len()).unwrap();
        packet[20..].copy_from_slice(payload);
        packet
    }

    #[test]
    fn padding_behind_an_ipv4_packet_is_left_out() {
        let mut packet = v4(b"12345678", IpProtocol::Udp);
        packet.extend_from_slice(&[0; 9]);
        let Some(Parsed::Whole(view)) = parse(&packet) else {
            panic!("not whole")
        };
        assert_eq!((view.l4, view.end), (20, 28));
    }

    #[test]
    fn ipv4_options_are_taken_out_in_place() {
        let plain = v4(b"12345678", IpProtocol::Udp);
        let mut packet = vec![0x46];
        packet.extend_from_slice(&plain[1..20]);
        packet[3] = 32;
        packet.extend_from_slice(&[1, 1, 1, 1]);
        packet.extend_from_slice(b"12345678");
        let Some(Parsed::Whole(view)) = parse(&packet) else {
            panic!("not whole")
        };
        assert_eq!(view.l4, 24);
        assert_eq!(without_options(&mut packet, &view).unwrap(), &plain[..]);
    }

    #[test]
    fn ipv6_extension_headers_are_walked_and_fragments_told() {
        let mut packet = vec![0; 56];
        let (src, dst) = ("fd00::2".parse().unwrap(), "fd00:96::1".parse().unwrap());
        emit_ip(&mut packet, src, dst, IpProtocol::HopByHop, 16).unwrap();
        packet[40] = 17;
        let Some(Parsed::Whole(view)) = parse(&packet) else {
            panic!("not whole")
        };
        assert_eq!((view.protocol, view.l4), (IpProtocol::Udp, 48));
        packet[40] = 44;
        assert_eq!(parse(&packet), Some(Parsed::Fragment));
        packet[41] = 200;
        packet[40] = 17;
        assert_eq!(parse(&packet), None, "an extension longer than the packet");
    }

    #[test]
    fn no_prefix_of_a_packet_is_taken_for_a_packet() {
        let packet = v4(b"12345678", IpProtocol::Udp);
        for cut in 0..packet.len() {
            assert_eq!(parse(&packet[..cut]), None);
        }
    }
}
