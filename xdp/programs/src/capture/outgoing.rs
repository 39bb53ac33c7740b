//! Queries on their way out.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use pmz_xdp_types::Address;
use pmz_xdp_types::capture::{Config, DNS_PORT};

use super::maps::{NETNS, OWN, SERVERS, config};
use super::slots;
use super::socket::{Call, Transport, process};

/// What the kernel wants: the call is let through, or fails with EPERM.
const PASS: i32 = 1;
const REFUSE: i32 = 0;

const PORT: u32 = DNS_PORT.to_be() as u32;

#[cgroup_sock_addr(connect4)]
pub(crate) fn pmz_connect4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(&ctx);
    if is_knock(call) {
        return REFUSE;
    }
    lead_v4(call);
    PASS
}

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn pmz_sendmsg4(ctx: SockAddrContext) -> i32 {
    lead_v4(Call::new(&ctx));
    PASS
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn pmz_connect6(ctx: SockAddrContext) -> i32 {
    lead_v6(Call::new(&ctx));
    PASS
}

/// What goes to an IPv4-mapped address passes `pmz_sendmsg4`.
#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn pmz_sendmsg6(ctx: SockAddrContext) -> i32 {
    lead_v6(Call::new(&ctx));
    PASS
}

/// Who knows the address and the ports has them from the loader. It learns so of its own network namespace, and our
/// server's process, as these programs see them: kernels before 5.14 tell nobody else the one, and a process namespace
/// hides the other.
#[inline(always)]
fn is_knock(call: Call) -> bool {
    let Some(config) = config() else {
        return false;
    };
    if call.v4() != config.knock_address || config.knock_address == 0 {
        return false;
    }
    let port = call.port();
    if port == config.knock_netns {
        if let Some(netns) = NETNS.get_ptr_mut(0) {
            // SAFETY: a word that lives as long as the map.
            unsafe { *netns = call.netns_cookie() };
        }
        return true;
    }
    if port == config.knock_own {
        if let Some(own) = OWN.get_ptr_mut(0) {
            // SAFETY: a word that lives as long as the map.
            unsafe { *own = process() };
        }
        return true;
    }
    false
}

/// Whether the call is a query that is to be caught, and by which transport it comes.
#[inline(always)]
fn caught(call: Call) -> Option<(Transport, &'static Config)> {
    if call.port() != PORT {
        return None;
    }
    let netns = *NETNS.get(0)?;
    if netns == 0 || call.netns_cookie() != netns {
        return None;
    }
    let transport = call.transport()?;
    let process = process();
    if *OWN.get(0)? == process || SERVERS.get_ptr(process).is_some() || call.is_bound_to_device() {
        return None;
    }
    Some((transport, config()?))
}

#[inline(always)]
fn lead_v4(call: Call) {
    let Some((transport, config)) = caught(call) else {
        return;
    };
    let Some(address) = stand_in_v4(call.v4(), config) else {
        return;
    };
    call.set_v4(address);
    call.set_port(transport.of(&config.v4_ports));
}

#[inline(always)]
fn lead_v6(call: Call) {
    let Some((transport, config)) = caught(call) else {
        return;
    };
    let server = call.v6();
    if server.is_v4() {
        let Some(address) = stand_in_v4(server.0[3], config) else {
            return;
        };
        call.set_v6(&Address::v4(address));
        call.set_port(transport.of(&config.v4_ports));
        return;
    }
    // A link-local server needs its interface, which these programs don't see.
    let first = u32::from_be(server.0[0]);
    if first >> 24 == 0xff || first >> 22 == 0xfe80 >> 6 {
        return;
    }
    let Some(address) = slots::of(&server, config.seed).and_then(|slot| slots::v6(config, slot))
    else {
        return;
    };
    call.set_v6(&address);
    call.set_port(transport.of(&config.v6_ports));
}

/// What stands for an IPv4 server.
#[inline(always)]
fn stand_in_v4(server: u32, config: &Config) -> Option<u32> {
    // Multicast and broadcast.
    if u32::from_be(server) >= 0xe000_0000 {
        return None;
    }
    slots::of(&Address::v4(server), config.seed).map(slots::v4)
}
