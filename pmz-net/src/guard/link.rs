//! What an interface's frames look like.

use super::GuardError;
use crate::device::interface;
use crate::steer::SteerError;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: u32 = 14;
/// A frame begins with its IP header.
pub(super) const PLAIN: u32 = 0;

/// PPP's header is taken off before XDP, as its driver takes frames for plain IP.
const RAW_IP: u16 = 519;

/// Bytes before the IP header on the interface of this name, in the calling thread's network namespace.
pub(super) fn header(device: &str) -> Result<u32, GuardError> {
    let kind = interface::kind(device).map_err(|error| {
        GuardError::Ebpf(match error.raw_os_error() {
            Some(libc::ENODEV) => SteerError::NoDevice(device.to_owned()),
            _ => SteerError::attaching(device, &error),
        })
    })?;
    match kind {
        libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => Ok(ETHERNET),
        libc::ARPHRD_NONE | RAW_IP => Ok(PLAIN),
        kind => Err(GuardError::Link {
            device: device.to_owned(),
            kind,
        }),
    }
}
