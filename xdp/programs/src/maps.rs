//! The maps. Hashes are allocated as they fill, except for the one that forgets by itself.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap};
use pmz_xdp_types::{
    Address, Config, Divert, Diverted, Exchange, Flow, MAX_CARRIERS, MAX_DIVERTED, MAX_DIVERTS,
    MAX_FLOWS, MAX_TARGETS, PREFIX_SLOTS, Prefix, Target, Traffic, Volume, count,
};

/// Bytes before the IP header. Set by the loader, and so a constant to the verifier.
#[unsafe(no_mangle)]
static PMZ_LINK_HEADER: Global<u32> = Global::new(0);

/// Bytes before the IP header.
#[inline(always)]
pub(crate) fn link_header() -> u32 {
    PMZ_LINK_HEADER.load()
}

#[map(name = "PMZ_CONFIG")]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map(name = "PMZ_PREFIXES")]
pub(crate) static PREFIXES: LpmTrie<Address, Prefix> =
    LpmTrie::with_max_entries(PREFIX_SLOTS + 1, 0);

#[map(name = "PMZ_PREFIX_VOL")]
pub(crate) static PREFIX_VOLUMES: PerCpuArray<Volume> =
    PerCpuArray::with_max_entries(PREFIX_SLOTS, 0);

#[map(name = "PMZ_TARGETS")]
pub(crate) static TARGETS: HashMap<Address, Target> =
    HashMap::with_max_entries(MAX_TARGETS, BPF_F_NO_PREALLOC);

#[map(name = "PMZ_ORIGINS")]
pub(crate) static ORIGINS: HashMap<Address, Address> =
    HashMap::with_max_entries(MAX_TARGETS, BPF_F_NO_PREALLOC);

#[map(name = "PMZ_TRAFFIC")]
pub(crate) static TRAFFIC: PerCpuHashMap<Address, Traffic> =
    PerCpuHashMap::with_max_entries(MAX_TARGETS, BPF_F_NO_PREALLOC);

#[map(name = "PMZ_FLOWS")]
pub(crate) static FLOWS: LruHashMap<Flow, u32> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

#[map(name = "PMZ_COUNTS")]
pub(crate) static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(count::LEN, 0);

#[map(name = "PMZ_STRANGERS")]
pub(crate) static STRANGERS: Array<u64> = Array::with_max_entries(1, 0);

#[map(name = "PMZ_DIVERTS")]
pub(crate) static DIVERTS: HashMap<u32, Divert> =
    HashMap::with_max_entries(MAX_DIVERTS, BPF_F_NO_PREALLOC);

#[map(name = "PMZ_DIVERTED")]
pub(crate) static DIVERTED: LruHashMap<Exchange, Diverted> =
    LruHashMap::with_max_entries(MAX_DIVERTED, 0);

#[map(name = "PMZ_CARRIERS")]
pub(crate) static CARRIERS: HashMap<u64, u32> =
    HashMap::with_max_entries(MAX_CARRIERS, BPF_F_NO_PREALLOC);
