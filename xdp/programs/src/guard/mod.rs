//! Datagrams to the tunnel's port that can't be WireGuard are dropped and counted. `pmz_guard` does so in a network card's
//! driver, where all else passes untouched; `pmz_guard_socket` at the tunnel's UDP socket, which sees nothing else.

mod datagram;
mod frame;
mod rate;
mod socket;

use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_F_NO_PREALLOC,
    xdp_action::{XDP_DROP, XDP_PASS},
};
use aya_ebpf::macros::{map, socket_filter, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{SkBuffContext, XdpContext};
use pmz_xdp_types::guard::{COOKIE, Config, DATA, INITIATION, MAX_PEERS, RESPONSE, count};

use datagram::Datagram;
use frame::{Frame, Piece, Pieces};
use socket::Delivered;

/// The tunnel's port. Set by the loader, and so a constant to the verifier.
#[unsafe(no_mangle)]
static PMZ_GUARD_PORT: Global<u32> = Global::new(0);

#[map(name = "PMZ_GUARD_CONF")]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map(name = "PMZ_GUARD_PEERS")]
static PEERS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_PEERS, BPF_F_NO_PREALLOC);

#[map(name = "PMZ_GUARD_CNTS")]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(count::LEN, 0);

const TYPE_INITIATION: u32 = 1;
const TYPE_RESPONSE: u32 = 2;
const TYPE_COOKIE: u32 = 3;
const TYPE_DATA: u32 = 4;

/// A frame may lie in several pieces, and need not be copied into one.
#[xdp(frags)]
pub(crate) fn pmz_guard(ctx: XdpContext) -> u32 {
    in_driver(&Pieces(&ctx))
}

#[xdp]
pub(crate) fn pmz_guard_old(ctx: XdpContext) -> u32 {
    in_driver(&Piece::of(&ctx))
}

/// Says how many bytes of the datagram the socket gets.
#[socket_filter]
pub(crate) fn pmz_guard_socket(ctx: SkBuffContext) -> i64 {
    const NOTHING: i64 = 0;
    const ALL: i64 = u32::MAX as i64;
    let delivered = Delivered(&ctx);
    match delivered.datagram() {
        Some(datagram) if !passes(&delivered, &datagram) => NOTHING,
        Some(_) | None => ALL,
    }
}

#[inline(always)]
fn in_driver(frame: &impl Frame) -> u32 {
    match Datagram::find(frame, PMZ_GUARD_PORT.load()) {
        Some(datagram) if !passes(frame, &datagram) => XDP_DROP,
        Some(_) | None => XDP_PASS,
    }
}

/// Judges, and counts what came of it.
#[inline(always)]
fn passes(frame: &impl Frame, datagram: &Datagram) -> bool {
    let verdict = judge(frame, datagram);
    event(verdict.err().unwrap_or(count::PASSED));
    verdict.is_ok()
}

/// Counts an event of [`count`].
#[inline(always)]
fn event(reason: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(reason) {
        // SAFETY: a value of this CPU's, which lives as long as the map. Programs of this kind don't interrupt one
        // another on a CPU.
        unsafe { *counter += 1 };
    }
}

/// # Errors
/// The reason ([`count`]) for which the datagram can't be WireGuard.
#[inline(always)]
fn judge(frame: &impl Frame, datagram: &Datagram) -> Result<(), u32> {
    // The shortest message of all.
    if datagram.length < DATA {
        return Err(count::LENGTH);
    }
    let flags = CONFIG.get(0).map_or(0, |config| config.flags);
    // A length that is a lie is found out behind.
    let Some([kind, second, third]) = frame.read::<[u32; 3]>(datagram.start) else {
        return Ok(());
    };
    let kind = u32::from_le(kind);
    // A receiver that is none would be a register that is not set, which the verifier lets nobody put away.
    let (expected, receiver) = match kind {
        TYPE_INITIATION => (INITIATION, 0),
        TYPE_RESPONSE => (RESPONSE, third),
        TYPE_COOKIE => (COOKIE, second),
        TYPE_DATA => (datagram.length, second),
        // The reserved bytes are in it.
        _ => return Err(count::KIND),
    };
    if datagram.length != expected
        && (flags & Config::JOINED == 0 || !followed(frame, datagram, expected))
    {
        return Err(count::LENGTH);
    }
    if kind == TYPE_INITIATION {
        return rate::admit(&datagram.source, u64::from(datagram.length / INITIATION));
    }
    let peer = u32::from_le(receiver) >> 8;
    if flags & Config::ANY_RECEIVER == 0 && PEERS.get_ptr(peer).is_none() {
        return Err(count::RECEIVER);
    }
    Ok(())
}

/// Whether another message begins behind the first one, as in a train of joined datagrams: their lengths are the first
/// one's, and the last may be shorter.
#[inline(always)]
fn followed(frame: &impl Frame, datagram: &Datagram, first: u32) -> bool {
    if datagram.length < first + DATA {
        return false;
    }
    frame
        .read::<u32>(datagram.start + first)
        .is_some_and(|kind| matches!(u32::from_le(kind), TYPE_INITIATION..=TYPE_DATA))
}
