//! A plain TUN: packets without a header before them, which the kernel has cut to the MTU.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use crate::playground::netns::NetNs;

// TUNSETIFF of linux/if_tun.h: declared with int, called with a struct ifreq.
nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// Makes a TUN in a network namespace. It is not up; it goes when the file is closed.
///
/// # Errors
/// Without /dev/net/tun, without the right to it, or if there is an interface of that name.
pub(super) fn open(netns: &NetNs, name: &str) -> io::Result<File> {
    netns.run(|| {
        // The device belongs to the namespace that its file was opened in.
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")?;
        // SAFETY: all zeros is a valid ifreq: it holds numbers and arrays of numbers only.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("interface name {name} is too long"),
            ));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open, and the request is a valid ifreq that outlives the call.
        unsafe { tun_set_iff(file.as_raw_fd(), &request) }?;
        Ok(file)
    })?
}
