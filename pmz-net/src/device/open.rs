//! Opening a TUN. The descriptor is all there is: the device, its addresses and its routes go when the last
//! copy of it closes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tun_rs::DeviceBuilder;

const NODE: &str = "/dev/net/tun";

/// What the kernel hands over, and takes, in one piece. All kernels that pmz knows do the first three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads {
    /// Packets may leave their transport checksum to the other side.
    pub checksum: bool,
    /// TCP super-packets, IPv4 and IPv6.
    pub tso: bool,
    /// Also those whose first segment carries CWR.
    pub tso_ecn: bool,
    /// UDP super-packets (Linux 6.2).
    pub uso: bool,
}

/// A TUN, opened with `IFF_NO_PI` and `IFF_VNET_HDR`: a virtio-net header stands before each packet.
#[derive(Debug)]
pub struct OpenTun {
    /// The device's only descriptor.
    pub fd: OwnedFd,
    /// Its name, in the namespace where it was opened.
    pub name: String,
    /// Its index there.
    pub index: u32,
    /// What it does in one piece.
    pub offloads: Offloads,
}

/// Why there is no TUN.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The device node is missing.
    #[error("{NODE} does not exist")]
    Missing,
    /// There is a node, but no right to it (or none to make devices).
    #[error("no permission to open a TUN by {NODE}")]
    Permission(#[source] io::Error),
    /// A device of this name is there already.
    #[error("a device called {0} already exists")]
    Busy(String),
    /// Anything else.
    #[error("open a TUN by {NODE}: {0}")]
    Io(#[from] io::Error),
}

/// Opens a new TUN, still down, in the calling thread's network namespace.
///
/// `name` may hold one `%d`, which the kernel replaces by the first free number.
///
/// # Errors
/// See [`OpenError`].
pub fn open_tun(name: &str) -> Result<OpenTun, OpenError> {
    // tun-rs would make the node, which would be there still when pmz has gone.
    if !Path::new(NODE).exists() {
        return Err(OpenError::Missing);
    }
    let device = DeviceBuilder::new()
        .name(name)
        .enable(false)
        .with(|options| {
            options.offload(true);
        })
        .build_sync()
        .map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => OpenError::Permission(error),
            Some(libc::EBUSY) => OpenError::Busy(name.to_owned()),
            // The driver is not there, though the node is.
            Some(libc::ENODEV | libc::ENXIO) => OpenError::Missing,
            _ => OpenError::Io(error),
        })?;
    let name = device.name()?;
    let index = device.if_index()?;
    let uso = device.udp_gso();
    // SAFETY: `into_raw_fd` gives the only owner of the descriptor away.
    let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
    let tso_ecn = allow_ecn(&fd, uso);
    Ok(OpenTun {
        fd,
        name,
        index,
        offloads: Offloads {
            checksum: true,
            tso: true,
            tso_ecn,
            uso,
        },
    })
}

/// Turns TSO with ECN on beside what tun-rs has turned on; without it, the kernel would cut every
/// super-packet of an ECN connection that carries CWR by itself.
fn allow_ecn(fd: &OwnedFd, uso: bool) -> bool {
    let mut flags = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    if uso {
        flags |= libc::TUN_F_USO4 | libc::TUN_F_USO6;
    }
    // SAFETY: the descriptor is a TUN's, and TUNSETOFFLOAD takes its flags by value.
    unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, flags as libc::c_ulong) == 0 }
}

/// What `TUNGETIFF` says about a descriptor: the device's name, where it is a TUN with `IFF_NO_PI` and
/// `IFF_VNET_HDR`. Who is handed a descriptor by somebody else can check with it what it is.
///
/// # Errors
/// When the descriptor is no TUN, or is framed in another way.
pub fn tun_name(fd: BorrowedFd<'_>) -> io::Result<String> {
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF writes an `ifreq` to the pointer, which is one and lives through the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TUNGETIFF fills in the flags' part of the union.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    if flags & libc::IFF_TUN == 0 || flags & libc::IFF_VNET_HDR == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a TUN with virtio-net headers",
        ));
    }
    let name = request
        .ifr_name
        .iter()
        .take_while(|c| **c != 0)
        .map(|c| c.cast_unsigned())
        .collect();
    String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData.into())
}
