//! Routing tables that every machine has (linux/rtnetlink.h, rt_class_t).

/// The main routing table.
pub(super) const MAIN: u32 = libc::RT_TABLE_MAIN as u32;
/// The kernel's own table of this machine's addresses.
pub(super) const LOCAL: u32 = libc::RT_TABLE_LOCAL as u32;
