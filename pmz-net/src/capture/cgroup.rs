//! The root of the cgroups, version 2.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;

use super::CaptureError;

/// A descriptor of the root cgroup, as far up as this process's cgroup namespace reaches.
///
/// Where no cgroup v2 is mounted (a machine that has version 1 only), it is a mount of our own that is nowhere in the file
/// system and goes with the descriptor: every kernel has the one hierarchy of version 2, mounted or not.
///
/// # Errors
/// [`CaptureError::NoCgroup`] where the kernel has none, or lets us not.
pub fn root_cgroup() -> Result<OwnedFd, CaptureError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().find_map(root_mount);
    if let Some(root) = mounted.and_then(|path| File::open(path).ok()) {
        return Ok(root.into());
    }
    own_mount().map_err(CaptureError::NoCgroup)
}

/// Where a line of mountinfo (proc_pid_mountinfo(5)) mounts the root of cgroup v2.
fn root_mount(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, path) = (fields.next()?, fields.next()?);
    let is_root = kind.split(' ').next() == Some("cgroup2") && root == "/";
    // A path with escapes in it has nothing to do with cgroups.
    (is_root && !path.contains('\\')).then(|| PathBuf::from(path))
}

fn own_mount() -> io::Result<OwnedFd> {
    let name: &CStr = c"cgroup2";
    // SAFETY: a string that outlives the call, and flags.
    let context = descriptor(unsafe {
        libc::syscall(libc::SYS_fsopen, name.as_ptr(), libc::FSOPEN_CLOEXEC)
    })?;
    let context_fd = std::os::fd::AsRawFd::as_raw_fd(&context);
    // SAFETY: this command takes no key and no value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context_fd,
            libc::FSCONFIG_CMD_CREATE,
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_void>(),
            0,
        )
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers only.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context_fd, libc::FSMOUNT_CLOEXEC, 0) })
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the kernel has just made it for this process.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_mount_of_the_hierarchys_root_is_taken() {
        let path = |line| root_mount(line).map(|path| path.display().to_string());
        let line = "35 24 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        assert_eq!(path(line).as_deref(), Some("/sys/fs/cgroup/unified"));
        for other in [
            "35 24 0:30 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "35 24 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            "35 24 0:30 / /a\\040b rw - cgroup2 cgroup2 rw",
            "",
            " - cgroup2",
        ] {
            assert_eq!(path(other), None, "{other}");
        }
    }
}
