//! The environment of whoever called sudo. sudo keeps little of it, and kubeconfig, credential plugins and
//! proxies are found by it; but sudo itself still has it all.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Processes between this one and sudo, at most: `pmz up`, sudo's monitor, sudo.
const ANCESTORS: usize = 4;

/// One process's variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// What the caller of the sudo above this process had set; `None` where there is no sudo above, or it can't
    /// be read, which root can.
    pub(crate) fn behind_sudo() -> Option<Self> {
        let mut pid = std::os::unix::process::parent_id();
        let mut sudo = None;
        for _ in 0..ANCESTORS {
            let process = Path::new("/proc").join(pid.to_string());
            let program = fs::read_link(process.join("exe")).ok();
            let is_sudo = program.is_some_and(|exe| exe.file_name() == Some(OsStr::new("sudo")));
            match (is_sudo, &sudo) {
                // Of several, the outermost: the one that a person called.
                (true, _) => sudo = Some(process.join("environ")),
                (false, Some(_)) => break,
                (false, None) => {}
            }
            let status = fs::read_to_string(process.join("status")).ok()?;
            pid = parent(&status)?;
        }
        Some(Self::parse(&fs::read(sudo?).ok()?))
    }

    fn parse(environ: &[u8]) -> Self {
        let variables = environ.split(|byte| *byte == 0).filter_map(|variable| {
            let equals = variable.iter().position(|byte| *byte == b'=')?;
            let (name, value) = variable.split_at(equals);
            let usable = !name.is_empty();
            let os = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
            usable.then(|| (os(name), os(value.get(1..).unwrap_or_default())))
        });
        Self(variables.collect())
    }

    /// A variable's value.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_os_str())
    }

    /// All of them.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

/// The parent's id in /proc/PID/status.
fn parent(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_the_kernel_gives_them() {
        let environ = b"HOME=/home/ann\0KUBECONFIG=/a:/b\0EMPTY=\0=odd\0none\0TWO=a=b\0";
        let environment = Environment::parse(environ);
        assert_eq!(environment.get("KUBECONFIG"), Some(OsStr::new("/a:/b")));
        assert_eq!(environment.get("EMPTY"), Some(OsStr::new("")));
        assert_eq!(environment.get("TWO"), Some(OsStr::new("a=b")));
        assert_eq!(environment.variables().count(), 4);
    }

    #[test]
    fn a_processs_parent_is_in_its_status() {
        assert_eq!(parent("Name:\tpmz\nPid:\t7\nPPid:\t5\n"), Some(5));
        assert_eq!(parent("Name:\tinit\nPid:\t1\nPPid:\t0\n"), None);
    }
}
