//! What an interface's frames look like.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use super::GuardError;
use crate::steer::SteerError;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: u32 = 14;
/// A frame begins with its IP header.
pub(super) const PLAIN: u32 = 0;

/// PPP's header is taken off before XDP, as its driver takes frames for plain IP.
const RAW_IP: u16 = 519;

/// Bytes before the IP header on the interface of this name, in the calling thread's network namespace.
pub(super) fn header(device: &str) -> Result<u32, GuardError> {
    match kind(device)? {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(ETHERNET),
        libc::ARPHRD_NONE | RAW_IP => Ok(PLAIN),
        kind => Err(GuardError::Link {
            device: device.to_owned(),
            kind,
        }),
    }
}

/// Whether the interface is one end of a veth pair, which is what a pod has.
///
/// With a native program at one end, the kernel cuts super-packets before they enter the pair (`veth_fix_features` in
/// drivers/net/veth.c), which costs the tunnel, and everything else on the interface, more than junk does.
pub(super) fn is_veth(device: &str) -> bool {
    // linux/ethtool.h: ETHTOOL_GDRVINFO, `struct ethtool_drvinfo`, and where the driver's name stands in it.
    const COMMAND: u32 = 3;
    const SIZE: usize = 196;
    const DRIVER: std::ops::Range<usize> = 4..36;
    let mut info = [0_u8; SIZE];
    info[..4].copy_from_slice(&COMMAND.to_ne_bytes());
    let Ok(mut request) = named(device) else {
        return false;
    };
    request.ifr_ifru.ifru_data = info.as_mut_ptr().cast();
    // Who can't tell is none.
    ask(device, libc::SIOCETHTOOL, &mut request).is_ok() && info[DRIVER].starts_with(b"veth\0")
}

/// The interface's type (linux/if_arp.h), by netdevice(7), SIOCGIFHWADDR.
pub(crate) fn kind(device: &str) -> Result<u16, GuardError> {
    let mut request = named(device)?;
    ask(device, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: that request fills this part of the union.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// A request about the interface of this name.
fn named(device: &str) -> Result<libc::ifreq, GuardError> {
    // SAFETY: plain data, of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = device.as_bytes();
    // One byte stays zero and ends it.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(unknown(device));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed() as libc::c_char;
    }
    Ok(request)
}

fn ask(device: &str, what: libc::Ioctl, request: &mut libc::ifreq) -> Result<(), GuardError> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| UdpSocket::bind(("::1", 0)))
        .map_err(|error| failed(device, &error))?;
    // SAFETY: the descriptor is open, and the kernel writes within the structure, and within what it points to where
    // that is part of the request.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, request) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENODEV) => unknown(device),
            _ => failed(device, &error),
        });
    }
    Ok(())
}

fn unknown(device: &str) -> GuardError {
    GuardError::Ebpf(SteerError::NoDevice(device.to_owned()))
}

fn failed(device: &str, error: &io::Error) -> GuardError {
    GuardError::Ebpf(SteerError::attaching(device, error))
}
