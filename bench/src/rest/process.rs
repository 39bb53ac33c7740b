//! pmz's processes in a namespace, and what they take.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pmz_cli::playground::netns::{NetNs, NetNsId};

use crate::cpu;

/// Those that were started by one of pmz's verbs.
#[derive(Debug)]
pub(super) struct Processes(Vec<PathBuf>);

impl Processes {
    /// Those that run now.
    ///
    /// # Errors
    /// Where there are none.
    pub(super) fn of(netns: &NetNs, verb: &str) -> Result<Self> {
        let all = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let is_wanted = |path: &PathBuf| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let second = line.split(|byte| *byte == 0).nth(1);
            second == Some(verb.as_bytes()) && namespace(path).is_some_and(|id| id == netns.id())
        };
        let found: Vec<PathBuf> = all.filter(is_wanted).collect();
        ensure!(!found.is_empty(), "no {verb} runs");
        Ok(Self(found))
    }

    /// Their processor time so far.
    ///
    /// # Errors
    /// Where one has ended.
    pub(super) fn cpu(&self) -> Result<Duration> {
        self.0.iter().map(|path| cpu::of_process(path)).sum()
    }

    /// Bytes of memory that they hold, those of the program's file included.
    ///
    /// # Errors
    /// Where one has ended.
    pub(super) fn resident(&self) -> Result<f64> {
        self.0.iter().map(|path| resident(path)).sum()
    }
}

fn namespace(process: &Path) -> Option<NetNsId> {
    let file = File::open(process.join("ns/net")).ok()?;
    Some(NetNs::from_fd(file.into()).ok()?.id())
}

/// `VmRSS` of proc_pid_status(5).
fn resident(process: &Path) -> Result<f64> {
    let status = fs::read_to_string(process.join("status"))
        .with_context(|| format!("{} has ended", process.display()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("no VmRSS")? * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_is_in_its_namespace() {
        let here = Path::new("/proc/self");
        assert!(resident(here).unwrap() > 1e5);
        assert_eq!(namespace(here), Some(NetNs::current().unwrap().id()));
        assert!(Processes::of(&NetNs::current().unwrap(), "no-such-verb").is_err());
    }
}
