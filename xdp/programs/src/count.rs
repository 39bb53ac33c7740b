//! Counters. They are per CPU and programs of this kind are not interrupted by one another on it, so that plain
//! additions lose nothing.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use pmz_xdp_types::{Address, Flow, MAX_STRANGERS, Prefix, Traffic, count};

use crate::maps::{COUNTS, FLOWS, PREFIX_VOLUMES, STRANGERS, TRAFFIC};
use crate::packet::{ICMP, ICMPV6, Packet, Part, TCP, Tcp, UDP, UDP_LITE};
use crate::skb::Skb;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Sent,
    Received,
}

/// Counts an event of [`count`].
#[inline(always)]
pub(crate) fn event(reason: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(reason) {
        // SAFETY: a value of this CPU's, which lives as long as the map.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet that passes: for its prefix, where there is one, and for `address`.
#[inline(always)]
pub(crate) fn passed(
    skb: Skb,
    packet: &Packet,
    way: Way,
    prefix: Option<&Prefix>,
    address: &Address,
    known: bool,
) {
    let packets = packets(skb, packet);
    let bytes = u64::from(packet.len(skb));
    if let Some(prefix) = prefix
        && let Some(volume) = PREFIX_VOLUMES.get_ptr_mut(prefix.index)
    {
        // SAFETY: a value of this CPU's, which lives as long as the map.
        unsafe {
            match way {
                Way::Sent => {
                    (*volume).sent_packets += packets;
                    (*volume).sent_bytes += bytes;
                }
                Way::Received => {
                    (*volume).received_packets += packets;
                    (*volume).received_bytes += bytes;
                }
            }
        }
    }
    let begun = way == Way::Sent && begins_flow(skb, packet);
    // SAFETY: the kernel keeps the element's memory until the program has ended.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(traffic) = traffic(address, known) else {
        event(count::UNTRACKED);
        return;
    };
    // SAFETY: a value of this CPU's; the kernel keeps an element's memory until the program has ended.
    unsafe {
        let volume = &mut (*traffic).volume;
        match way {
            Way::Sent => {
                volume.sent_packets += packets;
                volume.sent_bytes += bytes;
            }
            Way::Received => {
                volume.received_packets += packets;
                volume.received_bytes += bytes;
            }
        }
        (*traffic).flows += u64::from(begun);
        (*traffic).last = now;
    }
}

/// The entry of an address, made where it is missing and there is room.
#[inline(always)]
fn traffic(address: &Address, known: bool) -> Option<*mut Traffic> {
    if let Some(traffic) = TRAFFIC.get_ptr_mut(address) {
        return Some(traffic);
    }
    let strangers = STRANGERS.get_ptr_mut(0)?;
    // SAFETY: a value that lives as long as the map.
    if !known && unsafe { *strangers } >= MAX_STRANGERS {
        return None;
    }
    const EMPTY: Traffic = Traffic {
        volume: pmz_xdp_types::Volume {
            sent_packets: 0,
            sent_bytes: 0,
            received_packets: 0,
            received_bytes: 0,
        },
        flows: 0,
        last: 0,
    };
    // Another CPU may have been faster, and its entry is as good. Or there is no memory: what programs may take is filled
    // up by the kernel a moment later.
    let made = TRAFFIC.insert(address, &EMPTY, u64::from(BPF_NOEXIST));
    if made.is_ok() && !known {
        // SAFETY: as above. Two CPUs at once may count one for two, so that the limit is exceeded by as many as that
        // happens: it is half of the map.
        unsafe { *strangers += 1 };
    }
    TRAFFIC.get_ptr_mut(address)
}

/// The packets that it stands for.
#[inline(always)]
fn packets(skb: Skb, packet: &Packet) -> u64 {
    let segments = skb.gso_segments();
    if segments != 0 {
        return u64::from(segments);
    }
    let size = skb.gso_size();
    if size == 0 {
        return 1;
    }
    // What came from a TUN is not counted yet (SKB_GSO_DODGY).
    let header = match packet.protocol {
        TCP => skb
            .load::<u8>(packet.transport + 12)
            .map_or(20, |offset| u32::from(offset >> 4) * 4),
        _ => 8,
    };
    let payload = skb.len().wrapping_sub(packet.transport + header);
    u64::from(payload.div_ceil(size).max(1))
}

/// Whether the packet is the first of a flow: a SYN, or UDP or an echo that has not been seen lately.
#[inline(always)]
fn begins_flow(skb: Skb, packet: &Packet) -> bool {
    if packet.part == Part::Later {
        return false;
    }
    let mut flow = Flow {
        source: packet.source,
        destination: packet.destination,
        ports: 0,
        sequence: 0,
        protocol: u32::from(packet.protocol),
    };
    match packet.protocol {
        TCP => {
            // Most packets are answered here.
            let Ok(flags) = skb.load::<u8>(packet.transport + 13) else {
                return false;
            };
            if flags & (Tcp::SYN | Tcp::ACK) != Tcp::SYN {
                return false;
            }
            let Ok([ports, sequence]) = skb.load::<[u32; 2]>(packet.transport) else {
                return false;
            };
            flow.ports = ports;
            flow.sequence = sequence;
        }
        UDP | UDP_LITE => {
            let Ok(ports) = skb.load::<u32>(packet.transport) else {
                return false;
            };
            flow.ports = ports;
        }
        ICMP | ICMPV6 => {
            let Ok([head, id]) = skb.load::<[u32; 2]>(packet.transport) else {
                return false;
            };
            let request = if packet.v4 { 8 } else { 128 };
            if head.to_ne_bytes()[0] != request {
                return false;
            }
            let [a, b, ..] = id.to_ne_bytes();
            flow.ports = u32::from(u16::from_ne_bytes([a, b]));
        }
        _ => return false,
    }
    // Only looking keeps the entry young, and costs no lock.
    if FLOWS.get_ptr(&flow).is_some() {
        return false;
    }
    FLOWS.insert(&flow, &0, u64::from(BPF_NOEXIST)).is_ok()
}
