//! `pmz_return`: what arrives at the machine by this device. What comes from an address with a stand-in gets
//! that as its source; all of it is counted, and passes. What answers a diverted flow goes to the device that the
//! flow was diverted from.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use pmz_xdp_types::{ANSWER_MARK, Address, Prefix, count};

use crate::count::Way;
use crate::maps::{ORIGINS, TARGETS, link_header};
use crate::packet::Packet;
use crate::skb::Skb;
use crate::steer::prefix;
use crate::translate::Field;
use crate::{count as counters, exchange, packet, translate};

#[classifier]
pub(crate) fn pmz_return(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let answer = skb.mark() == ANSWER_MARK;
    if answer {
        skb.set_mark(0);
        if !exchange::is_diverting() {
            return TC_ACT_UNSPEC;
        }
    }
    match returning(skb, answer) {
        Ok(verdict) => verdict,
        Err(reason) => {
            counters::event(reason);
            TC_ACT_SHOT as i32
        }
    }
}

/// # Errors
/// The reason ([`count`]) for which the packet is dropped.
#[inline(always)]
fn returning(skb: Skb, answer: bool) -> Result<i32, u32> {
    let packet = packet::parse(skb, link_header())?;
    let mut address = packet.source;
    if !answer {
        address = received(skb, &packet)?;
    }
    if exchange::is_diverting() {
        return exchange::back(skb, &packet, &address);
    }
    Ok(TC_ACT_UNSPEC)
}

/// Counts and translates, and gives the source as the machine uses it.
///
/// # Errors
/// As [`returning`].
#[inline(always)]
fn received(skb: Skb, packet: &Packet) -> Result<Address, u32> {
    // SAFETY: the kernel keeps an element's memory until the program has ended, and user space replaces
    // elements of such a map as a whole.
    let used = unsafe { ORIGINS.get(packet.source) }.copied();
    let address = used.unwrap_or(packet.source);
    let prefix = prefix(&address).filter(|prefix| prefix.kind != Prefix::EXCLUDED);
    quoted(skb, packet)?;
    if let Some(used) = used {
        translate::header(skb, packet, Field::Source, &packet.source, &used)
            .map_err(|_| count::FAILED)?;
    }
    // What is outside of all prefixes is nobody's traffic, and would fill the map with addresses that the
    // other end chooses.
    if prefix.is_some() {
        // SAFETY: only whether there is one is asked.
        let known = used.is_some() || unsafe { TARGETS.get(address) }.is_some();
        counters::passed(skb, packet, Way::Received, prefix, &address, known);
    }
    Ok(address)
}

/// An ICMP error from the cluster quotes a packet of the machine's, whose destination was translated. Its
/// sender may be a router on the way, so that this has nothing to do with the packet's own source.
#[inline(always)]
fn quoted(skb: Skb, packet: &Packet) -> Result<(), u32> {
    let Some(icmp_type) = packet.icmp_type(skb) else {
        return Ok(());
    };
    if !packet.is_icmp_error(icmp_type) {
        return Ok(());
    }
    let Some(real) = translate::quoted(skb, packet, Field::Destination) else {
        return Ok(());
    };
    // SAFETY: as in `returning`.
    match unsafe { ORIGINS.get(real) } {
        Some(used) => translate::quotation(skb, packet, Field::Destination, &real, used)
            .map_err(|_| count::FAILED),
        None => Ok(()),
    }
}
