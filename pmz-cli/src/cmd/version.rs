//! `pmz version`.

use std::process::ExitCode as Code;

use crate::failure::Failure;

pub(super) fn run() -> Result<Code, Failure> {
    println!("pmz {}", env!("CARGO_PKG_VERSION"));
    Ok(Code::SUCCESS)
}
