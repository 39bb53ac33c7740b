//! The agent's image, out of this build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::binary;

/// The program in it, below `/`.
pub(super) const PROGRAM: &str = "pmz";
/// What the image is called in the cluster.
pub const NAME: &str = "localhost/pmz:test";

/// Writes the agent's image by `pmz agent image` of a static pmz, which cargo builds where it is missing or
/// older than its sources.
pub(super) fn write(to: &Path) -> Result<()> {
    let pmz = static_pmz()?;
    let output = Command::new(&pmz)
        .args(["agent", "image", "--image", NAME, "-o"])
        .arg(to)
        .output()
        .with_context(|| pmz.display().to_string())?;
    ensure!(
        output.status.success(),
        "no image: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn static_pmz() -> Result<PathBuf> {
    let folder = binary::profile_folder()?;
    if let Some(mut cargo) = binary::cargo(&folder, "rustc")? {
        cargo
            .args(["-p", "pmz-tests", "--features", "static"])
            .args(["--example", "pmz-static"])
            // Lines of debug information are two thirds of an image that each node has to unpack.
            .args([
                "--",
                "-C",
                "target-feature=+crt-static",
                "-C",
                "strip=debuginfo",
            ]);
        binary::succeed(cargo)?;
    }
    let pmz = folder.join("examples/pmz-static");
    ensure!(pmz.exists(), "{} is not there: run by cargo", pmz.display());
    Ok(pmz)
}
