//! Who serves names: processes that have bound a socket to port 53.

use aya_ebpf::bindings::{BPF_ANY, bpf_sock};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use core::ptr::addr_of;
use pmz_xdp_types::capture::DNS_PORT;

use super::maps::{NETNS, SERVERS};
use super::socket::{netns_cookie_of, process};

const PASS: i32 = 1;

#[cgroup_sock(post_bind4)]
pub(crate) fn pmz_dns_bind4(ctx: SockContext) -> i32 {
    learn(&ctx);
    PASS
}

#[cgroup_sock(post_bind6)]
pub(crate) fn pmz_dns_bind6(ctx: SockContext) -> i32 {
    learn(&ctx);
    PASS
}

#[inline(always)]
fn learn(ctx: &SockContext) {
    let socket: *const bpf_sock = ctx.sock;
    // SAFETY: the context is there for as long as the program runs; the port lies in it in the machine's byte order.
    if unsafe { addr_of!((*socket).src_port).read_volatile() } != u32::from(DNS_PORT) {
        return;
    }
    let Some(netns) = NETNS.get(0) else {
        return;
    };
    if netns_cookie_of(ctx) == *netns {
        // Where there is no memory for it, its queries are caught, and forwarded as it meant them.
        let _ = SERVERS.insert(process(), 1, u64::from(BPF_ANY));
    }
}
