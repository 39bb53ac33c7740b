//! An open TUN.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A TUN with IFF_VNET_HDR, as a descriptor: closing the last copy takes the device away, with its
/// addresses and routes.
pub struct Tun {
    fd: OwnedFd,
}

impl Tun {
    /// Takes the descriptor of a TUN opened with IFF_VNET_HDR; it becomes non-blocking.
    ///
    /// # Errors
    /// Where the descriptor's flags can't be set.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { fd })
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// `WouldBlock` where none is there; else as read(2).
    pub fn recv(&self, frame: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.fd, frame)?)
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// As write(2): `InvalidInput` for what is no packet, `Other` (EIO) while the device is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        nix::unistd::write(&self.fd, frame)?;
        Ok(())
    }

    /// As [`Tun::send`], of a frame in pieces.
    ///
    /// # Errors
    /// As there.
    pub fn send_gathered(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        nix::sys::uio::writev(&self.fd, pieces)?;
        Ok(())
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::fmt::Debug for Tun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tun({})", self.fd.as_raw_fd())
    }
}
