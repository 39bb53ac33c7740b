//! `pmz agent image`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode as Code;

use clap::Args;

use crate::failure::{ExitCode, Failure};
use crate::image::{Architecture, DEFAULT_IMAGE, ElfError, Image, ImageName, Written, version_in};

/// The program that runs.
const OWN: &str = "/proc/self/exe";
/// No program is bigger; a device, or a disk's image named by mistake, may be endless.
const MAX_PROGRAM: u64 = 1 << 30;
/// How a program is made that needs no library.
const BUILD: &str = "`cargo rustc --release -p pmz-cli --bin pmz -- -C target-feature=+crt-static -C strip=debuginfo` builds one; \
                     then run `target/release/pmz agent image -o FILE`";

/// Options of `pmz agent image`.
#[derive(Debug, Args)]
pub(super) struct ImageArgs {
    /// Where to write the archive; `-` is stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The static pmz that is to be in it, instead of this one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// What it must run on; else it is what the binary is for
    #[arg(long, value_enum, value_name = "ARCH")]
    arch: Option<Architecture>,
    /// Name of the image
    #[arg(long, value_name = "NAME:TAG", default_value = DEFAULT_IMAGE)]
    image: ImageName,
}

pub(super) fn run(args: &ImageArgs) -> Result<Code, Failure> {
    let image = make(args)?;
    if args.output == Path::new("-") {
        let stdout = io::stdout().lock();
        if stdout.is_terminal() {
            return Err(Failure::new(
                ExitCode::Usage,
                "An archive is nothing for a terminal",
                "Name a file, or lead stdout into a pipe",
            ));
        }
        let written = image.write(stdout).map_err(|e| unwritten("stdout", &e))?;
        eprintln!("{} {}", written.name, written.digest);
        return Ok(Code::SUCCESS);
    }
    let written = replace(&args.output, &image)
        .map_err(|e| unwritten(&args.output.display().to_string(), &e))?;
    // Whoever reads may have heard enough.
    let _ = writeln!(io::stdout(), "{} {}", written.name, written.digest);
    Ok(Code::SUCCESS)
}

fn make(args: &ImageArgs) -> Result<Image, Failure> {
    let path = args.binary.as_deref().unwrap_or(Path::new(OWN));
    let what = match &args.binary {
        Some(path) => path.display().to_string(),
        None => {
            std::env::current_exe().map_or_else(|_| OWN.to_owned(), |p| p.display().to_string())
        }
    };
    let program = read(path).map_err(|error| {
        Failure::new(
            ExitCode::Usage,
            format!("{what} can't be read: {error}"),
            "--binary names a static pmz",
        )
    })?;
    let image = Image::new(args.image.clone(), &program).map_err(|error| unfit(&what, &error))?;
    if version_in(&program).is_none() {
        return Err(Failure::new(
            ExitCode::Usage,
            format!("{what} is no pmz: the image's entrypoint is `pmz agent serve`"),
            BUILD,
        ));
    }
    match args.arch {
        Some(wanted) if wanted != image.architecture() => Err(Failure::new(
            ExitCode::Usage,
            format!("{what} is for {}, not for {wanted}", image.architecture()),
            format!("Build pmz for {wanted}, static, and name it with --binary"),
        )),
        _ => Ok(image),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_PROGRAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program"));
    }
    let mut program = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(MAX_PROGRAM).read_to_end(&mut program)?;
    Ok(program)
}

/// Writes the archive to a file, which is never there in part. What is not a file (a pipe, a device) is
/// written to as it is.
fn replace(path: &Path, image: &Image) -> io::Result<Written> {
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return image.write(File::options().write(true).open(path)?);
    }
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    let mut part = OsString::from(".");
    part.push(name);
    part.push(format!(".{}", std::process::id()));
    let part = path.with_file_name(part);
    let written = File::create(&part)
        .and_then(|file| image.write(file))
        .and_then(|written| std::fs::rename(&part, path).map(|()| written));
    if written.is_err() {
        // It may not have been made.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn unfit(what: &str, error: &ElfError) -> Failure {
    let next = match error {
        ElfError::Dynamic { .. } => BUILD.to_owned(),
        ElfError::NotAProgram | ElfError::OtherMachine(_) => {
            "--binary names a static pmz for amd64 or arm64".to_owned()
        }
    };
    let why = match error {
        ElfError::Dynamic { .. } => ", and an image from scratch has neither loader nor libraries",
        ElfError::NotAProgram | ElfError::OtherMachine(_) => "",
    };
    Failure::new(ExitCode::Usage, format!("{what} {error}{why}"), next)
}

fn unwritten(what: &str, error: &io::Error) -> Failure {
    Failure::new(
        ExitCode::General,
        format!("The image can't be written to {what}: {error}"),
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(output: &Path, binary: Option<&str>) -> ImageArgs {
        ImageArgs {
            output: output.to_owned(),
            binary: binary.map(PathBuf::from),
            arch: None,
            image: DEFAULT_IMAGE.parse().unwrap(),
        }
    }

    #[test]
    fn a_dynamic_pmz_is_refused_with_the_command_that_builds_a_static_one() {
        if cfg!(target_feature = "crt-static") {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let failure = run(&args(&folder.path().join("image.tar"), None)).unwrap_err();
        assert_eq!(failure.code, ExitCode::Usage);
        let text = failure.to_string();
        assert!(text.contains("wants the loader /"), "{text}");
        assert!(
            text.contains(
                "cargo rustc --release -p pmz-cli --bin pmz -- -C target-feature=+crt-static"
            ),
            "{text}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_program_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("image.tar");
        for (binary, word) in [
            ("/nonexistent/pmz", "can't be read"),
            ("/dev/zero", "can't be read"),
            ("/etc/passwd", "is no 64-bit Linux program"),
        ] {
            let text = run(&args(&output, Some(binary))).unwrap_err().to_string();
            assert!(text.contains(binary) && text.contains(word), "{text}");
        }
    }
}
