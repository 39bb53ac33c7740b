//! `pmz_steer`: what leaves the machine by this device. What no steered prefix holds does not pass, what has no
//! taker is refused at once, and the rest is counted and, where its address is a stand-in, translated.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use pmz_xdp_types::{Address, Config, Prefix, Target, count};

use crate::count::Way;
use crate::maps::{CONFIG, PREFIXES, TARGETS, link_header};
use crate::packet::Packet;
use crate::skb::Skb;
use crate::translate::Field;
use crate::{count as counters, exchange, packet, refuse, translate};

#[classifier]
pub(crate) fn pmz_steer(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    match steer(skb) {
        Ok(verdict) => verdict,
        Err(reason) => {
            counters::event(reason);
            TC_ACT_SHOT as i32
        }
    }
}

/// The prefix that holds the address, if one does.
#[inline(always)]
pub(crate) fn prefix(address: &Address) -> Option<&'static Prefix> {
    PREFIXES
        .get(Key::new(128, *address))
        .filter(|prefix| prefix.kind != Prefix::NONE)
}

/// The verdict, or the reason ([`count`]) for which the packet is dropped.
#[inline(always)]
fn steer(skb: Skb) -> Result<i32, u32> {
    let packet = packet::parse(skb, link_header())?;
    let prefix = prefix(&packet.destination).ok_or(count::NO_PREFIX)?;
    if prefix.kind == Prefix::EXCLUDED {
        return Err(count::EXCLUDED);
    }
    // SAFETY: the kernel keeps an element's memory until the program has ended, and user space replaces
    // elements of such a map as a whole.
    let target = unsafe { TARGETS.get(packet.destination) };
    let flags = target.map_or(0, |target| target.flags);
    if flags & Target::REJECT != 0 {
        return refuse::refuse(skb, &packet, count::NO_ENDPOINTS);
    }
    if target.is_none() && prefix.kind == Prefix::SERVICES && complete() {
        return refuse::refuse(skb, &packet, count::UNKNOWN);
    }
    quoted(skb, &packet)?;
    if let Some(target) = target
        && flags & Target::REMAPPED != 0
    {
        translate::header(
            skb,
            &packet,
            Field::Destination,
            &packet.destination,
            &target.real,
        )
        .map_err(|_| count::FAILED)?;
    }
    counters::passed(
        skb,
        &packet,
        Way::Sent,
        Some(prefix),
        &packet.destination,
        target.is_some(),
    );
    if !exchange::stays_apart(skb, &packet)? {
        return Err(count::COLLIDED);
    }
    Ok(TC_ACT_UNSPEC)
}

#[inline(always)]
fn complete() -> bool {
    CONFIG
        .get(0)
        .is_some_and(|config| config.flags & Config::COMPLETE != 0)
}

/// An ICMP error to the cluster quotes a packet of the cluster's, in which the stand-in became the source.
#[inline(always)]
fn quoted(skb: Skb, packet: &Packet) -> Result<(), u32> {
    let Some(icmp_type) = packet.icmp_type(skb) else {
        return Ok(());
    };
    if !packet.is_icmp_error(icmp_type) {
        return Ok(());
    }
    let Some(used) = translate::quoted(skb, packet, Field::Source) else {
        return Ok(());
    };
    // SAFETY: as in `steer`.
    match unsafe { TARGETS.get(used) } {
        Some(target) if target.flags & Target::REMAPPED != 0 => {
            translate::quotation(skb, packet, Field::Source, &used, &target.real)
                .map_err(|_| count::FAILED)
        }
        _ => Ok(()),
    }
}
