//! How many handshake initiations get through.

use aya_ebpf::bindings::{BPF_ANY, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use pmz_xdp_types::Address;
use pmz_xdp_types::guard::{ALL_RATE, Bucket, MAX_KNOWN, MAX_SOURCES, Rate, SOURCE_RATE, count};

#[map(name = "PMZ_GUARD_KNOWN")]
static KNOWN: HashMap<Address, u32> = HashMap::with_max_entries(MAX_KNOWN, BPF_F_NO_PREALLOC);

#[map(name = "PMZ_GUARD_SRCS")]
static SOURCES: LruHashMap<Address, Bucket> = LruHashMap::with_max_entries(MAX_SOURCES, 0);

#[map(name = "PMZ_GUARD_ALL")]
static ALL: Array<Bucket> = Array::with_max_entries(1, 0);

/// Takes `number` initiations from a prefix.
///
/// A prefix that a session's peer is heard from competes with nobody: else a flood from invented sources would keep
/// peers from renewing their sessions.
///
/// # Errors
/// The reason ([`count`]) for which they are too many.
#[inline(always)]
pub(super) fn admit(source: &Address, number: u64) -> Result<(), u32> {
    // SAFETY: it reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    match SOURCES.get_ptr_mut(source) {
        // SAFETY: the kernel keeps an element's memory until the program has ended. It may become another
        // prefix's meanwhile, which then has one initiation less or more.
        Some(bucket) => match after(SOURCE_RATE, unsafe { *bucket }, now, number) {
            // SAFETY: as above.
            Some(next) => unsafe { *bucket = next },
            None => return Err(count::SOURCE_RATE),
        },
        None => {
            let Some(next) = after(SOURCE_RATE, now, now, number) else {
                return Err(count::SOURCE_RATE);
            };
            // Where there is no memory for it, the limit for all holds alone.
            let _ = SOURCES.insert(source, next, u64::from(BPF_ANY));
        }
    }
    if KNOWN.get_ptr(source).is_some() {
        return Ok(());
    }
    let Some(bucket) = ALL.get_ptr_mut(0) else {
        return Ok(());
    };
    // SAFETY: a value that lives as long as the map.
    match after(ALL_RATE, unsafe { *bucket }, now, number) {
        Some(next) => {
            // SAFETY: as above.
            unsafe { *bucket = next };
            Ok(())
        }
        None => Err(count::ALL_RATE),
    }
}

/// What becomes of a bucket that `number` more are taken from, if it has them.
#[inline(always)]
fn after(rate: Rate, bucket: Bucket, now: u64, number: u64) -> Option<Bucket> {
    let from = if bucket > now { bucket } else { now };
    let next = from + number * rate.interval;
    (next - now <= rate.burst * rate.interval).then_some(next)
}
