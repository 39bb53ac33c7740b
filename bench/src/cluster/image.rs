//! The image of the load, made of a folder of programs and of this one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pmz_cli::image::{Architecture, Image, ImageFile, ImageName, Written};
use pmz_tests::lab::Programs;
use serde_json::json;

use super::host::PROGRAM;
use crate::iperf::IPERF3;
use crate::process;

/// What it is called where nobody says otherwise.
const NAME: &str = concat!("localhost/pmz-bench:", env!("CARGO_PKG_VERSION"));
/// What nginx looks its user up in.
const USERS: [(&str, &str); 2] = [
    ("/etc/passwd", "root:x:0:0:root:/:/bin/false\n"),
    ("/etc/group", "root:x:0:\n"),
];

/// Options of `pmz-bench image`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Where to write the archive, an OCI image layout: nginx, hey, h2load of the folder that PMZ_TEST_PROGRAMS names,
    /// iperf3 of this machine, and this program with all that pmz does, so that it is an agent's image, too
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the image
    #[arg(long, value_name = "NAME:TAG", default_value = NAME)]
    name: ImageName,
}

/// Writes it.
///
/// # Errors
/// Where a program or a library of one is missing, or the file can't be written.
pub(crate) fn make(args: &Args) -> Result<Written> {
    write(&args.file, &args.name, &Programs::from_env()?)
}

/// What it is called where nobody says otherwise.
///
/// # Errors
/// None, while the version is one that a tag can be.
pub(super) fn default_name() -> Result<ImageName> {
    Ok(NAME.parse()?)
}

/// Writes it.
///
/// # Errors
/// As [`make`].
pub(super) fn write(to: &Path, name: &ImageName, programs: &Programs) -> Result<Written> {
    let own = std::env::current_exe()?;
    let architecture = Architecture::of(&read(&own)?)?;
    let iperf3 = process::find(IPERF3).context("iperf3 is not installed (apt install iperf3)")?;
    let all = [
        (PROGRAM, own),
        ("/usr/bin/iperf3", iperf3),
        ("/usr/bin/hey", programs.path("bin/hey")),
        ("/usr/bin/h2load", programs.path("bin/h2load")),
        ("/usr/sbin/nginx", programs.path("sbin/nginx")),
    ];
    let mut files: Vec<ImageFile<'_>> = USERS
        .map(|(path, text)| ImageFile::text(path, text))
        .to_vec();
    let mut libraries = Vec::new();
    for (path, program) in all {
        files.push(ImageFile::program(path, read(&program)?));
        libraries.extend(programs.linked(&program)?);
    }
    // Several of them want the same ones.
    libraries.sort();
    libraries.dedup_by(|one, other| one.0 == other.0);
    for (path, library) in libraries {
        files.push(ImageFile::program(path, read(&library)?));
    }
    let how = json!({"Env": ["PATH=/usr/bin:/usr/sbin:/"], "WorkingDir": "/"});
    let image = Image::of_files(name.clone(), architecture, &files, &how, "pmz-bench image")?;
    let written = File::create(to).and_then(|file| image.write(io::BufWriter::new(file)));
    written.with_context(|| format!("write {}", to.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}
