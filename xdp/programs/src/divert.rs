//! `pmz_divert`: what leaves the machine by another device than the TUN, because a rule or a narrower route leads it
//! there. What a steered prefix holds gets the tunnel's source address and goes to the TUN, whose own programs do
//! the rest; all else passes. The way back is in [`crate::exchange`], a part of `pmz_return`.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use pmz_xdp_types::{Address, DIVERT_MARK, Divert, Diverted, Prefix, count};

use crate::count as counters;
use crate::exchange::{is_icmp_error, now, remember, verdict};
use crate::maps::{CARRIERS, DIVERTS};
use crate::packet::{Packet, Part, TCP, UDP};
use crate::skb::Skb;
use crate::steer::prefix;
use crate::translate::Field;
use crate::{packet, refuse, translate};

/// Source and destination, before the type.
const MAC: u32 = 6;

#[classifier]
pub(crate) fn pmz_divert(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match divert(skb) {
        Ok(verdict) => verdict,
        Err(reason) => {
            counters::event(reason);
            TC_ACT_SHOT as i32
        }
    }
}

/// The verdict, or the reason ([`count`]) for which the packet is dropped.
#[inline(always)]
fn divert(skb: Skb) -> Result<i32, u32> {
    // SAFETY: the kernel keeps an element's memory until the program has ended, and user space replaces
    // elements of such a map as a whole.
    let Some(place) = (unsafe { DIVERTS.get(skb.device()) }) else {
        return Ok(TC_ACT_UNSPEC);
    };
    let now = now();
    if now >= place.until {
        return Ok(TC_ACT_UNSPEC);
    }
    // What is none of ours to understand is none of ours to drop.
    let Ok(packet) = packet::parse(skb, place.header) else {
        return Ok(TC_ACT_UNSPEC);
    };
    let steered = prefix(&packet.destination).is_some_and(|it| it.kind != Prefix::EXCLUDED);
    let tunnel = if packet.v4 { place.v4 } else { place.v6 };
    if !steered || tunnel == Address([0; 4]) || is_carrier(skb, &packet) {
        return Ok(TC_ACT_UNSPEC);
    }
    if largest(skb, &packet) > place.mtu {
        refuse::too_big(skb, &packet, place.mtu)?;
        return turned_back(skb, place, count::TOO_BIG);
    }
    if packet.part == Part::First {
        if is_icmp_error(skb, &packet) {
            quoted(skb, &packet, &tunnel)?;
        } else if !remember(skb, &packet, origin(skb, &packet, place, now)?)? {
            refuse::refusal(skb, &packet)?;
            return turned_back(skb, place, count::COLLIDED);
        }
    }
    if packet.source != tunnel {
        translate::header(skb, &packet, Field::Source, &packet.source, &tunnel)
            .map_err(|_| count::FAILED)?;
    }
    skb.set_mark(DIVERT_MARK);
    verdict(skb.leave_by(place.tun))
}

/// The tunnel's own datagrams.
#[inline(always)]
fn is_carrier(skb: Skb, packet: &Packet) -> bool {
    if packet.protocol != UDP {
        return false;
    }
    // SAFETY: only whether there is one is asked.
    unsafe { CARRIERS.get(skb.socket()) }.is_some()
}

/// The bytes of the largest packet that this becomes.
#[inline(always)]
fn largest(skb: Skb, packet: &Packet) -> u32 {
    let size = skb.gso_size();
    if size == 0 {
        return packet.len(skb);
    }
    let header = match packet.protocol {
        TCP => skb
            .load::<u8>(packet.transport + 12)
            .map_or(20, |offset| u32::from(offset >> 4) * 4),
        _ => 8,
    };
    packet.transport - packet.start + header + size
}

/// An answer goes to the device's own address.
#[inline(always)]
fn turned_back(skb: Skb, place: &Divert, reason: u32) -> Result<i32, u32> {
    if place.link == Divert::ETHERNET {
        let own: [u16; 3] = skb.load(MAC).map_err(|_| count::FAILED)?;
        skb.store(0, &own).map_err(|_| count::FAILED)?;
    }
    if place.link == Divert::ONE_WAY {
        return Err(reason);
    }
    counters::event(reason);
    refuse::turned_back(skb)
}

/// An error about a packet that came back out of the tunnel quotes it with the address that was put in.
#[inline(always)]
fn quoted(skb: Skb, packet: &Packet, tunnel: &Address) -> Result<(), u32> {
    match translate::quoted(skb, packet, Field::Destination) {
        Some(to) if to == packet.source => {
            translate::quotation(skb, packet, Field::Destination, &to, tunnel)
                .map_err(|_| count::FAILED)
        }
        _ => Ok(()),
    }
}

/// Where a diverted flow is from.
#[inline(always)]
fn origin(skb: Skb, packet: &Packet, place: &Divert, now: u64) -> Result<Diverted, u32> {
    let mut flow = Diverted {
        source: packet.source,
        last: now,
        device: skb.device(),
        link: place.link,
        mac: 0,
    };
    if place.link == Divert::ETHERNET {
        let [a, b, c, d, e, f]: [u8; 6] = skb.load(MAC).map_err(|_| count::FAILED)?;
        flow.mac = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
    }
    Ok(flow)
}
