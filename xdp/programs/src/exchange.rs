//! Diverted flows: where each is from, so that what comes out of the tunnel gets back there.
//!
//! Flows are told apart by the cluster's address and the ports. Two that only their source address tells apart would
//! become one, so that the second one is refused. What a route leads into the TUN is noted, too, while anything is
//! diverted: it has the tunnel's address as it is.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use pmz_xdp_types::{Address, Config, DIVERT_MARK, Divert, Diverted, Exchange, count};

use crate::maps::{CONFIG, DIVERTED};
use crate::packet::{ICMP, ICMPV6, Ipv4, Ipv6, Packet, Part, SCTP, TCP, Tcp, UDP, UDP_LITE};
use crate::skb::Skb;
use crate::translate;
use crate::translate::Field;

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;

const SECOND: u64 = 1_000_000_000;
/// A connection in which nothing moves (RFC 5382, REQ-5).
const ESTABLISHED: u64 = 7440 * SECOND;
/// One that has ended (as above).
const CLOSING: u64 = 240 * SECOND;
/// Datagrams (RFC 4787, REQ-5).
const DATAGRAMS: u64 = 300 * SECOND;
/// Echoes (RFC 5508, REQ-2).
const OTHERS: u64 = 60 * SECOND;

/// Whether any device is diverted from, or was: else nothing comes back that would have to go there.
#[inline(always)]
pub(crate) fn is_diverting() -> bool {
    CONFIG
        .get(0)
        .is_some_and(|config| config.flags & Config::DIVERTING != 0)
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
pub(crate) fn verdict(verdict: i32) -> Result<i32, u32> {
    if verdict == TC_ACT_SHOT as i32 {
        return Err(count::FAILED);
    }
    Ok(verdict)
}

#[inline(always)]
pub(crate) fn is_icmp_error(skb: Skb, packet: &Packet) -> bool {
    packet
        .icmp_type(skb)
        .is_some_and(|icmp_type| packet.is_icmp_error(icmp_type))
}

/// Both ports, or what stands in their place.
#[inline(always)]
fn ports(skb: Skb, protocol: u8, transport: u32) -> u32 {
    match protocol {
        TCP | UDP | UDP_LITE | SCTP => skb.load::<u32>(transport).unwrap_or(0),
        ICMP | ICMPV6 => skb.load::<u16>(transport + 4).map_or(0, u32::from),
        _ => 0,
    }
}

/// A packet that a route has led to the TUN: false where its flow can't be told from a diverted one.
///
/// # Errors
/// The reason ([`count`]) for which it is dropped.
#[inline(always)]
pub(crate) fn stays_apart(skb: Skb, packet: &Packet) -> Result<bool, u32> {
    if !is_diverting()
        || skb.mark() == DIVERT_MARK
        || packet.part == Part::Later
        || is_icmp_error(skb, packet)
    {
        return Ok(true);
    }
    let flow = Diverted {
        source: packet.source,
        last: now(),
        device: 0,
        link: Divert::ONE_WAY,
        mac: 0,
    };
    remember(skb, packet, flow)
}

/// Notes where the flow is from; false where it is another one's twin.
#[inline(always)]
pub(crate) fn remember(skb: Skb, packet: &Packet, mut flow: Diverted) -> Result<bool, u32> {
    let key = Exchange {
        cluster: packet.destination,
        ports: ports(skb, packet.protocol, packet.transport),
        protocol: u32::from(packet.protocol),
    };
    let flags = flags(skb, packet);
    if flags & (Tcp::FIN | Tcp::RST) != 0 {
        flow.link |= Diverted::CLOSING;
    }
    let begins = flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN;
    if let Some(known) = DIVERTED.get_ptr_mut(key) {
        // SAFETY: the kernel keeps the element's memory until the program has ended. Another CPU may write the same
        // fields at the same time; either's are right.
        unsafe {
            if (*known).source == flow.source {
                (*known).last = flow.last;
                (*known).device = flow.device;
                (*known).mac = flow.mac;
                (*known).link = if begins {
                    flow.link
                } else {
                    (*known).link & Diverted::CLOSING | flow.link
                };
                return Ok(true);
            }
            if flow.last.saturating_sub((*known).last) < patience(packet.protocol, (*known).link) {
                return Ok(false);
            }
        }
    }
    match DIVERTED.insert(key, flow, 0) {
        Ok(()) => Ok(true),
        Err(_) => Err(count::FAILED),
    }
}

/// How long a flow that does nothing keeps its place against another one.
#[inline(always)]
fn patience(protocol: u8, link: u32) -> u64 {
    match protocol {
        TCP if link & Diverted::CLOSING == 0 => ESTABLISHED,
        TCP => CLOSING,
        UDP | UDP_LITE => DATAGRAMS,
        _ => OTHERS,
    }
}

#[inline(always)]
fn flags(skb: Skb, packet: &Packet) -> u8 {
    match packet.protocol {
        TCP => skb.load::<u8>(packet.transport + 13).unwrap_or(0),
        _ => 0,
    }
}

/// A packet from the tunnel: to the device that its flow was diverted from, if it was; routing expects it there
/// (`rp_filter`), and sockets that are bound to the device hear it. `cluster` is its source as
/// the machine uses it.
///
/// Later fragments follow the first one, if that has come before them; else they pass, and lack it wherever they
/// are put together.
///
/// # Errors
/// The reason ([`count`]) for which it is dropped.
#[inline(always)]
pub(crate) fn back(skb: Skb, packet: &Packet, cluster: &Address) -> Result<i32, u32> {
    let error = packet.part == Part::First && is_icmp_error(skb, packet);
    let key = if error {
        let Some(key) = about(skb, packet) else {
            return Ok(TC_ACT_UNSPEC);
        };
        key
    } else if packet.part == Part::Later {
        fragments(skb, packet, cluster)?
    } else {
        let ports = ports(skb, packet.protocol, packet.transport);
        Exchange {
            cluster: *cluster,
            // An echo's identifier fills one half only, and is the same both ways.
            ports: match packet.protocol {
                ICMP | ICMPV6 => ports,
                _ => ports.rotate_left(16),
            },
            protocol: u32::from(packet.protocol),
        }
    };
    let Some(known) = DIVERTED.get_ptr_mut(key) else {
        return Ok(TC_ACT_UNSPEC);
    };
    // SAFETY: as in `remember`.
    let flow = unsafe {
        if !error && packet.part == Part::First {
            (*known).last = now();
            if flags(skb, packet) & (Tcp::FIN | Tcp::RST) != 0 {
                (*known).link |= Diverted::CLOSING;
            }
        }
        *known
    };
    if packet.fragment != 0 && packet.part == Part::First {
        let key = fragments(skb, packet, cluster)?;
        DIVERTED.insert(key, flow, 0).map_err(|_| count::FAILED)?;
    }
    give_back(skb, packet, &flow, error)
}

#[inline(always)]
fn give_back(skb: Skb, packet: &Packet, flow: &Diverted, error: bool) -> Result<i32, u32> {
    if error {
        translate::quotation(
            skb,
            packet,
            Field::Source,
            &packet.destination,
            &flow.source,
        )
        .map_err(|_| count::FAILED)?;
    }
    if packet.destination != flow.source {
        translate::header(
            skb,
            packet,
            Field::Destination,
            &packet.destination,
            &flow.source,
        )
        .map_err(|_| count::FAILED)?;
    }
    let link = flow.link & !Diverted::CLOSING;
    if link == Divert::ONE_WAY {
        return Ok(TC_ACT_UNSPEC);
    }
    if link == Divert::ETHERNET {
        // From itself to itself: the kernel asks only whether the frame is for the device.
        let [a, b, c, d, e, f, ..] = flow.mac.to_ne_bytes();
        let [high, low]: [u8; 2] = if packet.v4 {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        let frame = [a, b, c, d, e, f, a, b, c, d, e, f, high, low];
        skb.extend_head(ETHERNET).map_err(|_| count::FAILED)?;
        skb.store(0, &frame).map_err(|_| count::FAILED)?;
    }
    verdict(skb.receive_at(flow.device))
}

/// Fragments of one packet have its sender, its transport and an identification in common (RFC 791, RFC 8200 section
/// 4.5).
#[inline(always)]
fn fragments(skb: Skb, packet: &Packet, cluster: &Address) -> Result<Exchange, u32> {
    let id = if packet.v4 {
        skb.load::<u16>(packet.fragment).map(u32::from)
    } else {
        skb.load::<u32>(packet.fragment)
    };
    Ok(Exchange {
        cluster: *cluster,
        ports: id.map_err(|_| count::MALFORMED)?,
        protocol: u32::from(packet.protocol) | Exchange::FRAGMENTS,
    })
}

/// The flow that an ICMP error is about, by the packet that it quotes: one of the machine's.
#[inline(always)]
fn about(skb: Skb, packet: &Packet) -> Option<Exchange> {
    let start = packet.transport + 8;
    let (cluster, protocol, transport, source) = if packet.v4 {
        let header: Ipv4 = skb.load(start).ok()?;
        if header.version >> 4 != 4 {
            return None;
        }
        let length = u32::from(header.version & 0x0f) * 4;
        (
            Address::v4(header.destination),
            header.protocol,
            start + length,
            Address::v4(header.source),
        )
    } else {
        let header: Ipv6 = skb.load(start).ok()?;
        let cluster = Address(header.destination);
        if header.version[0] >> 4 != 6 || cluster.is_v4() {
            return None;
        }
        (cluster, header.next, start + 40, Address(header.source))
    };
    // Whom it is told to is who sent the packet.
    (source == packet.destination).then(|| Exchange {
        cluster,
        ports: ports(skb, protocol, transport),
        protocol: u32::from(protocol),
    })
}
