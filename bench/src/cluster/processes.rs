//! What processes have used: processor time and memory, by proc(5).

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use pmz_cli::playground::netns::NetNs;

/// A process, by its number on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// A child of this one, for example.
    pub(super) fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// Seconds of processor time so far, of all its threads, in user space and in the kernel.
    pub(super) fn cpu_seconds(self) -> Result<f64> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
        Ok(cpu_ticks(&self.read("stat")?)? as f64 / ticks as f64)
    }

    /// Resident bytes.
    pub(super) fn memory(self) -> Result<f64> {
        resident_bytes(&self.read("status")?)
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| path)
    }
}

/// Seconds of processor time of all of them.
pub(super) fn cpu_seconds(processes: &[Process]) -> Result<f64> {
    processes.iter().map(|it| it.cpu_seconds()).sum()
}

/// The processes in a network namespace whose first argument is one of those.
pub(super) fn in_netns(netns: &NetNs, verbs: &[&str]) -> Result<Vec<Process>> {
    that_are(|folder| {
        let own = File::open(folder.join("ns/net")).and_then(|it| NetNs::from_fd(it.into()));
        let command = fs::read(folder.join("cmdline")).unwrap_or_default();
        let verb = command.split(|byte| *byte == 0).nth(1).unwrap_or_default();
        own.is_ok_and(|own| own.id() == netns.id()) && verbs.iter().any(|it| it.as_bytes() == verb)
    })
}

/// The processes of a container, by the id that the kubelet tells.
pub(super) fn of_container(id: &str) -> Result<Vec<Process>> {
    let found = that_are(|folder| {
        fs::read_to_string(folder.join("cgroup")).is_ok_and(|cgroup| cgroup.contains(id))
    })?;
    ensure!(!found.is_empty(), "nothing runs in the container {id} here");
    Ok(found)
}

fn that_are(wanted: impl Fn(&Path) -> bool) -> Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = number.filter(|_| wanted(&entry.path())) {
            found.push(Process(pid));
        }
    }
    Ok(found)
}

fn cpu_ticks(stat: &str) -> Result<u64> {
    // The second field is a name in parentheses, which may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let mut next = || {
        fields
            .next()
            .context("a field is missing")?
            .context("a field")
    };
    Ok(next()? + next()?)
}

fn resident_bytes(status: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: f64 = kib.context("no resident size")?.trim().parse()?;
    Ok(kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_user_space_and_in_the_kernel_is_added_whatever_the_process_is_called() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 99 99 20 0";
        assert_eq!(cpu_ticks(stat).unwrap(), 300);
        assert!(cpu_ticks("7 (a) S 1 2").is_err());
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        let status = "Name:\tpmz\nVmRSS:\t    2048 kB\nThreads:\t3\n";
        assert_eq!(resident_bytes(status).unwrap(), 2048.0 * 1024.0);
        assert!(resident_bytes("Name:\tgone\n").is_err());
    }

    #[test]
    fn this_process_has_used_some_of_both() {
        let this = Process::new(std::process::id());
        assert!(this.memory().unwrap() > 100e3);
        assert!(this.cpu_seconds().unwrap() >= 0.0);
    }
}
