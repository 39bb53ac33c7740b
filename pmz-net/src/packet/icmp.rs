//! Answers to packets that can't go on: ICMP errors (RFC 792, 1812, 4443) and TCP resets (RFC 9293).

use std::net::IpAddr;

use super::checksum::{Sum, fill_v4_header, pseudo_header};
use super::ip::{ICMP, ICMPV6, IpView, TCP, V4_HDR_LEN, V6_HDR_LEN};
use super::tcp;

/// Bytes of an ICMP error before the packet that it quotes.
const ICMP_HDR_LEN: usize = 8;
/// An ICMPv4 error is to quote as much as it can in this many bytes (RFC 1812 4.3.2.3).
const V4_ERROR_MAX: usize = 576;
/// An ICMPv6 error is to quote as much as it can in the least MTU (RFC 4443 2.4 c).
const V6_ERROR_MAX: usize = 1280;
const HOP_LIMIT: u8 = 64;

/// Why a packet can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No way leads to its network.
    Net,
    /// Its host does not answer.
    Host,
    /// Nobody takes its protocol or listens on its port.
    Port,
    /// It is forbidden.
    Admin,
    /// It is larger than the next link's MTU, which is this many bytes.
    TooBig(u16),
}

impl Unreachable {
    fn v4_code(self) -> u8 {
        match self {
            Self::Net => 0,
            Self::Host => 1,
            Self::Port => 3,
            Self::TooBig(_) => 4,
            Self::Admin => 13,
        }
    }

    fn v6_type_and_code(self) -> (u8, u8) {
        match self {
            Self::Net => (1, 0),
            Self::Admin => (1, 1),
            Self::Host => (1, 3),
            Self::Port => (1, 4),
            Self::TooBig(_) => (2, 0),
        }
    }
}

/// An ICMP error that tells the sender of `packet` why it can't go on, as an IP packet from `from`, which must be
/// of the same family.
///
/// `None` where none may be sent (RFC 1122 3.2.2, RFC 4443 2.4 e): about an ICMP error, a fragment but the first, a
/// packet to many or from nobody in particular; and about what is no IP packet.
pub fn unreachable(packet: &[u8], reason: Unreachable, from: IpAddr) -> Option<Vec<u8>> {
    let view = IpView::parse(packet)?;
    if !may_be_answered(&view, reason) || from.is_ipv4() != view.is_v4() {
        return None;
    }
    if view.is_v4() {
        Some(unreachable_v4(&view, reason, from))
    } else {
        Some(unreachable_v6(&view, reason, from))
    }
}

fn may_be_answered(view: &IpView<'_>, reason: Unreachable) -> bool {
    if view.fragment().is_some_and(|f| f.offset != 0) {
        return false;
    }
    if !is_one_host(view.src()) {
        return false;
    }
    let to_many = match view.dst() {
        IpAddr::V4(dst) => dst.is_multicast() || dst.is_broadcast(),
        // A sender to a group must learn the path's MTU too.
        IpAddr::V6(dst) => dst.is_multicast() && !matches!(reason, Unreachable::TooBig(_)),
    };
    !to_many && !is_icmp_error(view)
}

fn is_one_host(address: IpAddr) -> bool {
    let broadcast = match address {
        IpAddr::V4(a) => a.is_broadcast() || a.octets()[0] == 0 || a.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    !(broadcast || address.is_unspecified() || address.is_multicast())
}

fn is_icmp_error(view: &IpView<'_>) -> bool {
    match (view.protocol(), view.transport().first()) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        // Errors are below 128; a redirect may not be answered by one either.
        (ICMPV6, Some(kind)) => *kind < 128 || *kind == 137,
        (ICMP | ICMPV6, None) => true,
        _ => false,
    }
}

fn unreachable_v4(view: &IpView<'_>, reason: Unreachable, from: IpAddr) -> Vec<u8> {
    let room = V4_ERROR_MAX - V4_HDR_LEN - ICMP_HDR_LEN;
    let quote = &view.bytes()[..view.bytes().len().min(room)];
    let mut out = ip_header(from, view.src(), ICMP, ICMP_HDR_LEN + quote.len());
    let mtu = match reason {
        Unreachable::TooBig(mtu) => mtu,
        _ => 0,
    };
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    out.extend([3, reason.v4_code(), 0, 0, 0, 0, mtu_high, mtu_low]);
    out.extend(quote);
    let checksum = Sum::default().with(&out[V4_HDR_LEN..]).checksum();
    out[V4_HDR_LEN + 2..V4_HDR_LEN + 4].copy_from_slice(&checksum.to_be_bytes());
    out
}

fn unreachable_v6(view: &IpView<'_>, reason: Unreachable, from: IpAddr) -> Vec<u8> {
    let room = V6_ERROR_MAX - V6_HDR_LEN - ICMP_HDR_LEN;
    let quote = &view.bytes()[..view.bytes().len().min(room)];
    let len = ICMP_HDR_LEN + quote.len();
    let mut out = ip_header(from, view.src(), ICMPV6, len);
    let mtu = match reason {
        Unreachable::TooBig(mtu) => u32::from(mtu),
        _ => 0,
    };
    let (kind, code) = reason.v6_type_and_code();
    out.extend([kind, code, 0, 0]);
    out.extend(mtu.to_be_bytes());
    out.extend(quote);
    let checksum = pseudo_header(from, view.src(), ICMPV6, len as u16)
        .with(&out[V6_HDR_LEN..])
        .checksum();
    out[V6_HDR_LEN + 2..V6_HDR_LEN + 4].copy_from_slice(&checksum.to_be_bytes());
    out
}

/// The RST that answers a segment of a connection that is not there (RFC 9293 3.10.7.1), as an IP packet. `None`
/// for a segment that is a RST itself, and for what is no whole TCP segment between two hosts.
pub fn tcp_reset_for(packet: &[u8]) -> Option<Vec<u8>> {
    let view = IpView::parse(packet)?;
    if view.protocol() != TCP || view.is_fragment() {
        return None;
    }
    if !is_one_host(view.src()) || !is_one_host(view.dst()) {
        return None;
    }
    let segment = view.transport();
    let header = tcp::Header::parse(segment)?;
    let flags = header.flags();
    if flags & tcp::RST != 0 {
        return None;
    }
    let (seq, ack, answer) = if flags & tcp::ACK != 0 {
        (header.ack(), 0, tcp::RST)
    } else {
        let payload = segment.len() - header.len();
        let len =
            payload as u32 + u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        (0, header.seq().wrapping_add(len), tcp::RST | tcp::ACK)
    };
    let (src_port, dst_port) = view.ports()?;
    let mut out = ip_header(view.dst(), view.src(), TCP, tcp::MIN_HDR_LEN);
    let at = out.len();
    out.extend(dst_port.to_be_bytes());
    out.extend(src_port.to_be_bytes());
    out.extend(seq.to_be_bytes());
    out.extend(ack.to_be_bytes());
    out.extend([(tcp::MIN_HDR_LEN as u8 / 4) << 4, answer, 0, 0, 0, 0, 0, 0]);
    let checksum = pseudo_header(view.dst(), view.src(), TCP, tcp::MIN_HDR_LEN as u16)
        .with(&out[at..])
        .checksum();
    out[at + tcp::CHECKSUM_AT..at + tcp::CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
    Some(out)
}

/// An IP header for `len` bytes behind it; both addresses are of one family.
fn ip_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(V6_HDR_LEN + len);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let [high, low] = ((V4_HDR_LEN + len) as u16).to_be_bytes();
            // It is never fragmented, so that it needs no identification (RFC 6864).
            out.extend([0x45, 0, high, low, 0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
            out.extend(src.octets());
            out.extend(dst.octets());
            fill_v4_header(&mut out);
        }
        (src, dst) => {
            let [high, low] = (len as u16).to_be_bytes();
            out.extend([0x60, 0, 0, 0, high, low, protocol, HOP_LIMIT]);
            for address in [src, dst] {
                match address {
                    IpAddr::V4(a) => out.extend(a.to_ipv6_mapped().octets()),
                    IpAddr::V6(a) => out.extend(a.octets()),
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
