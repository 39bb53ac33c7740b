//! The pmz program that the tests run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

/// The pmz binary of this build. Under cargo it is brought up to date first: a test must not pass on
/// yesterday's program.
///
/// # Errors
/// Where it can't be built, or outside cargo is not there.
pub fn pmz_binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn find() -> Result<PathBuf> {
    // target/<profile>/deps/<this test>
    let test = env::current_exe()?;
    let folder = test
        .ancestors()
        .nth(2)
        .context("the test is in no target folder")?;
    if let Some(cargo) = env::var_os("CARGO") {
        build(Path::new(&cargo), folder)?;
    }
    let binary = folder.join("pmz");
    ensure!(
        binary.exists(),
        "{} is not there: `cargo build -p pmz-cli` makes it",
        binary.display()
    );
    Ok(binary)
}

fn build(cargo: &Path, folder: &Path) -> Result<()> {
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
    let output = command
        .args(["build", "--quiet", "-p", "pmz-cli", "--bin", "pmz"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .context("run cargo")?;
    ensure!(
        output.status.success(),
        "pmz does not build: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
