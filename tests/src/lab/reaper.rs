//! Takes a cluster away when the tests' process ends, however it ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

/// What the names of the lab's clusters begin with.
pub(super) const PREFIX: &str = "l";

/// What is behind a cluster's name in that of the folder with its files.
const FILES: &str = ".files";

/// Waits for the end of its standard input, which is that of the tests' process; then cleans up by the
/// command that comes after the name of the file that says that there is something to do.
const SCRIPT: &str =
    r#"while read -r _; do :; done; file=$1; shift; "$@" 1>&2 && rm -rf "$file.files" "$file""#;

/// A process that outlives this one for as long as cleaning up takes. It holds a lock on a file that is
/// called by the cluster's name: one that nobody holds is of a run whose reaper was killed.
pub(super) struct Reaper {
    /// Its standard input, among others.
    process: Child,
}

impl Reaper {
    /// To be started before there is anything to clean up.
    pub(super) fn start(cluster: &str, clean_up: &[OsString]) -> Result<Self> {
        let path = folder()?.join(cluster);
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!("another process has a cluster {cluster}");
        };
        let process = Command::new("sh")
            .args(["-c", SCRIPT, "reaper"])
            .arg(&path)
            .args(clean_up)
            // The lock belongs to the open file, and so to whoever has it.
            .stdout(lock.try_clone()?)
            .stdin(Stdio::piped())
            // Ctrl-C is for the tests; this one has to clean up after them.
            .process_group(0)
            .spawn()
            .context("start the shell that cleans up at the end")?;
        // Dropping a Flock unlocks the file for all who have it open.
        std::mem::forget(lock);
        Ok(Self { process })
    }
}

impl Reaper {
    /// Has it clean up now, and waits until that is done.
    pub(super) fn end(mut self) -> Result<()> {
        drop(self.process.stdin.take());
        let status = self.process.wait()?;
        ensure!(status.success(), "cleaning up: {status}");
        Ok(())
    }
}

/// A folder for files that go with that cluster.
pub(super) fn files(cluster: &str) -> Result<PathBuf> {
    let path = folder()?.join(format!("{cluster}{FILES}"));
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Takes away the clusters of runs that were killed together with their reapers.
pub(super) fn clear_leftovers(lab: &Path) -> Result<()> {
    for entry in fs::read_dir(folder()?)? {
        let path = entry?.path();
        let (Some(name), Ok(file)) = (path.file_name(), File::open(&path)) else {
            continue;
        };
        let text = name.as_encoded_bytes();
        if !text.starts_with(PREFIX.as_bytes()) || text.ends_with(FILES.as_bytes()) {
            continue;
        }
        let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            continue;
        };
        let output = Command::new(lab.join("down"))
            .arg("--name")
            .arg(name)
            .output()
            .with_context(|| lab.join("down").display().to_string())?;
        ensure!(
            output.status.success(),
            "the cluster {} of a run that was killed can't be taken away: {}",
            name.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        // Not every cluster has any.
        let _ = fs::remove_dir_all(path.with_added_extension(&FILES[1..]));
        fs::remove_file(&path)?;
    }
    Ok(())
}

fn folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join("pmz-tests-clusters");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}
