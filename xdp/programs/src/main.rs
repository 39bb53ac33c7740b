//! pmz's eBPF programs. Each file has one subject; a program's entry point stands in the file of its name.
//!
//! At the TUN, packets are read and changed by the kernel's helpers only, never through pointers into them: a packet
//! may lie in fragments, be shared, or have its headers anywhere, and helpers know it; and there is no length that
//! an old kernel's verifier could lose track of. XDP has such helpers from Linux 5.18 on, so that there the guard has a
//! twin for older ones.

#![no_std]
#![no_main]

mod capture;
mod count;
mod divert;
mod exchange;
mod guard;
mod maps;
mod packet;
mod refuse;
mod returning;
mod skb;
mod steer;
mod translate;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// No helper that is used asks for more (`gpl_only` in the kernel's sources).
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
