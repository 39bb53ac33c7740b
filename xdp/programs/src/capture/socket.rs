//! What a program at a socket sees and may change.
//!
//! The context is no memory: each access to it has to be one instruction at a fixed offset, of a width that the kernel
//! knows for that field. Volatile ones are left as they are by the compiler.

use core::ffi::c_void;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_netns_cookie};
use aya_ebpf::programs::SockAddrContext;
use pmz_xdp_types::Address;

/// IANA's numbers.
const TCP: u32 = 6;
const UDP: u32 = 17;

/// What our server tells apart by port.
#[derive(Clone, Copy)]
pub(super) struct Transport(usize);

impl Transport {
    /// Of two ports, UDP's first, the one of this transport.
    #[inline(always)]
    pub(super) fn of(self, ports: &[u32; 2]) -> u32 {
        // Not by an index, whose bounds would have to be proved.
        if self.0 == 0 { ports[0] } else { ports[1] }
    }
}

/// The address in a call, and the socket that is called upon.
#[derive(Clone, Copy)]
pub(super) struct Call(*mut bpf_sock_addr);

impl Call {
    #[inline(always)]
    pub(super) fn new(context: &SockAddrContext) -> Self {
        Self(context.sock_addr)
    }

    /// `None` for other transports than DNS has.
    #[inline(always)]
    pub(super) fn transport(self) -> Option<Transport> {
        // SAFETY: of this and all accesses below: the context is there for as long as the program runs, and the
        // kernel's verifier has looked at each.
        match unsafe { addr_of!((*self.0).protocol).read_volatile() } {
            UDP => Some(Transport(0)),
            TCP => Some(Transport(1)),
            _ => None,
        }
    }

    #[inline(always)]
    pub(super) fn port(self) -> u32 {
        // SAFETY: as above.
        unsafe { addr_of!((*self.0).user_port).read_volatile() }
    }

    #[inline(always)]
    pub(super) fn set_port(self, port: u32) {
        // SAFETY: as above.
        unsafe { addr_of_mut!((*self.0).user_port).write_volatile(port) }
    }

    /// In a program for IPv4.
    #[inline(always)]
    pub(super) fn v4(self) -> u32 {
        // SAFETY: as above.
        unsafe { addr_of!((*self.0).user_ip4).read_volatile() }
    }

    /// As [`Call::v4`].
    #[inline(always)]
    pub(super) fn set_v4(self, address: u32) {
        // SAFETY: as above.
        unsafe { addr_of_mut!((*self.0).user_ip4).write_volatile(address) }
    }

    /// In a program for IPv6.
    #[inline(always)]
    pub(super) fn v6(self) -> Address {
        let mut words = [0; 4];
        // SAFETY: as above.
        unsafe {
            words[0] = addr_of!((*self.0).user_ip6[0]).read_volatile();
            words[1] = addr_of!((*self.0).user_ip6[1]).read_volatile();
            words[2] = addr_of!((*self.0).user_ip6[2]).read_volatile();
            words[3] = addr_of!((*self.0).user_ip6[3]).read_volatile();
        }
        Address(words)
    }

    /// As [`Call::v6`].
    #[inline(always)]
    pub(super) fn set_v6(self, address: &Address) {
        // SAFETY: as above.
        unsafe {
            addr_of_mut!((*self.0).user_ip6[0]).write_volatile(address.0[0]);
            addr_of_mut!((*self.0).user_ip6[1]).write_volatile(address.0[1]);
            addr_of_mut!((*self.0).user_ip6[2]).write_volatile(address.0[2]);
            addr_of_mut!((*self.0).user_ip6[3]).write_volatile(address.0[3]);
        }
    }

    /// Whether the socket may use one device only.
    #[inline(always)]
    pub(super) fn is_bound_to_device(self) -> bool {
        // SAFETY: as above; the kernel checks the socket's pointer for null where it could be.
        unsafe {
            let socket = addr_of!((*self.0).__bindgen_anon_1.sk).read_volatile();
            !socket.is_null() && addr_of!((*socket).bound_dev_if).read_volatile() != 0
        }
    }

    #[inline(always)]
    pub(super) fn netns_cookie(self) -> u64 {
        netns_cookie(self.0.cast())
    }
}

/// Of the network namespace of a program's context.
#[inline(always)]
pub(super) fn netns_cookie(context: *mut c_void) -> u64 {
    // SAFETY: a helper that reads the context.
    unsafe { bpf_get_netns_cookie(context) }
}

/// As [`netns_cookie`].
#[inline(always)]
pub(super) fn netns_cookie_of(context: &impl EbpfContext) -> u64 {
    netns_cookie(context.as_ptr())
}

/// The calling process, by its number in the first process namespace.
#[inline(always)]
pub(super) fn process() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}
