//! A look-up as every program does it: by the C library, in a process of its own. In the daemon's own process it would
//! prove nothing: eBPF programs leave the daemon's queries alone, and the library keeps what it has read of its files.

use std::ffi::{CStr, CString, OsString};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::process::{ExitCode, Stdio};
use std::ptr;
use std::time::Duration;

use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use tokio::process::Command;
use tokio::time::timeout;

/// This program, also when its file has been replaced since.
const SELF: &str = "/proc/self/exe";
/// The hidden command.
pub(crate) const LOOKUP: &str = "lookup";

/// Why a name has no address, as far as it matters to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such name, or it has no address.
    Nothing,
    /// Nobody who was asked could say.
    NobodyKnows,
    /// The time was over.
    Late,
    /// Something else is wrong.
    Other,
}

/// The exit codes of the process that asks; 1 is what it ends with for any other reason.
const CODES: [(Why, u8); 3] = [(Why::Other, 1), (Why::Nothing, 2), (Why::NobodyKnows, 3)];

/// A name without an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoAddress {
    pub(super) why: Why,
    words: String,
}

impl NoAddress {
    fn other(words: String) -> Self {
        let why = Why::Other;
        Self { why, words }
    }

    /// Nobody has answered in time.
    pub(super) fn late(within: Duration) -> Self {
        Self {
            why: Why::Late,
            words: format!("no answer within {} s", within.as_secs()),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests(why: Why) -> Self {
        let words = "in a test".to_owned();
        Self { why, words }
    }
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// The addresses of a name, in the library's order. What it runs ends with the future.
///
/// # Errors
/// The library's words, or why it could not be asked.
pub(super) async fn look_up(name: &str, within: Duration) -> Result<Vec<IpAddr>, NoAddress> {
    let mut command = Command::new(SELF);
    let arguments = [LOOKUP, "--", name].map(OsString::from);
    command.arg0("pmz").args(arguments).stdin(Stdio::null());
    let Ok(output) = timeout(within, command.kill_on_drop(true).output()).await else {
        return Err(NoAddress::late(within));
    };
    let output =
        output.map_err(|error| NoAddress::other(format!("a process can't be started: {error}")))?;
    if !output.status.success() {
        let code = output.status.code();
        let known = CODES
            .iter()
            .find(|(_, known)| code == Some(i32::from(*known)));
        return Err(NoAddress {
            why: known.map_or(Why::Other, |(why, _)| *why),
            words: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().filter_map(|line| line.parse().ok()).collect())
}

/// What that process does: an address a line.
pub(crate) fn main(name: &str) -> ExitCode {
    match addresses(name) {
        Ok(addresses) => {
            for address in addresses {
                println!("{address}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            let code = CODES.iter().find(|(why, _)| *why == error.why);
            code.map_or(ExitCode::FAILURE, |(_, code)| ExitCode::from(*code))
        }
    }
}

/// getaddrinfo(3), which says more of what went wrong than the standard library hands on.
fn addresses(name: &str) -> Result<Vec<IpAddr>, NoAddress> {
    let name = CString::new(name).map_err(|error| NoAddress::other(error.to_string()))?;
    // SAFETY: a structure of numbers and pointers, of which all zeros say 'no hint'.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    // Each address once.
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = ptr::null_mut();
    // SAFETY: name and hints live longer than the call, which sets the list where it returns 0.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), ptr::null(), &hints, &mut list) };
    if code != 0 {
        return Err(no_address(code));
    }
    let mut found = Vec::new();
    let mut next: *const libc::addrinfo = list;
    // SAFETY: each entry of the list is one that the library has made, and leads to another or to none.
    while let Some(entry) = unsafe { next.as_ref() } {
        // SAFETY: as the library has made it, the address has that length, which says of which family it is.
        let address = unsafe { SockaddrStorage::from_raw(entry.ai_addr, Some(entry.ai_addrlen)) };
        found.extend(address.as_ref().and_then(ip));
        next = entry.ai_next;
    }
    // SAFETY: the list is the library's, and nobody uses it any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
}

fn no_address(code: libc::c_int) -> NoAddress {
    let why = match code {
        libc::EAI_NONAME | libc::EAI_NODATA => Why::Nothing,
        libc::EAI_AGAIN => Why::NobodyKnows,
        _ => Why::Other,
    };
    let words = if code == libc::EAI_SYSTEM {
        io::Error::last_os_error().to_string()
    } else {
        // SAFETY: it is a text that stays, whatever the code.
        let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
        text.to_string_lossy().into_owned()
    };
    NoAddress { why, words }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_own_and_what_is_no_name_is_told() {
        for address in ["127.0.0.1", "::1"] {
            let itself: IpAddr = address.parse().unwrap();
            assert_eq!(addresses(address).unwrap(), [itself]);
        }
        let error = addresses("no name").unwrap_err();
        assert_eq!(error.why, Why::Nothing, "{error}");
        assert!(!error.to_string().is_empty());
        assert_eq!(addresses("nul\0").unwrap_err().why, Why::Other);
    }

    #[test]
    fn errors_are_told_apart_by_whether_there_may_be_such_a_name() {
        for (code, why) in [
            (libc::EAI_NONAME, Why::Nothing),
            (libc::EAI_NODATA, Why::Nothing),
            (libc::EAI_AGAIN, Why::NobodyKnows),
            (libc::EAI_FAIL, Why::Other),
            (libc::EAI_SYSTEM, Why::Other),
        ] {
            let error = no_address(code);
            assert_eq!(error.why, why);
            assert!(!error.to_string().is_empty());
        }
    }
}
