//! A look-up as every program does it: by the C library, in a process of its own. In the daemon's own process it would
//! prove nothing: eBPF programs leave the daemon's queries alone, and the library keeps what it has read of its files.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::process::{ExitCode, Stdio};

use tokio::process::Command;

/// This program, also when its file has been replaced since.
const SELF: &str = "/proc/self/exe";
/// The hidden command.
pub(crate) const LOOKUP: &str = "lookup";

/// The addresses of a name, in the library's order. What it runs ends with the future.
///
/// # Errors
/// The library's words, or why it could not be asked.
pub(super) async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    let mut command = Command::new(SELF);
    let arguments = [LOOKUP, "--", name].map(OsString::from);
    command.arg0("pmz").args(arguments).stdin(Stdio::null());
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|error| format!("a process can't be started: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.trim().to_owned());
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
            ExitCode::FAILURE
        }
    }
}

fn addresses(name: &str) -> io::Result<Vec<IpAddr>> {
    // Any port does.
    let found = (name, 53).to_socket_addrs()?;
    Ok(found.map(|at| at.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_own_and_what_is_no_name_is_told() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(addresses("127.0.0.1").unwrap(), [loopback]);
        assert!(!addresses("no name").unwrap_err().to_string().is_empty());
    }
}
