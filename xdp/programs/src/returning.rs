//! `pmz_return`: what arrives at the machine by this device. What comes from an address with a stand-in gets
//! that as its source; all of it is counted, and passes.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use pmz_xdp_types::{ANSWER_MARK, Prefix, count};

use crate::count::Way;
use crate::maps::{ORIGINS, TARGETS, link_header};
use crate::packet::Packet;
use crate::skb::Skb;
use crate::steer::prefix;
use crate::translate::Field;
use crate::{count as counters, packet, translate};

#[classifier]
pub(crate) fn pmz_return(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if skb.mark() == ANSWER_MARK {
        skb.set_mark(0);
        return TC_ACT_UNSPEC;
    }
    match returning(skb) {
        Ok(()) => TC_ACT_UNSPEC,
        Err(reason) => {
            counters::event(reason);
            TC_ACT_SHOT as i32
        }
    }
}

/// # Errors
/// The reason ([`count`]) for which the packet is dropped.
#[inline(always)]
fn returning(skb: Skb) -> Result<(), u32> {
    let packet = packet::parse(skb, link_header())?;
    // SAFETY: the kernel keeps an element's memory until the program has ended, and user space replaces
    // elements of such a map as a whole.
    let used = unsafe { ORIGINS.get(packet.source) }.copied();
    let address = used.unwrap_or(packet.source);
    let prefix = prefix(&address).filter(|prefix| prefix.kind != Prefix::EXCLUDED);
    quoted(skb, &packet)?;
    if let Some(used) = used {
        translate::header(skb, &packet, Field::Source, &packet.source, &used)
            .map_err(|_| count::FAILED)?;
    }
    // What is outside of all prefixes is nobody's traffic, and would fill the map with addresses that the
    // other end chooses.
    if prefix.is_some() {
        // SAFETY: only whether there is one is asked.
        let known = used.is_some() || unsafe { TARGETS.get(address) }.is_some();
        counters::passed(skb, &packet, Way::Received, prefix, &address, known);
    }
    Ok(())
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
