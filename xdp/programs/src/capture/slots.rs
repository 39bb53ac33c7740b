//! Servers and the addresses that stand for them.

use aya_ebpf::bindings::BPF_NOEXIST;
use pmz_xdp_types::Address;
use pmz_xdp_types::capture::{Config, PROBES, SLOT_NUMBERS, V4_NETWORK, first_slot};

use super::maps::SLOTS;

const V4: u32 = u32::from_ne_bytes(V4_NETWORK);
/// The bits of an address's last word that are a slot.
const SLOT_BITS: u32 = 0xffff_u32.to_be();

/// The slot of a server, which gets one where it has none. `None` where there is none left.
#[inline(always)]
pub(super) fn of(server: &Address, seed: u32) -> Option<u32> {
    let first = first_slot(server, seed);
    for probe in 0..PROBES {
        let slot = (first + probe) % SLOT_NUMBERS;
        // Another CPU may take it between the look and the taking.
        for _ in 0..2 {
            // SAFETY: elements are never changed nor removed.
            match unsafe { SLOTS.get(slot) } {
                Some(taken) if is(taken, server) => return Some(slot),
                Some(_) => break,
                None if SLOTS.insert(slot, server, u64::from(BPF_NOEXIST)).is_ok() => {
                    return Some(slot);
                }
                None => {}
            }
        }
    }
    None
}

/// The server of a slot.
#[inline(always)]
pub(super) fn server(slot: u32) -> Option<Address> {
    // SAFETY: elements are never changed nor removed.
    unsafe { SLOTS.get(slot) }.copied()
}

/// What stands for a slot in IPv4.
#[inline(always)]
pub(super) fn v4(slot: u32) -> u32 {
    V4 | slot.to_be()
}

/// The slot that an IPv4 address stands for.
#[inline(always)]
pub(super) fn of_v4(address: u32) -> Option<u32> {
    (address & !SLOT_BITS == V4).then_some(u32::from_be(address & SLOT_BITS))
}

/// What stands for a slot in IPv6. `None` where nothing does.
#[inline(always)]
pub(super) fn v6(config: &Config, slot: u32) -> Option<Address> {
    let network = &config.v6_network.0;
    (network[0] != 0).then(|| {
        Address([
            network[0],
            network[1],
            network[2],
            network[3] | slot.to_be(),
        ])
    })
}

/// The slot that an IPv6 address stands for.
#[inline(always)]
pub(super) fn of_v6(config: &Config, address: &Address) -> Option<u32> {
    let network = &config.v6_network.0;
    let inside = network[0] != 0
        && address.0[0] == network[0]
        && address.0[1] == network[1]
        && address.0[2] == network[2]
        && address.0[3] & !SLOT_BITS == network[3];
    inside.then_some(u32::from_be(address.0[3] & SLOT_BITS))
}

/// Not by `==`, which is a call of `bcmp`.
#[inline(always)]
fn is(a: &Address, b: &Address) -> bool {
    a.0[0] == b.0[0] && a.0[1] == b.0[1] && a.0[2] == b.0[2] && a.0[3] == b.0[3]
}
