//! Addresses that the kernel shows a program: where a datagram comes from, whom a socket is connected to.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use pmz_xdp_types::Address;
use pmz_xdp_types::capture::DNS_PORT;

use super::maps::{NETNS, config};
use super::slots;
use super::socket::Call;

/// These can't refuse: the kernel loads no program here that could give anything else.
const PASS: i32 = 1;

const PORT: u32 = DNS_PORT.to_be() as u32;

#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn pmz_recvmsg4(ctx: SockAddrContext) -> i32 {
    show_v4(Call::new(&ctx));
    PASS
}

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn pmz_peername4(ctx: SockAddrContext) -> i32 {
    show_v4(Call::new(&ctx));
    PASS
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn pmz_recvmsg6(ctx: SockAddrContext) -> i32 {
    show_v6(Call::new(&ctx));
    PASS
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn pmz_peername6(ctx: SockAddrContext) -> i32 {
    show_v6(Call::new(&ctx));
    PASS
}

/// Here every datagram of the machine comes by: the address, which is rarely ours, is looked at first.
#[inline(always)]
fn show_v4(call: Call) {
    let Some(slot) = slots::of_v4(call.v4()) else {
        return;
    };
    let Some(config) = config() else {
        return;
    };
    if !is_ours(call, &config.v4_ports) {
        return;
    }
    if let Some(server) = slots::server(slot) {
        call.set_v4(server.0[3]);
        call.set_port(PORT);
    }
}

#[inline(always)]
fn show_v6(call: Call) {
    let Some(config) = config() else {
        return;
    };
    let address = call.v6();
    let (slot, ports) = if address.is_v4() {
        (slots::of_v4(address.0[3]), &config.v4_ports)
    } else {
        (slots::of_v6(config, &address), &config.v6_ports)
    };
    let Some(slot) = slot else {
        return;
    };
    if !is_ours(call, ports) {
        return;
    }
    if let Some(server) = slots::server(slot) {
        call.set_v6(&Address([
            server.0[0],
            server.0[1],
            server.0[2],
            server.0[3],
        ]));
        call.set_port(PORT);
    }
}

/// Whether the address at hand is our server's, and in the network namespace whose queries are caught.
#[inline(always)]
fn is_ours(call: Call, ports: &[u32; 2]) -> bool {
    let Some(transport) = call.transport() else {
        return false;
    };
    let Some(netns) = NETNS.get(0) else {
        return false;
    };
    call.port() == transport.of(ports) && call.netns_cookie() == *netns
}
