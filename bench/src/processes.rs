//! Processes, pmz's above all, and what they take.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pmz_cli::playground::netns::{NetNs, NetNsId};

use crate::cpu;

/// Some of this machine's processes, by their folders in /proc.
#[derive(Clone, Debug, Default)]
pub(crate) struct Processes(Vec<PathBuf>);

impl Processes {
    /// Those in a namespace that were started by one of these verbs of pmz's, and run now.
    ///
    /// # Errors
    /// Where there are none.
    pub(crate) fn of(netns: &NetNs, verbs: &[&str]) -> Result<Self> {
        let found = Self::that_are(|path| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let second = line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
            verbs.iter().any(|verb| verb.as_bytes() == second)
                && namespace(path).is_some_and(|id| id == netns.id())
        })?;
        ensure!(!found.0.is_empty(), "no {} runs", verbs.join(" and no "));
        Ok(found)
    }

    /// Those of a container, by the id that the kubelet tells.
    ///
    /// # Errors
    /// Where there are none on this machine.
    pub(crate) fn of_container(id: &str) -> Result<Self> {
        let found = Self::that_are(|path| {
            fs::read_to_string(path.join("cgroup")).is_ok_and(|cgroup| cgroup.contains(id))
        })?;
        ensure!(
            !found.0.is_empty(),
            "nothing runs in the container {id} here"
        );
        Ok(found)
    }

    /// One, by its number.
    pub(crate) fn of_number(number: u32) -> Self {
        Self(vec![Path::new("/proc").join(number.to_string())])
    }

    /// Those that were given this home directory, and whatever they have started since.
    ///
    /// # Errors
    /// Where no processes are to be seen.
    pub(crate) fn of_home(home: &Path) -> Result<Self> {
        let variable = [b"HOME=", home.as_os_str().as_encoded_bytes()].concat();
        Self::that_are(|path| {
            let environment = fs::read(path.join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|one| one == variable)
        })
    }

    /// Kills them.
    pub(crate) fn kill(&self) {
        for number in self.0.iter().filter_map(|path| number(path)) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(number), Signal::SIGKILL);
        }
    }

    fn that_are(wanted: impl Fn(&Path) -> bool) -> Result<Self> {
        let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        Ok(Self(all.filter(|path| wanted(path)).collect()))
    }

    /// These and those.
    pub(crate) fn with(&self, others: &Self) -> Self {
        Self([&self.0[..], &others.0].concat())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Their processor time so far.
    ///
    /// # Errors
    /// Where one has ended, and somebody has waited for it.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let cpu = |path: &PathBuf| cpu::of_process(number(path).context("no process")?);
        self.0.iter().map(cpu).sum()
    }

    /// Bytes of memory that they hold, those of the program's file included.
    ///
    /// # Errors
    /// Where one has ended.
    pub(crate) fn resident(&self) -> Result<f64> {
        self.0.iter().map(|path| resident(path)).sum()
    }
}

fn number(path: &Path) -> Option<i32> {
    path.file_name()?.to_str()?.parse().ok()
}

fn namespace(process: &Path) -> Option<NetNsId> {
    let file = File::open(process.join("ns/net")).ok()?;
    Some(NetNs::from_fd(file.into()).ok()?.id())
}

/// `VmRSS` of proc_pid_status(5), in bytes, of the process with this folder in /proc.
///
/// # Errors
/// Where it has ended.
pub(crate) fn resident(process: &Path) -> Result<f64> {
    let status = fs::read_to_string(process.join("status"))
        .with_context(|| format!("{} has ended", process.display()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("no VmRSS")? * 1024.0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn this_process_has_memory_and_is_in_its_namespace() {
        let here = Path::new("/proc/self");
        assert!(resident(here).unwrap() > 1e5);
        let this = Processes::of_number(std::process::id());
        assert!(this.resident().unwrap() > 1e5 && this.cpu().unwrap() > Duration::ZERO);
        assert_eq!(this.with(&this).count(), 2);
        assert!(Processes::of_container("no-such-container").is_err());
        assert_eq!(namespace(here), Some(NetNs::current().unwrap().id()));
        assert!(Processes::of(&NetNs::current().unwrap(), &["no-such-verb"]).is_err());
    }

    #[test]
    fn what_has_a_home_of_its_own_is_found_and_killed_by_it() {
        let home = std::env::temp_dir().join(format!("pmz-bench-home-{}", std::process::id()));
        let mut command = std::process::Command::new("cat");
        let piped = std::process::Stdio::piped;
        command.env("HOME", &home).stdin(piped()).stdout(piped());
        let mut started = command.spawn().unwrap();
        // The kernel sets a new program's environment shortly after spawn(3) has returned: what runs has it.
        started.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        let answer = started.stdout.as_mut().unwrap().read_exact(&mut [0]);
        answer.unwrap();
        let found = Processes::of_home(&home).unwrap();
        assert_eq!(found.count(), 1);
        found.kill();
        assert!(!started.wait().unwrap().success());
        assert_eq!(Processes::of_home(&home).unwrap().count(), 0);
    }
}
