//! The daemon's log file, which never takes more than two times its limit.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

const LIMIT: u64 = 8 << 20;

/// A file that is begun anew when it is full; the one before is kept beside it as `NAME.1`.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    open: Mutex<(File, u64)>,
}

impl LogFile {
    /// Begins a new file; makes its folder, for the user alone.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let file = begin(path)?;
        Ok(Self {
            path: path.to_owned(),
            open: Mutex::new((file, 0)),
        })
    }
}

fn begin(path: &Path) -> io::Result<File> {
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    match fs::rename(path, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Names of the user's services are in it.
    OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock();
        if open.1 >= LIMIT {
            *open = (begin(&self.path)?, 0);
        }
        let written = open.0.write(bytes)?;
        open.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// What is logged: `PMZ_LOG` as tracing's filters have it, else by the number of `-v`.
pub(crate) fn filter(verbose: u8, quiet: &str) -> EnvFilter {
    let level = match verbose {
        0 => quiet,
        1 => "info,pmz_cli=debug,pmz_net=debug,pmz_agent=debug",
        _ => "debug,pmz_cli=trace,pmz_net=trace,pmz_agent=trace",
    };
    // Libraries tell each query at INFO, and as an ERROR what is handled and told here.
    let level = format!("{level},hickory_server=warn,kube_client=off");
    EnvFilter::try_from_env("PMZ_LOG").unwrap_or_else(|_| EnvFilter::new(level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_begins_anew_and_keeps_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/pmz.log");
        let log = LogFile::create(&path).unwrap();
        let block = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            (&log).write_all(&block).unwrap();
        }
        (&log).write_all(b"last\n").unwrap();
        let size = |path: &str| fs::metadata(dir.path().join(path)).unwrap().len();
        assert!(size("state/pmz.log") <= LIMIT && size("state/pmz.log.1") == LIMIT);
        assert!(fs::read(&path).unwrap().ends_with(b"last\n"));
        assert_eq!(fs::read_dir(dir.path().join("state")).unwrap().count(), 2);
    }
}
