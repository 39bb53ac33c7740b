//! The file that keeps the domains: `$XDG_CONFIG_HOME/pmz/domains.json`, by default `~/.config/pmz/domains.json`.
//!
//! The daemon writes it, which is the user, and where there is none `pmz dns` does. Each change takes a lock on the
//! folder, reads what is there, and puts a new file in the old one's place, so that neither a crash nor another command
//! leaves half of it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Entry;
use crate::failure::{ExitCode, Failure};

/// The largest file that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;
/// Domains that are kept at most, of all contexts.
const MAX_DOMAINS: usize = 1000;
/// The longest name of a context, in bytes.
const MAX_CONTEXT: usize = 1024;
/// Changes take milliseconds: whoever holds the lock for longer is stuck.
const LOCKED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What is in the file; another number is another format.
const VERSION: u32 = 1;

/// Why domains can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no place for it.
    #[error("you have no home folder, and XDG_CONFIG_HOME names no other")]
    NoHome,
    /// The system refuses.
    #[error("{} can't be {verb}: {source}", .path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// `read` or `written`.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could have written it.
    #[error("{} is not used: {reason}", .path.display())]
    Untrusted {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// It is no list of domains.
    #[error("{} is wrong in line {line}: {reason}", .path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Where, from 1 on.
        line: usize,
        /// What.
        reason: String,
    },
    /// Another command holds the lock, and does not end.
    #[error("another process has been changing {} for too long", .0.display())]
    Locked(PathBuf),
    /// The list is at its limit.
    #[error("{MAX_DOMAINS} domains are kept at most")]
    Full,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let next = match &error {
            StoreError::NoHome => "Set HOME or XDG_CONFIG_HOME",
            StoreError::Io { .. } => "Make it yours, or move it away",
            StoreError::Untrusted { .. } => {
                "Look at what is in it, then make it yours alone (`chown`, `chmod 600`), or move it away"
            }
            StoreError::Wrong { .. } => "Correct that line, or move the file away",
            StoreError::Locked(_) => "Try again; `fuser` on that folder tells which process it is",
            StoreError::Full => "`pmz dns list` shows them, `pmz dns remove` makes room",
        };
        let cause = crate::failure::capital(&error.to_string());
        Self::new(ExitCode::General, cause, next)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    domains: Vec<Entry>,
}

#[derive(Serialize)]
struct ContentRef<'a> {
    version: u32,
    domains: &'a [Entry],
}

/// The file. Its methods block.
#[derive(Clone, Debug)]
pub struct Store {
    path: Option<PathBuf>,
}

impl Store {
    /// The calling user's.
    pub fn of_user() -> Self {
        let config = crate::config::path();
        Self {
            path: config.map(|path| path.with_file_name("domains.json")),
        }
    }

    /// That file.
    pub fn at(path: &Path) -> Self {
        Self {
            path: Some(path.to_owned()),
        }
    }

    /// All domains, of all contexts; none where there is no file.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn read(&self) -> Result<Vec<Entry>, StoreError> {
        match &self.path {
            Some(path) => read(path),
            None => Ok(Vec::new()),
        }
    }

    /// Changes the list, unless `change` fails, and writes it if it is another one then.
    ///
    /// # Errors
    /// Those of `change`; and see [`StoreError`].
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Entry>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let path = self.path.as_ref().ok_or(StoreError::NoHome)?;
        let folder = path.parent().ok_or(StoreError::NoHome)?;
        let _lock = lock(folder)?;
        let before = read(path)?;
        let mut entries = before.clone();
        let changed = change(&mut entries)?;
        if entries != before {
            if entries.len() > MAX_DOMAINS {
                return Err(StoreError::Full.into());
            }
            write(path, folder, &entries)?;
        }
        Ok(changed)
    }
}

fn lock(folder: &Path) -> Result<Flock<File>, StoreError> {
    let error = |source| StoreError::Io {
        path: folder.to_owned(),
        verb: "written",
        source,
    };
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(error)?;
    let mut handle = File::open(folder).map_err(error)?;
    let until = Instant::now() + LOCKED_WITHIN;
    loop {
        match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            // flock(2) waits for ever or not at all.
            Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < until => {
                handle = again;
                std::thread::sleep(LOOK_AGAIN);
            }
            Err((_, Errno::EWOULDBLOCK)) => return Err(StoreError::Locked(folder.to_owned())),
            Err((_, errno)) => return Err(error(errno.into())),
        }
    }
}

fn read(path: &Path) -> Result<Vec<Entry>, StoreError> {
    let io = |source| StoreError::Io {
        path: path.to_owned(),
        verb: "read",
        source,
    };
    let untrusted = |reason| StoreError::Untrusted {
        path: path.to_owned(),
        reason,
    };
    // A pipe in its place would keep us waiting.
    let flags = libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    let own = nix::unistd::geteuid().as_raw();
    if !metadata.is_file() {
        return Err(untrusted("it is no file"));
    }
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(untrusted("it is another user's"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(untrusted("others may write to it"));
    }
    let mut text = Vec::new();
    let mut limited = file.take(MAX_SIZE + 1);
    limited.read_to_end(&mut text).map_err(io)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(untrusted("it is larger than 1 MiB"));
    }
    parse(&text).map_err(|(line, reason)| StoreError::Wrong {
        path: path.to_owned(),
        line,
        reason,
    })
}

/// The domains in a file's text, each once: of two that are the same the later counts.
fn parse(text: &[u8]) -> Result<Vec<Entry>, (usize, String)> {
    let content: Content = serde_json::from_slice(text).map_err(|error| {
        let told = error.to_string();
        let reason = told.split(" at line ").next().unwrap_or_default();
        (error.line(), reason.to_owned())
    })?;
    let Content { version, domains } = content;
    if version != VERSION {
        let reason = format!("version {version} is not known; this pmz knows {VERSION}");
        return Err((1, reason));
    }
    if domains.len() > MAX_DOMAINS {
        return Err((1, format!("more than {MAX_DOMAINS} domains")));
    }
    let mut entries: Vec<Entry> = Vec::new();
    for entry in domains {
        if entry.context.len() > MAX_CONTEXT || entry.context.contains(char::is_control) {
            return Err((
                1,
                format!("no context has a name like that of {}", entry.domain),
            ));
        }
        entries.retain(|other| (&other.context, &other.domain) != (&entry.context, &entry.domain));
        entries.push(entry);
    }
    Ok(entries)
}

fn write(path: &Path, folder: &Path, entries: &[Entry]) -> Result<(), StoreError> {
    // Where it is a link, as people have it who keep such files elsewhere, it stays one.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = real.parent().unwrap_or(folder);
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.{:016x}", rand::random::<u64>()));
    let written = try_write(&new, entries)
        .and_then(|()| fs::rename(&new, &real))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|source| {
        // It may not even be there.
        let _ = fs::remove_file(&new);
        StoreError::Io {
            path: real.clone(),
            verb: "written",
            source,
        }
    })
}

fn try_write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let content = ContentRef {
        version: VERSION,
        domains: entries,
    };
    let mut text = serde_json::to_vec_pretty(&content)?;
    text.push(b'\n');
    // What a developer works on is nobody else's business.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
