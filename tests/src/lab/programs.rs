//! Servers and clients that nobody here wrote: Debian's, unpacked into a folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::cluster::succeed;
use super::{Lab, Laptop};

/// The folder.
const PROGRAMS: &str = "PMZ_TEST_PROGRAMS";
/// Where Debian has libraries.
#[cfg(target_arch = "x86_64")]
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
#[cfg(target_arch = "aarch64")]
const LIBRARIES: &str = "usr/lib/aarch64-linux-gnu";

/// A folder of Debian's programs, laid out as `/` is.
#[derive(Clone, Debug)]
pub struct Programs {
    root: PathBuf,
}

impl Programs {
    /// Says that the test is skipped where there are none.
    pub fn of(test: &str) -> Option<Self> {
        let programs = Self::from_env();
        if let Err(why) = &programs {
            crate::skipped(test, &why.to_string());
        }
        programs.ok()
    }

    /// Those of the folder that the environment names.
    ///
    /// # Errors
    /// Where it names none.
    pub fn from_env() -> Result<Self> {
        let root = std::env::var_os(PROGRAMS).filter(|root| !root.is_empty());
        let root = root.with_context(|| {
            format!(
                "none of Debian's programs (set {PROGRAMS} to a folder that \
                 tests/tests/kubernetes/fetch-programs has filled)"
            )
        })?;
        Ok(Self {
            root: std::path::absolute(root)?,
        })
    }

    /// Where one of them is, of a path below `/usr`: older Debian has some right below `/`.
    pub fn path(&self, program: &str) -> PathBuf {
        let found = [self.root.join("usr"), self.root.clone()].map(|it| it.join(program));
        let [below, above] = found;
        if below.exists() { below } else { above }
    }

    /// What the loader is told of their libraries, which are in these folders of Debian's one.
    pub fn libraries(&self, folders: &[&str]) -> String {
        let base = self.root.join(LIBRARIES);
        let paths = folders.iter().map(|it| base.join(it).display().to_string());
        paths.collect::<Vec<_>>().join(":")
    }

    /// Runs one of them on a laptop.
    pub fn on(&self, laptop: &Laptop, program: &str) -> Command {
        let mut command = laptop.command(&self.root.join(program).to_string_lossy());
        command.env("LD_LIBRARY_PATH", self.root.join(LIBRARIES));
        command
    }

    /// Runs one of them on this machine; the machine's own where there is none, by its name.
    pub fn here(&self, program: &str) -> Command {
        let path = self.path(&format!("bin/{program}"));
        if !path.exists() {
            return Command::new(program);
        }
        let mut command = Command::new(path);
        command.env("LD_LIBRARY_PATH", self.root.join(LIBRARIES));
        command
    }

    /// Makes an image of one of them with its libraries, and loads it into the cluster. The program becomes
    /// the image's `/NAME`, and is its entrypoint. An absolute path leads to a program of this machine's own.
    /// Blocks.
    ///
    /// # Errors
    /// Where a library is missing, or a node can't take the image.
    pub fn load(&self, lab: &Lab, program: &str, name: &str) -> Result<()> {
        let program = self.root.join(program);
        let archive = lab.scratch().join(format!("{name}.tar"));
        let mut make = lab.command("mkimage");
        make.arg(&archive).arg(format!("localhost/{name}:test"));
        make.args(["--dir", "/tmp", "--entrypoint", &format!("[\"/{name}\"]")]);
        // Who drops to a user looks itself up.
        make.args(["--text", "/etc/passwd=root:x:0:0:root:/:/bin/false\\n"]);
        make.args(["--text", "/etc/group=root:x:0:\\n"]);
        make.arg("--file")
            .arg(format!("{}=/{name}", program.display()));
        for (library, path) in self.linked(&program)? {
            make.arg("--file")
                .arg(format!("{}={library}", path.display()));
        }
        succeed(make)?;
        lab.load_image(&archive)?;
        std::fs::remove_file(archive)?;
        Ok(())
    }

    /// Where an image must have each library of a program, and where this machine has it, by ldd(1).
    ///
    /// # Errors
    /// Where one is missing.
    pub fn linked(&self, program: &Path) -> Result<Vec<(String, PathBuf)>> {
        let mut ldd = Command::new("ldd");
        ldd.arg(program)
            .env("LD_LIBRARY_PATH", self.root.join(LIBRARIES));
        let mut found = Vec::new();
        for line in succeed(ldd)?.lines().map(str::trim) {
            // "libz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f..)", the loader without an arrow;
            // the kernel's own has no path.
            let path = line.split_once("=> ").map_or(line, |(_, path)| path);
            ensure!(
                !path.starts_with("not found"),
                "{}: {line}",
                program.display()
            );
            let Some((path, _)) = path.split_once(" (") else {
                bail!("ldd says {line:?}");
            };
            if !path.starts_with('/') {
                continue;
            }
            let path = Path::new(path);
            let file = path.file_name().context("a library without a name")?;
            // The loader's path is in the program; the others are looked for in its own folders.
            let inside = if line.contains("=>") {
                format!("/{LIBRARIES}/{}", file.display())
            } else {
                path.display().to_string()
            };
            found.push((inside, path.canonicalize()?));
        }
        Ok(found)
    }
}
