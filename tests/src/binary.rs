//! The pmz program that the tests run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// The pmz binary of this build. A test must not pass on yesterday's program: where the binary is not
/// there or older than a source, cargo builds it first. `cargo test --workspace` has it built already, and
/// asking cargo again would build dependencies a second time, with the features of one package alone.
///
/// # Errors
/// Where it can't be built, or outside cargo is not there.
pub fn pmz_binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn find() -> Result<PathBuf> {
    let folder = profile_folder()?;
    let binary = folder.join("pmz");
    if !is_fresh(&binary)
        && let Some(mut cargo) = cargo(&folder, "build")?
    {
        cargo.args(["-p", "pmz-cli", "--bin", "pmz"]);
        succeed(cargo)?;
    }
    ensure!(
        binary.exists(),
        "{} is not there: `cargo build -p pmz-cli` makes it",
        binary.display()
    );
    Ok(binary)
}

/// Where cargo puts what it builds with this test's profile.
pub(crate) fn profile_folder() -> Result<PathBuf> {
    // target/<profile>/deps/<this test>
    let test = env::current_exe()?;
    let folder = test.ancestors().nth(2);
    Ok(folder
        .context("the test is in no target folder")?
        .to_owned())
}

/// Whether the binary is newer than every source that it is made of.
fn is_fresh(binary: &Path) -> bool {
    let Ok(built) = fs::metadata(binary).and_then(|m| m.modified()) else {
        return false;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> = ["pmz-net", "pmz-agent", "pmz-cli"]
        .iter()
        .flat_map(|name| [root.join(name), root.join(name).join("src")])
        .collect();
    // What is embedded.
    folders.push(root.join("deploy"));
    folders.push(root);
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            return false;
        };
        for entry in entries.flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else {
                return false;
            };
            let in_sources = folder.components().any(|part| part.as_os_str() == "src");
            let counts = path
                .extension()
                .is_some_and(|e| e == "rs" || e == "toml" || e == "lock" || e == "yaml");
            if metadata.is_dir() && in_sources {
                folders.push(path);
            } else if counts && metadata.modified().map_or(true, |changed| changed > built) {
                return false;
            }
        }
    }
    true
}

/// A command of cargo's for this test's profile; `None` where the test was not started by cargo.
pub(crate) fn cargo(folder: &Path, verb: &str) -> Result<Option<Command>> {
    let Some(cargo) = env::var_os("CARGO") else {
        return Ok(None);
    };
    let target = folder.parent().context("no target folder")?;
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut command = Command::new(cargo);
    // What cargo tells this test of its own package; build scripts would take it for a change.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
        .args([verb, "--quiet", "--profile", profile, "--target-dir"])
        .arg(target)
        .arg("--manifest-path")
        .arg(manifest);
    Ok(Some(command))
}

/// Runs such a command.
pub(crate) fn succeed(mut cargo: Command) -> Result<()> {
    let output = cargo.output().context("run cargo")?;
    ensure!(
        output.status.success(),
        "pmz does not build: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
