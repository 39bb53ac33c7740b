//! Why there is no steering, or why a change could not be made.

use std::fs;
use std::io;
use std::net::IpAddr;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::tc::TcError;
use ipnet::IpNet;

use super::{MAX_PREFIXES, MAX_TARGETS};

/// Lines of the verifier's log that are worth showing: the last ones say what it did not like.
const LOG_LINES: usize = 12;

/// Why there is no steering, or why a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// No bpf(2).
    #[error("this kernel has no eBPF: it was built without CONFIG_BPF_SYSCALL")]
    NoBpf,
    /// The process may not load programs.
    #[error(
        "no right to load eBPF programs: that needs root, or CAP_BPF and CAP_NET_ADMIN, on older kernels also \
         CAP_PERFMON and CAP_SYS_RESOURCE ({0})"
    )]
    Permission(#[source] io::Error),
    /// The process may, the machine's policy says no.
    #[error("this kernel is locked down ({mode}) and loads no eBPF programs ({source})")]
    Lockdown {
        /// As /sys/kernel/security/lockdown has it.
        mode: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel lacks something that 5.10 has.
    #[error("this kernel ({kernel}) is too old for pmz's eBPF programs, which need 5.10: {reason}")]
    TooOld {
        /// Its release.
        kernel: String,
        /// What it lacks.
        reason: String,
    },
    /// The kernel's verifier refused a program.
    #[error(
        "the kernel's verifier rejected the program {program} ({source}); its last words: {log}"
    )]
    Rejected {
        /// As bpftool would show it.
        program: &'static str,
        /// The last lines of its log.
        log: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else on the way to a loaded program.
    #[error("load pmz's eBPF programs: {0}")]
    Load(String),
    /// There is no such device in this network namespace.
    #[error("there is no network device called {0}")]
    NoDevice(String),
    /// The programs are loaded, but don't get to the device.
    #[error("attach pmz's eBPF programs to {device}: {reason}")]
    Attach {
        /// The device.
        device: String,
        /// What the kernel said.
        reason: String,
    },
    /// More than [`MAX_PREFIXES`].
    #[error("{0} prefixes are too many to steer by: {MAX_PREFIXES} are possible")]
    TooManyPrefixes(usize),
    /// One prefix twice, which could be of two kinds.
    #[error("the prefix {0} is given twice")]
    TwicePrefix(IpNet),
    /// An IPv4-mapped IPv6 address, or a prefix of such.
    #[error("{0} is an IPv4-mapped IPv6 address, which no packet may carry: give the IPv4 address")]
    Mapped(IpAddr),
    /// An IPv4 address can't stand for an IPv6 address.
    #[error("{address} can't stand for {real}: one is IPv4, the other is IPv6")]
    Families {
        /// As this machine would use it.
        address: IpAddr,
        /// As the cluster uses it.
        real: IpAddr,
    },
    /// One address has one stand-in.
    #[error("{address} can't stand for {real}, since {by} does")]
    Taken {
        /// As this machine would use it.
        address: IpAddr,
        /// As the cluster uses it.
        real: IpAddr,
        /// What stands for it.
        by: IpAddr,
    },
    /// More than [`MAX_TARGETS`].
    #[error("no room for {address}: {MAX_TARGETS} addresses can be steered at a time")]
    Full {
        /// The first that had no room.
        address: IpAddr,
    },
    /// A map could not be read or written.
    #[error("{doing} the eBPF map {map}: {reason}")]
    Map {
        /// "read" or "write".
        doing: &'static str,
        /// Its name.
        map: &'static str,
        /// What the kernel said.
        reason: String,
    },
}

impl SteerError {
    /// The program does not get to the device, for this reason.
    pub(super) fn attach(device: &str, reason: impl std::fmt::Display) -> Self {
        Self::Attach {
            device: device.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// An error with all that stands behind it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// What an operating system's error at the bottom says.
pub(crate) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        // What aya says of netlink is transparent, and hides the error in it.
        if let Some(TcError::NetlinkError(error)) = error.downcast_ref() {
            return error.raw_os_error();
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error();
        }
        next = error.source();
    }
    None
}

impl SteerError {
    pub(crate) fn loading(error: &EbpfError) -> Self {
        Self::by_cause(os_error(error), || chain(error))
    }

    pub(crate) fn verifying(program: &'static str, error: ProgramError) -> Self {
        let cause = os_error(&error);
        match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } if !matches!(cause, Some(libc::EPERM | libc::ENOSYS)) && !too_old() => {
                let capable = holds(SYS_ADMIN) || holds(PERFMON);
                Self::rejected(program, io_error, &verifier_log.to_string(), capable)
            }
            error => Self::by_cause(cause, || chain(&error)),
        }
    }

    /// `capable` is whether the process has CAP_PERFMON. Without it, older verifiers refuse what newer ones have
    /// learnt to allow: 6.1, and not 6.12, a byte written over a number that was put aside on the stack.
    fn rejected(program: &'static str, source: io::Error, log: &str, capable: bool) -> Self {
        if !capable && source.raw_os_error() == Some(libc::EACCES) {
            let words = last_lines(log, 2);
            return Self::Permission(io::Error::new(
                source.kind(),
                format!("{source}; the kernel's verifier, of {program}: {words}"),
            ));
        }
        Self::Rejected {
            program,
            log: last_lines(log, LOG_LINES),
            source,
        }
    }

    fn by_cause(cause: Option<i32>, reason: impl FnOnce() -> String) -> Self {
        match cause {
            Some(libc::ENOSYS) => Self::NoBpf,
            Some(libc::EPERM) => {
                let source = io::Error::from_raw_os_error(libc::EPERM);
                match lockdown() {
                    Some(mode) if has_rights() => Self::Lockdown { mode, source },
                    _ => Self::Permission(source),
                }
            }
            _ if too_old() => Self::TooOld {
                kernel: kernel(),
                reason: reason(),
            },
            _ => Self::Load(reason()),
        }
    }

    pub(crate) fn attaching(device: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Attach {
            device: device.to_owned(),
            reason: chain(error),
        }
    }

    pub(crate) fn reading(map: &'static str, error: &MapError) -> Self {
        Self::Map {
            doing: "read",
            map,
            reason: chain(error),
        }
    }

    pub(crate) fn writing(map: &'static str, error: &MapError) -> Self {
        Self::Map {
            doing: "write",
            map,
            reason: chain(error),
        }
    }
}

fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|uname| uname.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn too_old() -> bool {
    release_before(&kernel(), (5, 10))
}

fn release_before(release: &str, than: (u32, u32)) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < than,
        _ => false,
    }
}

/// The mode of kernel_lockdown(7), where it is on.
fn lockdown() -> Option<String> {
    chosen_mode(&fs::read_to_string("/sys/kernel/security/lockdown").ok()?)
}

fn chosen_mode(text: &str) -> Option<String> {
    let mode = text.split_once('[')?.1.split_once(']')?.0;
    (mode != "none").then(|| mode.to_owned())
}

/// Numbers of capabilities (linux/capability.h).
const NET_ADMIN: u8 = 12;
const SYS_ADMIN: u8 = 21;
const PERFMON: u8 = 38;
const BPF: u8 = 39;

/// Whether the process has what loading and attaching need: then it is not for want of rights that it can't.
fn has_rights() -> bool {
    holds(SYS_ADMIN) || holds(NET_ADMIN) && holds(BPF)
}

/// Whether the process has this capability.
fn holds(capability: u8) -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0);
    effective & 1 << capability != 0
}

fn last_lines(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_verifiers_log_the_end_is_kept() {
        let log: String = (0..100).map(|n| format!("line {n}\n\n")).collect();
        let kept = last_lines(&log, LOG_LINES);
        assert!(
            kept.starts_with("line 88\n") && kept.ends_with("line 99"),
            "{kept}"
        );
        assert_eq!(last_lines("", LOG_LINES), "");
    }

    #[test]
    fn kernels_are_told_apart_by_major_and_minor() {
        assert!(release_before("5.4.0-150-generic", (5, 10)));
        assert!(release_before("4.19.0", (5, 10)));
        assert!(!release_before("5.10.0-30-cloud-amd64", (5, 10)));
        assert!(!release_before("6.1.0", (5, 10)));
        assert!(!release_before("unreadable", (5, 10)));
    }

    #[test]
    fn lockdown_is_on_when_another_mode_than_none_is_chosen() {
        assert_eq!(
            chosen_mode("none [integrity] confidentiality\n").unwrap(),
            "integrity"
        );
        assert_eq!(chosen_mode("[none] integrity confidentiality\n"), None);
        assert_eq!(chosen_mode(""), None);
    }

    #[test]
    fn a_rejection_that_a_capability_would_have_spared_is_one_of_rights() {
        let rejected = |code, capable| {
            let log =
                "66: (73) *(u8 *)(r10 -198) = r1\nattempt to corrupt spilled pointer on stack\n";
            SteerError::rejected(
                "pmz_steer",
                io::Error::from_raw_os_error(code),
                log,
                capable,
            )
        };
        let SteerError::Permission(source) = rejected(libc::EACCES, false) else {
            panic!("not one of rights")
        };
        assert!(source.to_string().contains("spilled pointer"), "{source}");
        for other in [rejected(libc::EACCES, true), rejected(libc::E2BIG, false)] {
            assert!(matches!(other, SteerError::Rejected { .. }), "{other}");
        }
    }

    #[test]
    fn a_missing_right_is_not_called_an_old_kernel() {
        let error = ProgramError::SyscallError(aya::sys::SyscallError {
            call: "bpf_prog_load",
            io_error: io::Error::from_raw_os_error(libc::EPERM),
        });
        assert!(matches!(
            SteerError::verifying("pmz_steer", error),
            SteerError::Permission(_) | SteerError::Lockdown { .. }
        ));
        let error = EbpfError::MapError(MapError::CreateError {
            name: "PMZ_TARGETS".into(),
            io_error: io::Error::from_raw_os_error(libc::ENOSYS),
        });
        assert!(matches!(SteerError::loading(&error), SteerError::NoBpf));
    }
}
