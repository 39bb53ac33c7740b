//! What the kernel tells of an interface: by ioctl(2), netdevice(7), and in /proc.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::{fs, io};

/// The type (linux/if_arp.h, ARPHRD_*) of the interface of this name, in the calling thread's network namespace. ENODEV
/// where there is none.
pub(crate) fn kind(name: &str) -> io::Result<u16> {
    let mut request = named(name)?;
    ask(libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: that request fills this part of the union.
    Ok(unsafe { request.ifr_ifru.ifru_hwaddr.sa_family })
}

/// Whether the interface is one end of a veth pair, which is what a pod has. One that can't tell is none.
pub(crate) fn is_veth(name: &str) -> bool {
    // linux/ethtool.h: ETHTOOL_GDRVINFO, `struct ethtool_drvinfo`, and where the driver's name stands in it.
    const COMMAND: u32 = 3;
    const SIZE: usize = 196;
    const DRIVER: std::ops::Range<usize> = 4..36;
    let mut info = [0_u8; SIZE];
    info[..4].copy_from_slice(&COMMAND.to_ne_bytes());
    let Ok(mut request) = named(name) else {
        return false;
    };
    request.ifr_ifru.ifru_data = info.as_mut_ptr().cast();
    ask(libc::SIOCETHTOOL, &mut request).is_ok() && info[DRIVER].starts_with(b"veth\0")
}

/// Packets that the kernel had for the interface of this name and could not hand over: for a TUN, those that found no
/// room before its reader. proc_pid_net(5), in the calling thread's network namespace.
///
/// # Errors
/// ENODEV where there is no such interface; else what reading the file says.
pub fn lost_on_the_way_out(name: &str) -> io::Result<u64> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    lost_of(&table, name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Eight columns of what came in, then those of what went out: bytes, packets, errors, drops.
fn lost_of(table: &str, name: &str) -> Option<u64> {
    let mut rows = table.lines().filter_map(|line| line.split_once(':'));
    let (_, counts) = rows.find(|(of, _)| of.trim() == name)?;
    counts.split_whitespace().nth(8 + 3)?.parse().ok()
}

/// A request about the interface of this name.
fn named(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: plain data, of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.as_bytes();
    // One byte stays zero and ends it.
    if bytes.is_empty() || bytes.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char;
    }
    Ok(request)
}

fn ask(what: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("::1", 0)))?;
    // SAFETY: the descriptor is open, and the kernel writes within the structure, and within what it points to where
    // that is part of the request.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_lost_on_the_way_out_is_the_twelfth_count() {
        let table = "Inter-|   Receive                                 |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls\n    \
            lo:   10 1 0 0 0 0 0 0 10 1 0 0 0 0 0 0\n  \
            pmz0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        assert_eq!(lost_of(table, "pmz0"), Some(12));
        assert_eq!(lost_of(table, "lo"), Some(0));
        assert_eq!(lost_of(table, "pmz"), None);
        assert_eq!(lost_of("pmz0: 1 2", "pmz0"), None);
        assert!(lost_on_the_way_out("lo").is_ok());
    }

    #[test]
    fn the_loopback_interface_is_known_and_no_veth() {
        assert_eq!(kind("lo").unwrap(), libc::ARPHRD_LOOPBACK);
        assert!(!is_veth("lo"));
    }

    #[test]
    fn a_name_that_no_interface_has_is_no_device() {
        for name in ["", "no-such-device", "a-name-of-more-than-fifteen-letters"] {
            let error = kind(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
            assert!(!is_veth(name));
            let error = lost_on_the_way_out(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
        }
    }
}
