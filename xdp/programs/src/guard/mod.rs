//! `pmz_guard`: on an interface's way in, before the tunnel's UDP socket. Datagrams to the tunnel's port that can't be
//! WireGuard are dropped and counted; all else passes untouched.

mod datagram;
mod rate;

use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_F_NO_PREALLOC,
    xdp_action::{XDP_DROP, XDP_PASS},
};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use pmz_xdp_types::guard::{COOKIE, Config, DATA, INITIATION, MAX_PEERS, RESPONSE, count};

use datagram::{Datagram, Frame};

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

/// Where frames lie in one piece, or the kernel can do with a program that sees the first one only.
#[xdp(frags)]
pub(crate) fn pmz_guard(ctx: XdpContext) -> u32 {
    guard(&ctx)
}

#[xdp]
pub(crate) fn pmz_guard_old(ctx: XdpContext) -> u32 {
    guard(&ctx)
}

#[inline(always)]
fn guard(ctx: &XdpContext) -> u32 {
    let frame = Frame::of(ctx);
    let Some(datagram) = Datagram::find(&frame, PMZ_GUARD_PORT.load()) else {
        return XDP_PASS;
    };
    match judge(&frame, &datagram) {
        Ok(()) => {
            event(count::PASSED);
            XDP_PASS
        }
        Err(reason) => {
            event(reason);
            XDP_DROP
        }
    }
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
fn judge(frame: &Frame, datagram: &Datagram) -> Result<(), u32> {
    // The shortest message of all.
    if datagram.length < DATA {
        return Err(count::LENGTH);
    }
    let flags = CONFIG.get(0).map_or(0, |config| config.flags);
    // What is not there of so long a datagram lies in another piece, or is a lie that the kernel finds out.
    let Some([kind, second, third]) = frame.read::<[u32; 3]>(datagram.start) else {
        return Ok(());
    };
    let (expected, receiver) = match u32::from_le(kind) {
        TYPE_INITIATION => (INITIATION, None),
        TYPE_RESPONSE => (RESPONSE, Some(third)),
        TYPE_COOKIE => (COOKIE, Some(second)),
        TYPE_DATA => (datagram.length, Some(second)),
        // The reserved bytes are in it.
        _ => return Err(count::KIND),
    };
    if datagram.length != expected
        && (flags & Config::JOINED == 0 || !followed(frame, datagram, expected))
    {
        return Err(count::LENGTH);
    }
    match receiver {
        Some(index) => {
            let peer = u32::from_le(index) >> 8;
            if flags & Config::ANY_RECEIVER == 0 && PEERS.get_ptr(peer).is_none() {
                return Err(count::RECEIVER);
            }
            Ok(())
        }
        None => rate::admit(&datagram.source, u64::from(datagram.length / INITIATION)),
    }
}

/// Whether another message begins behind the first one, as in a train of joined datagrams: their lengths are the first
/// one's, and the last may be shorter.
#[inline(always)]
fn followed(frame: &Frame, datagram: &Datagram, first: u32) -> bool {
    if datagram.length < first + DATA {
        return false;
    }
    frame
        .read::<u32>(datagram.start + first)
        .is_some_and(|kind| matches!(u32::from_le(kind), TYPE_INITIATION..=TYPE_DATA))
}
