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

/// netdevice(7), SIOCGIFHWADDR.
fn kind(device: &str) -> Result<u16, GuardError> {
    let unknown = || GuardError::Ebpf(SteerError::NoDevice(device.to_owned()));
    // SAFETY: plain data, of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = device.as_bytes();
    // One byte stays zero and ends it.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(unknown());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed() as libc::c_char;
    }
    let socket = UdpSocket::bind(("127.0.0.1", 0))
        .or_else(|_| UdpSocket::bind(("::1", 0)))
        .map_err(|error| failed(device, &error))?;
    // SAFETY: the descriptor is open, and the kernel writes within the structure.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) };
    if result < 0 {
        let error = io::Error::last_os_error();
        return Err(match error.raw_os_error() {
            Some(libc::ENODEV) => unknown(),
            _ => failed(device, &error),
        });
    }
    // SAFETY: that request fills this part of the union.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

fn failed(device: &str, error: &io::Error) -> GuardError {
    GuardError::Ebpf(SteerError::attaching(device, error))
}
