//! A packet becomes the answer that refuses it, and goes back in by the device that it was about to leave by.
//!
//! The answer is written over the packet, so that it keeps its place in the kernel's bookkeeping. A packet whose
//! checksum a device was to finish stays such a one: of a RST the pseudo-header's sum stands in the checksum's
//! place then, as it should; of an ICMP message the whole checksum does, which nobody reads, because such a
//! packet came from this machine and does not leave it.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::TC_ACT_SHOT;
use pmz_xdp_types::{ANSWER_MARK, Address, count};

use crate::count as counters;
use crate::packet::{ICMP, ICMPV6, Packet, Part, TCP, Tcp, UDP, UDP_LITE};
use crate::skb::{Covers, Refused, Skb, fold, sum};

const TTL: u8 = 64;
/// Quoted of a packet: the header and 8 bytes (RFC 792), of IPv6 with extension headers as much as this.
const MAX_QUOTED: u32 = 128;
const QUOTED_WORDS: usize = MAX_QUOTED as usize / 4;

/// IPv4's header without options, or the last 20 bytes of IPv6's: everything is built of 32-bit words, which
/// need no alignment and are summed as they are.
const V4_WORDS: usize = 5;
const V6_WORDS: usize = 10;

/// Refuses the packet for `reason`, a count.
///
/// # Errors
/// The count for which it is dropped without an answer.
#[inline(always)]
pub(crate) fn refuse(skb: Skb, packet: &Packet, reason: u32) -> Result<i32, u32> {
    refusal(skb, packet)?;
    counters::event(reason);
    skb.set_mark(ANSWER_MARK);
    turned_back(skb)
}

/// Makes the answer of it that refuses it.
///
/// # Errors
/// As [`refuse`].
#[inline(always)]
pub(crate) fn refusal(skb: Skb, packet: &Packet) -> Result<(), u32> {
    if packet.part == Part::Later || !unicast(packet) {
        return Err(count::UNANSWERABLE);
    }
    if packet.protocol == TCP {
        reset(skb, packet)
    } else {
        unreachable(skb, packet)
    }
}

/// Makes the answer of it that asks for smaller packets (RFC 1191, RFC 8201).
///
/// # Errors
/// As [`refuse`].
#[inline(always)]
pub(crate) fn too_big(skb: Skb, packet: &Packet, mtu: u32) -> Result<(), u32> {
    if packet.part == Part::Later || !unicast(packet) || is_icmp_error(skb, packet) {
        return Err(count::UNANSWERABLE);
    }
    let head = if packet.v4 {
        [3, 4, 0, 0]
    } else {
        [2, 0, 0, 0]
    };
    put_unreachable(skb, packet, head, mtu.to_be()).map_err(|_| count::FAILED)
}

/// Back in by the device that it was about to leave by.
///
/// # Errors
/// As [`refuse`].
#[inline(always)]
pub(crate) fn turned_back(skb: Skb) -> Result<i32, u32> {
    let verdict = skb.turn_back();
    if verdict == TC_ACT_SHOT as i32 {
        return Err(count::FAILED);
    }
    Ok(verdict)
}

#[inline(always)]
fn is_icmp_error(skb: Skb, packet: &Packet) -> bool {
    packet
        .icmp_type(skb)
        .is_some_and(|icmp_type| packet.is_icmp_error(icmp_type))
}

/// Whether both ends are single hosts (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
#[inline(always)]
fn unicast(packet: &Packet) -> bool {
    if packet.v4 {
        let [source, ..] = packet.source.0[3].to_ne_bytes();
        let [destination, ..] = packet.destination.0[3].to_ne_bytes();
        // 240.0.0.0/4 is in use (stand-ins), whatever RFC 1112 reserves it for.
        source != 0
            && source != 127
            && !(224..240).contains(&source)
            && !(224..240).contains(&destination)
            && packet.source.0[3] != u32::MAX
            && packet.destination.0[3] != u32::MAX
    } else {
        let [source, ..] = packet.source.0[0].to_ne_bytes();
        let [destination, ..] = packet.destination.0[0].to_ne_bytes();
        source != 0xff && packet.source != Address([0; 4]) && destination != 0xff
    }
}

/// RFC 9293 section 3.5.2, group 1: the connection does not exist.
#[inline(always)]
fn reset(skb: Skb, packet: &Packet) -> Result<(), u32> {
    let tcp: Tcp = skb.load(packet.transport).map_err(|_| count::MALFORMED)?;
    if tcp.flags & Tcp::RST != 0 {
        return Err(count::UNANSWERABLE);
    }
    let header = u32::from(tcp.offset >> 4) * 4;
    let end = skb.len();
    if header < 20 || packet.transport + header > end {
        return Err(count::MALFORMED);
    }
    let (sequence, acknowledgement, flags) = if tcp.flags & Tcp::ACK != 0 {
        (tcp.acknowledgement, 0, Tcp::RST)
    } else {
        let taken = (end - packet.transport - header)
            + u32::from(tcp.flags & Tcp::SYN != 0)
            + u32::from(tcp.flags & Tcp::FIN != 0);
        let next = u32::from_be(tcp.sequence).wrapping_add(taken);
        (0, next.to_be(), Tcp::RST | Tcp::ACK)
    };
    let words = [
        pair(tcp.destination, tcp.source),
        sequence,
        acknowledgement,
        u32::from_ne_bytes([5 << 4, flags, 0, 0]),
        0,
    ];
    put_reset(skb, packet, &words).map_err(|_| count::FAILED)
}

#[inline(always)]
fn put_reset(skb: Skb, packet: &Packet, words: &[u32; 5]) -> Result<(), Refused> {
    let start = packet.start;
    let transport = start + header_len(packet);
    skb.set_len(transport + 20)?;
    put_header(skb, packet, TCP, 20)?;
    skb.store(transport, words)?;
    // A checksum of 0 takes both sums, or only the second where a device is to finish it.
    skb.fix_sum(transport + 16, sum(words, 0), Covers::Message)?;
    skb.fix_sum(
        transport + 16,
        pseudo_sum(packet, TCP, 20),
        Covers::PseudoHeader,
    )
}

/// RFC 792, RFC 4443 section 3.1: of a datagram the port is unreachable, of all else the host.
#[inline(always)]
fn unreachable(skb: Skb, packet: &Packet) -> Result<(), u32> {
    if is_icmp_error(skb, packet) {
        return Err(count::UNANSWERABLE);
    }
    let datagram = matches!(packet.protocol, UDP | UDP_LITE);
    let head: [u8; 4] = match (packet.v4, datagram) {
        (true, true) => [3, 3, 0, 0],
        (true, false) => [3, 1, 0, 0],
        (false, true) => [1, 4, 0, 0],
        (false, false) => [1, 3, 0, 0],
    };
    put_unreachable(skb, packet, head, 0).map_err(|_| count::FAILED)
}

/// `rest` is the second word, as it lies in packets.
#[inline(always)]
fn put_unreachable(skb: Skb, packet: &Packet, head: [u8; 4], rest: u32) -> Result<(), Refused> {
    let wanted = packet.transport - packet.start + 8;
    let quoted = wanted.min(packet.len(skb)).min(MAX_QUOTED);
    let mut room = MaybeUninit::uninit();
    let quotation = zeroed(&mut room);
    skb.load_into(packet.start, quotation, quoted)?;
    let length = 8 + quoted;
    let transport = packet.start + header_len(packet);
    skb.set_len(transport + length)?;

    let protocol = if packet.v4 { ICMP } else { ICMPV6 };
    put_header(skb, packet, protocol, length)?;
    // What the quotation does not fill is zero and adds nothing.
    let mut total = sum(quotation, 0);
    total = sum(&[u32::from_ne_bytes(head), rest], total);
    if !packet.v4 {
        total = sum(&[pseudo_sum(packet, ICMPV6, length)], total);
    }
    let [a, b] = fold(total).to_ne_bytes();
    let [kind, code, ..] = head;
    skb.store(transport, &[u32::from_ne_bytes([kind, code, a, b]), rest])?;
    skb.store_from(transport + 8, quotation, quoted)
}

/// Zeroes, written one by one: the compiler would call a function for it, and the verifier of Linux 5.10 takes every
/// number for one that it has to tell apart as soon as a program calls one.
#[inline(always)]
fn zeroed(room: &mut MaybeUninit<[u32; QUOTED_WORDS]>) -> &mut [u32; QUOTED_WORDS] {
    for word in 0..QUOTED_WORDS {
        // SAFETY: within the array.
        unsafe { room.as_mut_ptr().cast::<u32>().add(word).write_volatile(0) };
    }
    // SAFETY: all of it has been written.
    unsafe { room.assume_init_mut() }
}

#[inline(always)]
const fn header_len(packet: &Packet) -> u32 {
    if packet.v4 {
        V4_WORDS as u32 * 4
    } else {
        V6_WORDS as u32 * 4
    }
}

/// Writes the IP header of an answer: the packet's addresses, exchanged.
#[inline(always)]
fn put_header(skb: Skb, packet: &Packet, protocol: u8, payload: u32) -> Result<(), Refused> {
    let source = &packet.destination.0;
    let destination = &packet.source.0;
    if packet.v4 {
        let [a, b] = ((V4_WORDS as u32 * 4 + payload) as u16).to_be_bytes();
        let mut words: [u32; V4_WORDS] = [
            u32::from_ne_bytes([0x45, 0, a, b]),
            // Don't fragment, so that no identification is needed (RFC 6864).
            u32::from_ne_bytes([0, 0, 0x40, 0]),
            u32::from_ne_bytes([TTL, protocol, 0, 0]),
            source[3],
            destination[3],
        ];
        let [a, b] = fold(sum(&words, 0)).to_ne_bytes();
        words[2] = u32::from_ne_bytes([TTL, protocol, a, b]);
        skb.store(packet.start, &words)
    } else {
        let [a, b] = (payload as u16).to_be_bytes();
        let words: [u32; V6_WORDS] = [
            u32::from_ne_bytes([0x60, 0, 0, 0]),
            u32::from_ne_bytes([a, b, protocol, TTL]),
            source[0],
            source[1],
            source[2],
            source[3],
            destination[0],
            destination[1],
            destination[2],
            destination[3],
        ];
        skb.store(packet.start, &words)
    }
}

/// The sum of an answer's pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1); the order of its words does
/// not matter.
#[inline(always)]
fn pseudo_sum(packet: &Packet, protocol: u8, length: u32) -> u32 {
    let tail = [length.to_be(), u32::from_ne_bytes([0, 0, 0, protocol])];
    if packet.v4 {
        sum(
            &[
                packet.source.0[3],
                packet.destination.0[3],
                tail[0],
                tail[1],
            ],
            0,
        )
    } else {
        let seed = sum(&packet.source.0, 0);
        let seed = sum(&packet.destination.0, seed);
        sum(&tail, seed)
    }
}

#[inline(always)]
const fn pair(first: u16, second: u16) -> u32 {
    let [a, b] = first.to_ne_bytes();
    let [c, d] = second.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}
