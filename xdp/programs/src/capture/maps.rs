//! What these programs go by.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap};
use pmz_xdp_types::Address;
use pmz_xdp_types::capture::{Config, MAX_SERVERS, MAX_SLOTS};

#[map(name = "PMZ_DNS_CONFIG")]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

#[map(name = "PMZ_DNS_NETNS")]
pub(super) static NETNS: Array<u64> = Array::with_max_entries(1, 0);

#[map(name = "PMZ_DNS_OWN")]
pub(super) static OWN: Array<u32> = Array::with_max_entries(1, 0);

#[map(name = "PMZ_DNS_SLOTS")]
pub(super) static SLOTS: HashMap<u32, Address> =
    HashMap::with_max_entries(MAX_SLOTS, BPF_F_NO_PREALLOC);

#[map(name = "PMZ_DNS_SERVERS")]
pub(super) static SERVERS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(MAX_SERVERS, 0);

#[inline(always)]
pub(super) fn config() -> Option<&'static Config> {
    CONFIG.get(0)
}
